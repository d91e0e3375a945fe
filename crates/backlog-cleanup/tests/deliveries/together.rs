//! Several servers do together what one would.

use crate::receiver::Receiver;
use crate::server;
use crate::{File, serve};
use cluster::{Cluster, until_holds, until_true};

#[test]
fn while_nothing_ticks_one_of_several_servers_evaluates_the_rules() {
    let cluster = Cluster::shared("");
    let mut client = server::database(&cluster, "together");
    client.batch_execute("ALTER DATABASE together SET track_functions = 'all'").unwrap();
    let receiver = Receiver::start([]);
    let file = File::of(&format!(
        "[webhook.a]\nurl = \"{0}\"\n[webhook.b]\nurl = \"{0}\"\n[webhook.c]\nurl = \"{0}\"\n",
        receiver.address
    ));
    // A minute is long enough for all that follows.
    until_true(&mut client, "SELECT extract(second FROM clock_timestamp()) < 30");
    let servers = [(); 3].map(|()| serve(&cluster, "together", &file));
    until_holds(|| servers.iter().any(|server| server.log().contains("this server evaluates the rules")));
    client.batch_execute("NOTIFY backlog_cleanup").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(12));
    let minutes = "SELECT calls FROM pg_stat_user_functions WHERE funcname = 'evaluate_alerts'";
    let calls: i64 = client.query_one(minutes, &[]).unwrap().get(0);
    assert_eq!(calls, 1);
}
