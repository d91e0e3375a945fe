//! A run and the servers that follow: a standby that takes over in the middle of it, and a subscriber.

use cluster::{Cluster, balance, fail, last_state, numbers, refused, until_true, value};
use postgres::Client;

/// 500 rows of ten recipes.
fn fill(client: &mut Client) {
    for recipe in 0..10 {
        fail(client, recipe, 50);
    }
}

#[test]
fn a_standby_that_takes_over_in_the_middle_of_a_run_has_the_books_right_and_finishes() {
    let primary = Cluster::start("");
    fill(&mut primary.platform());
    let standby = primary.standby();
    let run =
        primary.in_background("CALL backlog_cleanup_run(mode => 'emergency', batch_size => 100, pause => '1 hour')");
    let mut client = standby.connect();
    until_true(&mut client, "SELECT count(*) = 400 FROM generations");
    // A standby does not see who is at work.
    assert_eq!(last_state(&mut client).as_deref(), Some("running"));
    assert_eq!(value::<String>(&mut client, "SELECT state FROM backlog_cleanup.progress"), "running");
    primary.stop();
    assert!(run.join().unwrap().1.is_err());
    standby.promote();
    until_true(&mut client, "SELECT NOT pg_is_in_recovery()");
    assert_eq!(balance(&mut client, 500), 100);
    assert_eq!(last_state(&mut client).as_deref(), Some("interrupted"));
    client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency')").unwrap();
    assert_eq!(balance(&mut client, 500), 500);
    assert_eq!(last_state(&mut client).as_deref(), Some("completed"));
}

#[test]
fn a_standby_answers_status_and_dry_runs_and_refuses_a_run() {
    let cluster = Cluster::start("");
    fail(&mut cluster.platform(), 1, 15);
    let standby = cluster.standby();
    let mut client = standby.connect();
    let failed = "SELECT failed_count, removable_count FROM backlog_cleanup_status()";
    assert_eq!(numbers(&mut client, failed), [15, 5]);
    client.batch_execute("SELECT backlog_cleanup_status_json()").unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations(dry_run => true)").unwrap();
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_failed_generations()")).0, "25006");
}

#[test]
fn a_subscriber_ends_equal_to_the_publisher() {
    let publisher = Cluster::start("wal_level = logical\n");
    let mut client = publisher.platform();
    fill(&mut client);
    client.batch_execute("CREATE PUBLICATION p FOR TABLE generations, credit_transactions").unwrap();
    let subscriber = Cluster::start("wal_level = logical\n");
    let mut copy = subscriber.platform();
    let subscribe =
        format!("CREATE SUBSCRIPTION s CONNECTION 'host={} user=postgres' PUBLICATION p", publisher.socket());
    copy.batch_execute(&subscribe).unwrap();
    until_true(&mut copy, "SELECT count(*) = 500 FROM generations");
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    fill(&mut client);
    client.batch_execute("CALL backlog_cleanup_run(batch_size => 100)").unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency(recipe_id => '3')").unwrap();
    let end: String = value(&mut client, "SELECT pg_current_wal_lsn()::text");
    until_true(
        &mut client,
        &format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = 's'"),
    );
    for table in ["generations", "credit_transactions"] {
        let rows = format!("SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM {table} t");
        let [here, there] = [&mut client, &mut copy].map(|server| {
            let row = server.query_one(&rows, &[]).unwrap();
            (row.get::<_, i64>(0), row.get::<_, Option<String>>(1))
        });
        assert_eq!(here, there, "{table}");
        assert!(here.0 > 0);
    }
    // The publisher would keep its log for it.
    copy.batch_execute("DROP SUBSCRIPTION s").unwrap();
}
