//! A run and the servers that follow: a standby that takes over in the middle of it, and a subscriber.

mod cluster;

use cluster::{Cluster, until_true};

const FILL: &str = "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
    SELECT 'system_backlog', i % 10, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' FROM generate_series(1, 500) i";
const STATE: &str = "SELECT backlog_cleanup_status_json() #>> '{lastRun,state}'";

#[test]
fn a_standby_that_takes_over_in_the_middle_of_a_run_has_the_books_right_and_finishes() {
    let primary = Cluster::start("");
    primary.platform().batch_execute(FILL).unwrap();
    let standby = primary.standby();
    let mut session = primary.connect();
    let run = "CALL backlog_cleanup_run(mode => 'emergency', batch_size => 100, pause => '1 hour')";
    let run = std::thread::spawn(move || session.batch_execute(run));
    let mut client = standby.connect();
    until_true(&mut client, "SELECT count(*) = 400 FROM generations");
    // A standby does not see who is at work.
    assert_eq!(client.query_one(STATE, &[]).unwrap().get::<_, String>(0), "running");
    let progress = "SELECT state FROM backlog_cleanup.progress";
    assert_eq!(client.query_one(progress, &[]).unwrap().get::<_, String>(0), "running");
    primary.stop();
    assert!(run.join().unwrap().is_err());
    standby.promote();
    until_true(&mut client, "SELECT NOT pg_is_in_recovery()");
    let books = "SELECT 500 - (SELECT count(*) FROM generations), (SELECT sum(amount) FROM credit_transactions),
                        (SELECT sum(removed)::bigint FROM backlog_cleanup.run)";
    let books = |client: &mut postgres::Client| {
        let row = client.query_one(books, &[]).unwrap();
        [0, 1, 2].map(|column| row.get::<_, i64>(column))
    };
    assert_eq!(books(&mut client), [100; 3]);
    assert_eq!(client.query_one(STATE, &[]).unwrap().get::<_, String>(0), "interrupted");
    client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency')").unwrap();
    assert_eq!(books(&mut client), [500; 3]);
    assert_eq!(client.query_one(STATE, &[]).unwrap().get::<_, String>(0), "completed");
}

#[test]
fn a_subscriber_ends_equal_to_the_publisher() {
    let publisher = Cluster::start("wal_level = logical\n");
    let mut client = publisher.platform();
    client.batch_execute(&format!("{FILL}; CREATE PUBLICATION p FOR TABLE generations, credit_transactions")).unwrap();
    let subscriber = Cluster::start("wal_level = logical\n");
    let mut copy = subscriber.platform();
    let subscribe =
        format!("CREATE SUBSCRIPTION s CONNECTION 'host={} user=postgres' PUBLICATION p", publisher.socket());
    copy.batch_execute(&subscribe).unwrap();
    until_true(&mut copy, "SELECT count(*) = 500 FROM generations");
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    client.batch_execute(FILL).unwrap();
    client.batch_execute("CALL backlog_cleanup_run(batch_size => 100)").unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency(recipe_id => '3')").unwrap();
    let end: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).unwrap().get(0);
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
