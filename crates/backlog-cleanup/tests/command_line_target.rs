//! Targets on the command line: whatever the table has is shown and written, and what the extension says about it is passed on.

mod cli;

use cli::Ran;
use cluster::{Cluster, value};
use postgres::Client;
use serde_json::{Value, json};

const JOBS: &str = "
    CREATE TABLE job (id bigserial PRIMARY KEY, queue text, state text, finished_at timestamptz, error text);
    INSERT INTO job (queue, state, finished_at, error)
    SELECT 'mail', 'cancelled', now() - i * interval '1 hour', 'timeout' FROM generate_series(1, 50) i;";

/// A target of that table, as arguments.
const ARGUMENTS: [&str; 12] = [
    "generations_table=public.job",
    "recipes_table=NULL",
    "users_table=null",
    "ledger_table=NULL",
    "account_column=NULL",
    "account=NULL",
    "recipe_column=queue",
    "status_column=state",
    "statuses={failed,cancelled}",
    "failed_at_column=(coalesce(finished_at, finished_at))",
    "failure_type_column=error",
    "max_rows_per_run=100000",
];

fn start(database: &str) -> (std::sync::Arc<Cluster>, Client) {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in(database);
    client.batch_execute(JOBS).unwrap();
    (cluster, client)
}

/// The row of a target.
fn row(client: &mut Client, target: &str) -> Value {
    let row = format!("SELECT to_jsonb(t)::text FROM backlog_cleanup.target t WHERE name = '{target}'");
    serde_json::from_str(&value::<String>(client, &row)).unwrap()
}

#[test]
fn a_target_is_added_shown_changed_and_dropped() {
    let (cluster, mut client) = start("targets");
    let run = |arguments: &[&str]| cli::run(&cluster, "targets", &[&["target"], arguments].concat());
    let added = run(&[&["add", "it's \"jobs\""][..], &ARGUMENTS].concat());
    assert_eq!((added.code, added.stderr.as_str()), (0, ""), "{added:?}");
    // What was written is shown as the database has kept it.
    assert!(added.stdout.contains("(COALESCE(finished_at, finished_at))"), "{added:?}");
    assert!(!added.stdout.contains("lock_timeout"), "{added:?}");
    let written = row(&mut client, "it''s \"jobs\"");
    assert_eq!((&written["account"], &written["recipes_table"]), (&Value::Null, &Value::Null));
    assert_eq!((&written["statuses"], &written["batch_size"]), (&json!(["failed", "cancelled"]), &json!(10_000)));
    assert_eq!(
        cli::run(&cluster, "targets", &["cleanup", "--target", "it's \"jobs\"", "--json"]).json()["cleanedUpGenerations"],
        17
    );

    let set = [
        "set",
        "it's \"jobs\"",
        "name=jobs",
        "pause=100 ms",
        "statuses={\"a b\",cancelled}",
        "condition=(id > 5)",
        "yield_to_autovacuum=on",
    ];
    let set = run(&set);
    assert!(set.code == 0 && set.stdout.contains("{\"a b\",cancelled}"), "{set:?}");
    let written = row(&mut client, "jobs");
    for (column, expected) in [
        ("pause", json!("00:00:00.1")),
        ("statuses", json!(["a b", "cancelled"])),
        ("condition", json!("((id OPERATOR(pg_catalog.>) 5))")),
        ("yield_to_autovacuum", json!(true)),
    ] {
        assert_eq!(written[column], expected, "{column}");
    }
    assert_eq!(run(&["set", "jobs", "condition=NULL"]).code, 0);
    assert_eq!(row(&mut client, "jobs")["condition"], Value::Null);

    // Every column is shown with its COMMENT, whatever the table has.
    let shown = run(&["show", "jobs", "--json"]).json();
    let columns: String = value(
        &mut client,
        "SELECT jsonb_agg(jsonb_build_array(attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum)) ORDER BY attnum)::text
         FROM pg_attribute WHERE attrelid = 'backlog_cleanup.target'::regclass AND attnum > 0 AND NOT attisdropped",
    );
    let said: Vec<Value> =
        shown.as_array().unwrap().iter().map(|it| json!([it["column"], it["type"], it["meaning"]])).collect();
    assert_eq!(json!(said), serde_json::from_str::<Value>(&columns).unwrap());
    let written = row(&mut client, "jobs");
    for column in shown.as_array().unwrap() {
        assert_eq!(column["value"], written[column["column"].as_str().unwrap()], "{column}");
    }
    let people = run(&["show", "jobs"]).stdout;
    let batch_size = people.lines().find(|line| line.starts_with("batch_size ")).expect("a line");
    assert!(batch_size.contains(" 10000 ") && batch_size.contains("rows per batch of a batched run"), "{people}");
    assert_eq!(run(&["list", "--json"]).json().as_array().unwrap().len(), 2);
    let list = run(&["list"]).stdout;
    assert!(list.lines().any(|line| line.starts_with("jobs") && line.contains("a b, cancelled")), "{list}");

    // Nobody is there to ask.
    let asked = run(&["drop", "jobs"]);
    assert!(asked.code == 2 && asked.stderr.contains("would drop target jobs and 1 policy"), "{asked:?}");
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    assert_eq!(run(&["list", "--json"]).json().as_array().unwrap().len(), 2);
    assert_eq!(run(&["drop", "jobs", "--yes", "--json"]).json(), json!({"target": "jobs", "dropped": true}));
    assert_eq!(run(&["drop", "jobs"]).stdout.trim(), "Target jobs does not exist");
    let unknown = run(&["set", "generations", "nocolumn=4", "--json"]).failure();
    assert_eq!(
        (unknown["sqlstate"].as_str(), unknown["message"].as_str()),
        (Some("42703"), Some("a target has no column \"nocolumn\""))
    );
    client.batch_execute(unknown["hint"].as_str().unwrap()).unwrap();
    let twice = run(&["add", "generations", "batch_size=10", "--json"]).failure();
    assert_eq!(
        (twice["sqlstate"].as_str(), twice["hint"].as_str()),
        (Some("23505"), Some("SELECT name FROM backlog_cleanup.target"))
    );
    for missing in [&["show", "jobs"][..], &["set", "jobs", "pause=0"]] {
        let missing = run(&[missing, &["--json"]].concat());
        assert_eq!((missing.code, missing.failure()["sqlstate"].as_str()), (1, Some("42704")), "{missing:?}");
        assert_eq!(missing.failure()["message"], "target \"jobs\" does not exist");
    }
}

