//! `setup` by a superuser and by others, and the job's schedule.

mod cli;

use cli::{FAILURES, run};
use cluster::{Cluster, number, until_true, value};
use serde_json::Value;

const PLATFORM: &str = include_str!("../../../demo/platform.sql");

/// The outcome of each step.
fn outcomes(done: &Value) -> Vec<(&str, &str)> {
    let steps = done["steps"].as_array().expect("steps");
    steps.iter().map(|step| (step["step"].as_str().unwrap(), step["outcome"].as_str().unwrap())).collect()
}

#[test]
fn one_command_sets_everything_up_and_a_second_changes_nothing() {
    let cluster = Cluster::start_with_pg_cron();
    let mut client = cluster.connect();
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    client.batch_execute(PLATFORM).unwrap();
    let setup = |more: &[&str]| run(&cluster, "postgres", &[&["setup", "--json"], more].concat());
    // Whoever is not asked gets no job.
    let unarmed = setup(&[]);
    let created = [("extension", "created"), ("job", "not armed"), ("tick", "left out"), ("index", "created")];
    assert_eq!((unarmed.code, outcomes(&unarmed.json())), (1, created.to_vec()), "{unarmed:?}");
    assert!(
        unarmed.stderr.contains("Register job backlog-cleanup-daily in pg_cron's database postgres?"),
        "{unarmed:?}"
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM cron.job"), 0);
    let first = setup(&["--arm"]);
    let created = [("extension", "kept"), ("job", "created"), ("tick", "left out"), ("index", "kept")];
    assert_eq!((first.code, outcomes(&first.json())), (0, created.to_vec()), "{first:?}");
    let index = first.json()["doctor"].as_array().unwrap().iter().find(|finding| finding["check"] == "index").cloned();
    assert_eq!(index.unwrap()["status"], "ok");
    let second = setup(&[]);
    let kept = [("extension", "kept"), ("job", "kept"), ("tick", "left out"), ("index", "kept")];
    assert_eq!(outcomes(&second.json()), kept, "{second:?}");
    // The tick removes nothing, and has a yes of its own.
    assert_eq!(outcomes(&setup(&["--tick"]).json())[2], ("tick", "created"));
    client.batch_execute("SELECT cron.unschedule('backlog-cleanup-tick'); SELECT backlog_cleanup_tick()").unwrap();
    // A tick by hand is no job, also where a job follows the quietest hour, and if one of its steps has failed.
    client.batch_execute("SELECT backlog_cleanup_schedule('auto')").unwrap();
    assert_eq!(outcomes(&setup(&["--tick"]).json())[2], ("tick", "created"));
    client
        .batch_execute("SELECT cron.unschedule('backlog-cleanup-tick'), backlog_cleanup_schedule('0 2 * * *')")
        .unwrap();
    client
        .batch_execute(
            "CREATE TABLE lost (LIKE generations INCLUDING ALL);
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table)
             VALUES ('lost', 'public.lost', NULL, NULL, NULL);
             DROP TABLE lost",
        )
        .unwrap();
    client
        .batch_execute("SELECT backlog_cleanup_tick(); DELETE FROM backlog_cleanup.target WHERE name = 'lost'")
        .unwrap();
    assert_eq!(outcomes(&setup(&["--tick"]).json())[2], ("tick", "created"));
    assert_eq!(outcomes(&setup(&["--tick"]).json())[2], ("tick", "kept"));
    client
        .batch_execute(
            "SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'backlog-cleanup-tick'; SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    let paused = setup(&["--tick"]).json();
    assert_eq!(outcomes(&paused)[2], ("tick", "to do"));
    client.batch_execute(paused["steps"][2]["statements"][0].as_str().unwrap()).unwrap();
    // Also one of another name that has not ticked for long.
    client
        .batch_execute(
            "SELECT backlog_cleanup_schedule_tick(job_name => 'mine'), backlog_cleanup_unschedule('backlog-cleanup-tick'); DELETE FROM backlog_cleanup.tick",
        )
        .unwrap();
    assert_eq!(outcomes(&setup(&["--tick"]).json())[2], ("tick", "kept"));
    client.batch_execute("SELECT backlog_cleanup_schedule_tick(), backlog_cleanup_unschedule('mine')").unwrap();
    // An existing job is changed only with --yes.
    let job = "SELECT schedule || ', ' || command FROM cron.job WHERE jobname = 'backlog-cleanup-daily'";
    let mut job = || -> String { value(&mut client, job) };
    let asked = setup(&["--schedule", "30 4 * * *"]);
    assert!(asked.stderr.contains("0 2 * * *") && asked.stderr.contains("--yes"), "{asked:?}");
    assert_eq!(job(), "0 2 * * *, SELECT public.backlog_cleanup_failed_generations()");
    assert_eq!(outcomes(&setup(&["--schedule", "30 4 * * *", "--batched", "--yes"]).json())[1], ("job", "changed"));
    assert_eq!(job(), "30 4 * * *, CALL public.backlog_cleanup_run()");
    // So is a job that runs something else.
    let schedule = |arguments: &[&str]| run(&cluster, "postgres", &[&["schedule"], arguments].concat());
    assert_eq!(schedule(&["remove"]).code, 0);
    client.batch_execute("SELECT cron.schedule('backlog-cleanup-daily', '0 1 * * *', 'SELECT 1')").unwrap();
    assert_eq!(outcomes(&setup(&[]).json())[1], ("job", "kept"));
    assert_eq!(outcomes(&setup(&["--yes"]).json())[1], ("job", "changed"));
    // The command `schedule`; another target has a job of its own.
    assert!(schedule(&["set", "15 3 * * *"]).stdout.contains("backlog-cleanup-daily"));
    client.batch_execute("INSERT INTO backlog_cleanup.target (name) VALUES ('second')").unwrap();
    assert!(schedule(&["set", "--target", "second"]).stdout.contains("backlog-cleanup-second"));
    let shown = schedule(&["show"]).stdout;
    assert!(shown.contains("15 3 * * *") && shown.contains("backlog-cleanup-daily"), "{shown}");
    assert!(!shown.contains("decide"), "{shown}");
    assert_eq!(schedule(&["set", "15 4 * * *", "--job-name", "again"]).code, 0);
    let both = schedule(&["show"]).stdout;
    assert!(both.contains("2 active jobs run target") && both.contains("\"again\""), "{both}");
    assert_eq!(schedule(&["remove", "--job-name", "again"]).code, 0);
    assert_eq!(schedule(&["set", "every night"]).code, 1);
    assert!(schedule(&["remove", "--target", "second"]).stdout.contains("was removed"));
    let none = schedule(&["remove", "--target", "second"]).stdout;
    assert_eq!(
        none,
        "Job backlog-cleanup-second does not exist; there is: backlog-cleanup-daily, backlog-cleanup-tick\n"
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM cron.job WHERE jobname !~ 'tick'"), 1);
    // pg_cron stores 63 bytes of a name.
    let long = "a_target_with_a_name_that_says_what_its_rows_are_for";
    client.execute("INSERT INTO backlog_cleanup.target (name) VALUES ($1)", &[&long]).unwrap();
    for arguments in [["set", "--target", long], ["remove", "--target", long]] {
        let done = schedule(&arguments);
        assert!(done.code == 0 && done.stdout.contains("backlog-cleanup-a_target_with"), "{done:?}");
    }
}

#[test]
fn a_second_database_gets_a_job_of_its_own_after_a_test_job_that_removes_nothing() {
    let cluster = Cluster::start_with_pg_cron();
    let mut home = cluster.connect();
    home.batch_execute("CREATE EXTENSION pg_cron; CREATE TABLE log (line text)").unwrap();
    let mut shop = cluster.platform_in("shop");
    shop.batch_execute(FAILURES).unwrap();
    let setup = |more: &[&str]| run(&cluster, "shop", &[&["setup", "--json"], more].concat());
    let done = setup(&["--test-job", "--arm"]);
    let steps =
        [("extension", "kept"), ("test job", "ran"), ("job", "created"), ("tick", "left out"), ("index", "created")];
    assert_eq!((done.code, outcomes(&done.json())), (0, steps.to_vec()), "{done:?}");
    let jobs = "SELECT string_agg(jobname || ' in ' || database, ', ') FROM cron.job";
    assert_eq!(value::<String>(&mut home, jobs), "backlog-cleanup-daily@shop in shop");
    assert_eq!(number(&mut shop, "SELECT count(*) FROM generations"), 30);
    let detail = setup(&[]).json()["steps"][1]["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("backlog-cleanup-daily@shop at 0 2 * * *") && detail.ends_with("in database postgres"));
    // Jobs there are told by what they call.
    for (command, outcome) in [
        ("SELECT public.backlog_cleanup_tick()", "created"),
        ("SELECT public.backlog_cleanup_failed_generations(dry_run => true)", "created"),
        ("CALL public.backlog_cleanup_run(batch_size => 2000)", "kept"),
        ("SELECT * FROM public.backlog_cleanup_failed_generations(''generations'', force => false)", "kept"),
    ] {
        home.batch_execute(&format!(
            "DELETE FROM cron.job; SELECT cron.schedule_in_database('there', '0 2 * * *', '{command}', 'shop')"
        ))
        .unwrap();
        let done = setup(&["--arm"]).json();
        assert!(outcomes(&done).contains(&("job", outcome)), "{command}: {done}");
    }
}

#[test]
fn what_a_role_may_not_do_is_said_as_statements_for_one_that_may() {
    let cluster = Cluster::start_with_pg_cron();
    let mut superuser = cluster.connect();
    superuser
        .batch_execute("CREATE ROLE \"Operator on duty\" LOGIN; CREATE ROLE owner; CREATE EXTENSION pg_cron")
        .unwrap();
    superuser.batch_execute(PLATFORM).unwrap();
    superuser.batch_execute("ALTER TABLE generations OWNER TO owner").unwrap();
    let setup = |more: &[&str]| {
        let arguments = [&["setup", "--username", "Operator on duty", "--json"], more].concat();
        run(&cluster, "postgres", &arguments)
    };
    let mut to_do = Vec::new();
    // A superuser runs the statements that it prints, until there are none.
    for _ in 0..3 {
        let done = setup(&[]);
        let steps = done.json()["steps"].as_array().unwrap().clone();
        let statements: Vec<String> = steps
            .iter()
            .flat_map(|step| step["statements"].as_array().unwrap())
            .map(|statement| statement.as_str().unwrap().to_owned())
            .collect();
        if statements.is_empty() {
            break;
        }
        assert_eq!(done.code, 1, "{done:?}");
        for statement in &statements {
            superuser.batch_execute(statement).unwrap_or_else(|failure| panic!("{statement}: {failure:?}"));
        }
        to_do.extend(statements);
    }
    assert_eq!(to_do.len(), 3, "{to_do:?}");
    assert_eq!(
        to_do[..2],
        [
            "CREATE EXTENSION backlog_cleanup SCHEMA public",
            "SELECT public.backlog_cleanup_grant('Operator on duty', 'admin')"
        ]
    );
    assert!(to_do[2].starts_with("CREATE INDEX CONCURRENTLY ON public.generations"), "{to_do:?}");
    let people = run(&cluster, "postgres", &["setup", "--username", "Operator on duty"]);
    assert!(people.code == 0 && !people.stdout.contains("To be run by"), "{people:?}");
}

#[test]
fn a_cancelled_build_leaves_no_index_behind() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("index");
    client.batch_execute(FAILURES).unwrap();
    // The build waits for earlier writers.
    let mut other = cluster.connect_to("index");
    let mut writer = other.transaction().unwrap();
    writer.batch_execute("UPDATE generations SET retry_count = 9").unwrap();
    let child = cli::spawn(cli::command(&cluster, "index", &["setup"]));
    until_true(&mut client, "SELECT EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)");
    until_true(&mut client, "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%')");
    cli::signal(&child, "INT");
    // Dropping the invalid index concurrently waits as well.
    until_true(
        &mut client,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'DROP INDEX CONCURRENTLY %'
                                            AND pid <> pg_backend_pid())",
    );
    writer.commit().unwrap();
    let ran = cli::wait(child);
    assert!(ran.code == 1 && ran.stderr.contains("canceling statement due to user request"), "{ran:?}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM pg_index WHERE NOT indisvalid"), 0);
}
