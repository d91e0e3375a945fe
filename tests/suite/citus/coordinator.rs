//! Jobs and runs are on the coordinator alone; the doctor and the governor look at the nodes.

use std::time::Duration;

use cluster::{
    Cluster, Nodes, PG_CRON, column, create_index, findings_of, number, platform_of, refused, truth, until_holds,
    until_true, value,
};

use super::{BY_ID, LOCAL, fill, make};

/// On a worker node each changes something.
const CALLS: [&str; 7] = [
    "SELECT backlog_cleanup_failed_generations('kind')",
    "SELECT backlog_cleanup_emergency('kind')",
    "CALL backlog_cleanup_run('kind')",
    "CALL backlog_cleanup_run('kind', 'emergency')",
    "SELECT backlog_cleanup_tick()",
    "SELECT backlog_cleanup_schedule()",
    "SELECT backlog_cleanup_schedule_tick()",
];

/// As the catalogs of Citus say, without one.
#[test]
fn on_a_worker_node_runs_ticks_and_jobs_are_refused_and_reads_go_on() {
    let cluster = Cluster::start(&format!("{PG_CRON}allow_system_table_mods = on\n"));
    let mut client = cluster.connect();
    client
        .batch_execute(
            "CREATE EXTENSION pg_cron;
             CREATE TABLE pg_catalog.pg_dist_local_group (groupid int); INSERT INTO pg_catalog.pg_dist_local_group VALUES (1);
             CREATE TABLE pg_catalog.pg_dist_node (nodename text, nodeport int, groupid int, noderole text);
             INSERT INTO pg_catalog.pg_dist_node VALUES ('first', 5433, 1, 'primary'), ('head', 5432, 0, 'primary')",
        )
        .unwrap();
    let mut client = platform_of(client);
    assert_eq!(number(&mut client, "SELECT count(*) FROM cron.job"), 0);
    for call in CALLS {
        let (sqlstate, message, hint) = refused(client.batch_execute(&call.replace("'kind'", "'generations'")));
        assert_eq!((sqlstate.as_str(), hint.as_str()), ("55000", "connect to the coordinator, head:5432"), "{call}");
        assert!(message.starts_with("cannot ") && message.ends_with(" on a worker node of Citus"), "{call}: {message}");
    }
    // A job from before Citus can be removed.
    let read = "SELECT backlog_cleanup_status_json(), backlog_cleanup_failed_generations(dry_run => true), backlog_cleanup_unschedule();
                SELECT * FROM backlog_cleanup_doctor()";
    client.batch_execute(read).unwrap();
    client
        .batch_execute("UPDATE pg_catalog.pg_dist_local_group SET groupid = 0; SELECT backlog_cleanup_schedule()")
        .unwrap();
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
}

#[test]
fn an_extension_that_citus_has_created_on_a_worker_node_registers_no_job_there_and_refuses_runs() {
    let Some(nodes) = Nodes::start("shared_preload_libraries = 'citus, pg_cron'\ncron.database_name = 'postgres'\n")
    else {
        return;
    };
    let mut client = nodes.coordinator.connect();
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    let mut client = platform_of(client);
    make(&mut client, BY_ID);
    fill(&mut client, 300, 3);
    let jobs = "SELECT coalesce(string_agg(jobname, ', ' ORDER BY jobname), '') FROM cron.job";
    assert_eq!(value::<String>(&mut client, jobs), "backlog-cleanup-daily");
    let at = format!("connect to the coordinator, 127.0.0.1:{}", nodes.coordinator.port());
    for worker in &nodes.workers {
        let mut worker = worker.connect();
        assert!(truth(&mut worker, "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'backlog_cleanup')"));
        if truth(&mut worker, "SELECT to_regclass('cron.job') IS NOT NULL") {
            assert_eq!(value::<String>(&mut worker, jobs), "");
        }
        let write = "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account, account_column)
                     VALUES ('kind', 'public.kind', NULL, NULL, NULL, NULL, NULL)";
        worker.batch_execute(write).unwrap();
        for call in CALLS {
            let (sqlstate, message, hint) = refused(worker.batch_execute(call));
            assert_eq!(sqlstate, "55000", "{call}: {message}");
            assert!(message.ends_with("on a worker node of Citus"), "{call}: {message}");
            assert_eq!(hint, at, "{call}");
        }
        // Reads go on.
        assert_eq!(
            column::<String>(&mut worker, "SELECT recipe_id FROM backlog_cleanup_status('kind') ORDER BY 1"),
            ["0", "1", "2"]
        );
        worker.batch_execute("SELECT backlog_cleanup_failed_generations('kind', dry_run => true)").unwrap();
    }
    client.batch_execute("SELECT backlog_cleanup_failed_generations('kind')").unwrap();
}