/// Rows of two more statuses, one of which cannot be removed.
const FAILED_JOBS: &str = "
    INSERT INTO job (queue, state, finished_at, error)
    SELECT 'mail', 'failed', now() - i * interval '1 hour', 'crash' FROM generate_series(1, 30) i
    UNION ALL SELECT 'mail', 'failed', now() - interval '60 hours', 'stuck'
    UNION ALL SELECT 'mail', 'available', NULL, NULL FROM generate_series(1, 3);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
    CREATE TRIGGER refuse BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.error = 'stuck') EXECUTE FUNCTION refuse();";

#[test]
fn a_target_is_spoken_of_in_its_words_and_its_rows_by_their_status() {
    let (cluster, mut client) = start("words");
    client.batch_execute(FAILED_JOBS).unwrap();
    let run = |arguments: &str| {
        cli::run(&cluster, "words", &[&arguments.split(' ').collect::<Vec<_>>()[..], &["--target", "jobs"]].concat())
    };
    let add = ["target", "add", "jobs", "group_word=work queue", "row_word=job"];
    let added = cli::run(&cluster, "words", &[&add[..], &ARGUMENTS].concat());
    assert_eq!(added.code, 0, "{added:?}");
    let shows = |ran: &Ran, lines: &[&str]| {
        assert_eq!(ran.code, 0, "{ran:?}");
        let there: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(there.iter().any(|there| there.starts_with(&words)), "{line}: {}", ran.stdout);
        }
    };
    let status = run("status");
    shows(
        &status,
        &[
            "JOBS COMPLETED PENDING PROCESSING IN SCOPE",
            "STATUS JOBS",
            "cancelled 50",
            "failed 31",
            "available 3",
            "ID WORK QUEUE IN SCOPE",
        ],
    );
    let platform = cli::run(&cluster, "words", &["status"]);
    shows(&platform, &["GENERATIONS COMPLETED"]);
    assert!(!platform.stdout.contains("STATUS"), "it would say the same twice: {platform:?}");
    shows(
        &run("cleanup --dry-run"),
        &["failed 31 3 28 0", "A run would remove 25 of 81 jobs in scope of 1 work queue"],
    );

    // One status alone; the report counts all of them.
    let cleanup = run("cleanup --status failed");
    let failed = "failed 31 2 29 1";
    shows(&cleanup, &["STATUS IN SCOPE REMOVED KEPT KEPT BACK", failed, "cancelled 50 0 50 0"]);
    shows(&cleanup, &["Run 1 removed 2 of 81 jobs in scope of 1 work queue,"]);
    shows(&run("policy list"), &["default enabled 24:00:00 10"]);
    assert_eq!(run("policy list --json").json()[0]["runId"], Value::Null, "it was limited to a status");
    for no_target in [&["policy", "list"][..], &["policy", "drop", "--status", "failed"]] {
        let refused = cli::run(&cluster, "words", &[no_target, &["--target", "nosuch"]].concat());
        assert!(refused.code == 1 && refused.stderr.contains("\"nosuch\" does not exist"), "{refused:?}");
    }
    let later = cli::run(&cluster, "words", &["runs", "1"]);
    shows(&later, &["selected status failed", "removed 2 of 81 jobs in scope", "ID WORK QUEUE", failed]);
    let later = cli::run(&cluster, "words", &["runs", "1", "--json"]).json();
    assert_eq!(
        later["statuses"],
        json!([
            {"status": "failed", "inScope": 31, "removed": 2, "kept": 29, "keptBack": 1},
            {"status": "cancelled", "inScope": 50, "removed": 0, "kept": 50, "keptBack": 0},
        ])
    );
    assert_eq!((&later["groupWord"], &later["status"]), (&json!("work queue"), &json!("failed")));

    // Policies, the explanation of a row, batches and an emergency.
    shows(&run("policy set --recipe-id mail --keep 20"), &["work queue \"mail\" enabled"]);
    shows(
        &run("policy simulate --recipe-id mail --keep 0"),
        &["POLICY ID WORK QUEUE", "Removable are 13 of 79 jobs in scope"],
    );
    shows(
        &run("policy simulate --recipe-id mail"),
        &["Nothing changes for any work queue", "Removable are 13 of 79 jobs in scope now, and 13 then"],
    );
    shows(&run("explain 1"), &["JOB 1", "policy work queue \"mail\""]);
    let both = run("run --status cancelled");
    shows(&both, &["work queue \"mail\" 79 12 67 0", "cancelled 50 12 38 0"]);
    shows(&run("policy drop --recipe-id mail"), &["Policy work queue \"mail\" was dropped"]);
    let refused = run("emergency --status cancelled");
    assert!(refused.code == 2 && refused.stderr.contains("all 38 jobs in scope"), "{refused:?}");
    let refused = run("cleanup --status available --json");
    assert_eq!((refused.code, &refused.failure()["sqlstate"]), (1, &json!("22023")), "{refused:?}");
}

