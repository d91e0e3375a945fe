use postgres::Client;

use crate::outage::{Outage, SETTINGS, index};
use crate::report::Table;
use crate::{median, size};
use cluster::Cluster;

const TICK: &str = "SELECT (backlog_cleanup_tick() -> 'milliseconds')::float8";

/// Ten targets without a history, and what three years of ticks leave in pg_cron's, which nobody has asked to be pruned.
const TEN: &str = "
    INSERT INTO backlog_cleanup.target (name) SELECT 'copy ' || i FROM generate_series(1, 9) i;
    TRUNCATE backlog_cleanup.run, backlog_cleanup.run_policy, backlog_cleanup.run_status, backlog_cleanup.run_failure,
             backlog_cleanup.run_recipe, backlog_cleanup.sample, backlog_cleanup.tick, backlog_cleanup.decision;
    CREATE EXTENSION pg_cron;
    INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
    SELECT 1, i, 'outage', 'postgres', 'SELECT public.backlog_cleanup_tick()', 'succeeded', '1 row', at, at
    FROM (SELECT i, now() - interval '5 minutes' * (315000 - i) FROM generate_series(1, 315000) i) ticks (i, at)";

/// What a tick takes on the outage, with one target and with ten, and over three years of samples, runs and ticks.
pub fn measure() -> Vec<Table> {
    let (rows, recipes) = (size("ROWS", 1_000_000), size("RECIPES", 2_000));
    let pg_cron = "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'outage'\n";
    let cluster = Cluster::start(&format!("{SETTINGS}{pg_cron}"));
    Outage { rows, recipes, failed: 0.7 }.load(&cluster, "outage");
    let mut client = cluster.connect_to("outage");
    index(&cluster, "outage");
    client.batch_execute("VACUUM ANALYZE generations").expect("a vacuum");
    let one = ticks(&mut client, 24);
    client
        .batch_execute("INSERT INTO backlog_cleanup.target (name) SELECT 'copy ' || i FROM generate_series(1, 9) i")
        .expect("nine more");
    let ten = ticks(&mut client, 24);
    client.batch_execute("DELETE FROM backlog_cleanup.target WHERE name <> 'generations'").expect("they go");
    client.batch_execute(include_str!("../three_years.sql")).expect("three years");
    let pruning = ticks(&mut client, 24);
    client.batch_execute("VACUUM ANALYZE").expect("a vacuum");
    let old = ticks(&mut client, 24);
    client.batch_execute(TEN).expect("nine more of three years");
    client.batch_execute(include_str!("../three_years.sql")).expect("three years");
    client.batch_execute("VACUUM ANALYZE").expect("a vacuum");
    let all = ticks(&mut client, 24);
    let row = |what: &str, times: &[f64]| {
        let longest = times.iter().copied().fold(0.0, f64::max);
        vec![what.to_owned(), format!("{:.1}", median(times.to_vec())), format!("{longest:.1}")]
    };
    vec![Table {
        title: format!("A tick, {rows} rows, with our index: 24 ticks, five minutes apart"),
        columns: vec!["", "median, ms", "longest, ms"],
        rows: vec![
            row("one target", &one),
            row("ten targets of the same size", &ten),
            row("one target, behind three years that were never pruned", &pruning),
            row("one target, with what three years leave", &old),
            row("ten targets, behind three years, and as long a history of pg_cron", &all),
        ],
    }]
}

/// Ticks in a session of their own each, as pg_cron's are, and what each took.
fn ticks(client: &mut Client, many: usize) -> Vec<f64> {
    let time = |_| {
        client
            .batch_execute(
                "UPDATE backlog_cleanup.sample SET sampled_at = sampled_at - interval '301 seconds' WHERE grain = 'fine'",
            )
            .expect("five minutes pass");
        client.batch_execute("DISCARD ALL").expect("a session that remembers nothing");
        client.query_one(TICK, &[]).expect("a tick").get(0)
    };
    (0..many).map(time).collect()
}