#[test]
fn the_doctor_says_that_a_node_does_not_answer_and_that_an_owner_cannot_reach_it() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    client.batch_execute("CREATE ROLE app").unwrap();
    make(&mut client, BY_ID);
    client.batch_execute("ALTER TABLE kind OWNER TO app").unwrap();
    let [(status, detail, fix)] = &findings_of(&mut client, "kind", "nodes")[..] else { panic!("one finding") };
    assert_eq!((status.as_str(), fix), ("fail", &None), "{detail}");
    assert!(detail.contains("role \"app\" owns a distributed table and may not log in"), "{detail}");
    let (_, typed) = detail.split_once("type ").unwrap();
    client.batch_execute(typed).unwrap();
    assert_eq!(findings_of(&mut client, "kind", "nodes")[0].0, "ok");

    let [worker, _] = &nodes.workers;
    worker.stop();
    let [(status, detail, _)] = &findings_of(&mut client, "kind", "nodes")[..] else { panic!("one finding") };
    assert_eq!(status, "fail");
    assert!(detail.starts_with(&format!("node 127.0.0.1:{} does not answer", worker.port())), "{detail}");
    println!("{detail}");
    worker.start_again();
    until_holds(|| findings_of(&mut client, "kind", "nodes")[0].0 == "ok");
}

#[test]
fn the_doctor_looks_at_the_shards_and_no_fix_builds_a_second_index() {
    let Some(nodes) = Nodes::start("autovacuum = off\n") else { return };
    let mut client = nodes.platform();
    for distribution in [BY_ID, LOCAL] {
        make(&mut client, distribution);
        let [(_, detail, fix)] = &findings_of(&mut client, "kind", "index")[..] else { panic!("one finding") };
        assert!(detail.starts_with("partial index is missing"), "{detail}");
        client.batch_execute(fix.as_ref().unwrap()).unwrap();
        assert_eq!(findings_of(&mut client, "kind", "index")[0].0, "ok", "{}", distribution.0);

        fill(&mut client, 30_000, 10);
        client.batch_execute("DELETE FROM kind WHERE id > 1000").unwrap();
        until_holds(|| findings_of(&mut client, "kind", "dead_rows")[0].0 == "warn");
        let (_, detail, fix) = findings_of(&mut client, "kind", "dead_rows").remove(0);
        println!("{}: {detail}", distribution.0);
        client.batch_execute(&fix.unwrap()).unwrap();
        until_holds(|| findings_of(&mut client, "kind", "dead_rows")[0].0 == "ok");
    }
    let autovacuum = findings_of(&mut client, "kind", "autovacuum");
    assert!(autovacuum.iter().any(|(_, detail, _)| detail.starts_with("on node 127.0.0.1:")), "{autovacuum:?}");
}

#[test]
fn a_run_waits_for_an_old_transaction_of_a_node() {
    let Some(nodes) = Nodes::start("") else { return };
    let mut client = nodes.platform();
    make(&mut client, BY_ID);
    create_index(&mut client, "kind");
    fill(&mut client, 2000, 10);
    client.batch_execute("UPDATE backlog_cleanup.target SET max_transaction_age = '1 s' WHERE name = 'kind'").unwrap();
    let mut old = nodes.workers[0].connect();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let run = nodes.coordinator.in_background("CALL backlog_cleanup_run('kind', batch_size => 100)");
    let waits = format!(
        "SELECT EXISTS (SELECT FROM backlog_cleanup.progress WHERE waiting_for LIKE 'on node 127.0.0.1:{}, process %')",
        nodes.workers[0].port()
    );
    until_true(&mut client, &waits);
    old.batch_execute("COMMIT").unwrap();
    run.join().unwrap().1.unwrap();
}