#[test]
fn what_the_extension_says_of_a_target_is_shown_as_it_is() {
    let (cluster, mut client) = start("target_checks");
    let run = |arguments: &[&str]| cli::run(&cluster, "target_checks", &[&["target"], arguments].concat());
    // All problems at once, with the hint.
    let wrong = ["recipe_column=quue", "status_column=sate", "time_zone=Berlin"];
    let refused = run(&[&["add", "jobs", "--json"][..], &ARGUMENTS[..6], &wrong].concat());
    let error = client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                 account, recipe_column, status_column, time_zone)
             VALUES ('jobs', 'public.job', NULL, NULL, NULL, NULL, NULL, 'quue', 'sate', 'Berlin')",
        )
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    let failure = refused.failure();
    assert_eq!(failure["message"], error.message());
    assert_eq!(failure["sqlstate"], error.code().code());
    assert_eq!((failure["detail"].as_str(), failure["hint"].as_str()), (error.detail(), error.hint()));
    assert!(error.detail().is_some_and(|detail| detail.contains("Berlin")), "{error:?}");
    let Ran { code, stderr, .. } = run(&[&["add", "jobs"][..], &ARGUMENTS[..6], &wrong].concat());
    assert!(code == 1 && stderr.contains("DETAIL:  ") && stderr.contains("HINT:  "), "{stderr}");

    for (arguments, sqlstate) in [
        (&["stauses={failed}"][..], "42703"),
        (&["name\", batch_size=7"], "42703"),
        (&["batch_size=many"], "22P02"),
        (&["batch_size=0"], "23514"),
        (&["statuses=failed"], "22P02"),
        (&["condition=(id IN (SELECT 1))"], "0A000"),
    ] {
        let refused = run(&[&["set", "generations", "--json"], arguments].concat());
        assert_eq!(refused.code, 1, "{arguments:?}: {refused:?}");
        assert_eq!(refused.failure()["sqlstate"], sqlstate, "{arguments:?}: {refused:?}");
    }
    // What is no column with a value is not sent.
    for arguments in
        [&["set", "generations"][..], &["set", "generations", "pause"], &["set", "generations", "pause=0", "pause=1"]]
    {
        assert_eq!(run(arguments).code, 2, "{arguments:?}");
    }
    // Every row of the table is at stake: the WARNING says so.
    let warned = run(&[&["add", "jobs"][..], &ARGUMENTS[..11]].concat());
    assert!(warned.code == 0 && warned.stderr.contains("WARN"), "{warned:?}");
}
