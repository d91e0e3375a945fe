//! Output, exit codes and confirmation of the command line.

mod cli;

use std::io::Read;
use std::process::Command;

use cli::{FAILURES, Ran, run};
use cluster::{Cluster, number, refused, value};
use serde_json::Value;

const FAILED: &str = "SELECT count(*) FROM generations WHERE status = 'failed'";

#[test]
fn what_is_shown_is_what_the_sql_interface_returns() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("shown");
    client.batch_execute(FAILURES).unwrap();
    let run = |arguments: &[&str]| run(&cluster, "shown", arguments);
    let as_sql = |client: &mut postgres::Client, query: &str| -> Value {
        let text: String = value(client, &format!("SELECT ({query})::text"));
        serde_json::from_str(&text).unwrap()
    };
    let status = run(&["status", "--json"]);
    assert_eq!((status.code, status.json()), (0, as_sql(&mut client, "backlog_cleanup_status_json()")));
    let people = run(&["status"]).stdout;
    for shown in ["Cat Olympic Diving", "No recipe", "2 days ago", "last run   none", "schedule   none"] {
        assert!(people.contains(shown), "{shown}: {people}");
    }
    let report = run(&["cleanup", "--recipe-id", "1", "--json"]).json();
    assert_eq!((&report["runId"], &report["cleanedUpGenerations"]), (&1.into(), &5.into()));
    let report = run(&["run", "--failure-type", "timeout", "--json"]).json();
    assert_eq!((&report["runId"], &report["cleanedUpGenerations"]), (&2.into(), &2.into()));
    assert_eq!(number(&mut client, FAILED), 23);
    let runs = run(&["runs", "--json"]).json();
    assert_eq!(runs.as_array().unwrap().iter().map(|run| run["removed"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 5]);
    let one = run(&["runs", "1", "--json"]).json();
    assert_eq!(one["cleanupDetails"], as_sql(&mut client, "backlog_cleanup_run_details(1)"));
    assert_eq!(one["cleanupDetails"][0]["recipeName"], "Cat Olympic Diving");
    let doctor = run(&["doctor", "--json"]).json();
    let checks = doctor.as_array().unwrap().len();
    assert_eq!(checks as i64, number(&mut client, "SELECT count(*) FROM backlog_cleanup_doctor()"));
    assert!(run(&["doctor"]).stdout.contains("CREATE INDEX CONCURRENTLY ON public.generations"));
}

#[test]
fn the_exit_code_says_how_it_ended() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("codes");
    client.batch_execute(FAILURES).unwrap();
    let run = |arguments: &[&str]| run(&cluster, "codes", arguments);
    let ended = |ran: Ran| (ran.code, ran.failure()["sqlstate"].clone());
    assert_eq!(run(&["status"]).code, 0);
    assert_eq!(ended(run(&["status", "--target", "none", "--json"])), (1, "42704".into()));
    assert_eq!(ended(run(&["status", "--dbname", "none", "--json"])), (1, "3D000".into()));
    assert!(run(&["status", "--dbname", "none"]).stderr.contains("HINT:  --dbname and --username"));
    assert_eq!(ended(run(&["cleanup", "--jason", "--json"])), (2, Value::Null));
    assert_eq!(run(&["cleanup", "--jason"]).code, 2);
    for removal in ["cleanup", "run"] {
        // The breaker, another run, a server that is read-only.
        client.batch_execute("UPDATE backlog_cleanup.target SET max_rows_per_run = 1").unwrap();
        assert_eq!(ended(run(&[removal, "--json"])), (3, "54000".into()));
        client.batch_execute("UPDATE backlog_cleanup.target SET max_rows_per_run = NULL").unwrap();
        let mut transaction = client.transaction().unwrap();
        transaction.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
        assert_eq!(ended(run(&[removal, "--json"])), (3, "55P03".into()));
        transaction.rollback().unwrap();
        let mut read_only = cli::command(&cluster, "codes", &[removal, "--json"]);
        read_only.env("PGOPTIONS", "-c default_transaction_read_only=on");
        assert_eq!(ended(read_only.output().unwrap().into()), (3, "25006".into()));
    }
    assert_eq!(run(&["status", "--check", "--max-failed", "30"]).code, 0);
    let unhealthy = run(&["status", "--check", "--max-failed", "29", "--json"]);
    assert_eq!((unhealthy.code, &unhealthy.json()["healthy"]), (4, &false.into()));
    assert_eq!((run(&["doctor"]).code, run(&["doctor", "--strict"]).code), (0, 4));
    client.batch_execute("ALTER TABLE generations RENAME TO gone").unwrap();
    assert_eq!(run(&["doctor"]).code, 4);
    assert_eq!(number(&mut client, "SELECT count(*) FROM gone WHERE status = 'failed'"), 30);
}

#[test]
fn where_no_target_is_named_it_is_one_that_exists() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("usual");
    client.batch_execute(FAILURES).unwrap();
    let run = |arguments: &[&str]| run(&cluster, "usual", arguments);
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'only'").unwrap();
    for command in [&["status"][..], &["doctor"], &["schedule", "show"], &["cleanup", "--dry-run"]] {
        assert_eq!(run(command).code, 0, "{command:?}");
    }
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target SELECT (t).*
             FROM (SELECT jsonb_populate_record(t, '{\"name\": \"another\"}') t FROM backlog_cleanup.target t) t",
        )
        .unwrap();
    for command in [&["status"][..], &["doctor"], &["schedule", "show"], &["cleanup"], &["emergency"], &["run"]] {
        let ran = run(command);
        assert!(
            ran.code == 2 && ran.stderr.contains(r#""another", "only""#) && ran.stderr.contains("--target another"),
            "{ran:?}"
        );
    }
    assert_eq!(run(&["status", "--target", "only"]).code, 0);
    assert_eq!(run(&["status", "--target", ""]).code, 1);
    assert_eq!(number(&mut client, FAILED), 30);
}

#[test]
fn where_the_platforms_tables_are_not_there_a_team_gets_its_own_target() {
    let cluster = Cluster::shared("");
    cluster.connect().batch_execute("CREATE DATABASE no_platform").unwrap();
    let mut client = cluster.connect_to("no_platform");
    client.batch_execute("SET client_min_messages = error; CREATE EXTENSION backlog_cleanup; CREATE TABLE job (id bigint PRIMARY KEY, at timestamptz)").unwrap();
    let run = |arguments: &[&str]| run(&cluster, "no_platform", arguments);
    // Where there is no other, it says how to add one.
    let none = run(&["status", "--json"]).failure();
    let hint = none["hint"].as_str().unwrap();
    assert!(hint.starts_with("INSERT INTO backlog_cleanup.target (name, generations_table,"), "{none}");
    let add = |name: &str| {
        format!(
            "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, max_rows_per_run)
             VALUES ('{name}', 'public.job', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'at', NULL, 100)"
        )
    };
    client.batch_execute(&add("jobs")).unwrap();
    let dry = run(&["cleanup", "--dry-run", "--json"]);
    assert_eq!((dry.code, dry.json()["target"].as_str()), (0, Some("jobs")), "{dry:?}");
    for command in [&["policy", "list"][..], &["status"], &["quiet-hours"], &["report"]] {
        assert_eq!(run(command).code, 0, "{command:?}");
    }
    let doctor = run(&["doctor"]).stdout;
    assert!(doctor.lines().any(|line| line.starts_with("target ") && line.contains(" ok ")), "{doctor}");
    // In SQL the default stays what it is, and says what else there is.
    let (sqlstate, _, hint) = refused(client.batch_execute("SELECT backlog_cleanup_failed_generations()"));
    assert_eq!((sqlstate.as_str(), hint.as_str()), ("42P01", "SELECT * FROM backlog_cleanup_doctor('jobs')"));
    client.batch_execute(&hint).unwrap();
    client.batch_execute(&add("more")).unwrap();
    let several = run(&["status"]);
    assert!(
        several.code == 2 && several.stderr.contains("the targets are \"jobs\", \"more\": name one"),
        "{several:?}"
    );
    assert!(several.stderr.contains("--target jobs"), "{several:?}");
}

#[test]
fn a_name_that_no_target_has_is_refused_by_every_command() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("nobody");
    for command in [
        &["runs"][..],
        &["alerts", "list"],
        &["policy", "list"],
        &["status"],
        &["doctor"],
        &["schedule", "show"],
        &["quiet-hours"],
        &["report"],
        &["explain", "1"],
    ] {
        let ran = run(&cluster, "nobody", &[command, &["--target", "nosuch", "--json"]].concat());
        let failure = ran.failure();
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(
            (failure["sqlstate"].as_str(), failure["message"].as_str()),
            (Some("42704"), Some("target \"nosuch\" does not exist"))
        );
        client.batch_execute(failure["hint"].as_str().unwrap()).unwrap();
    }
    // What a target has left behind is still shown.
    client.batch_execute("SELECT backlog_cleanup_failed_generations(); DELETE FROM backlog_cleanup.target").unwrap();
    assert_eq!(run(&cluster, "nobody", &["runs", "--target", "generations"]).code, 0);
}

#[test]
fn without_an_account_everything_goes_only_where_the_target_is_named() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("no_account");
    client.batch_execute(FAILURES).unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET account_column = NULL, account = NULL, users_table = NULL, ledger_table = NULL, max_rows_per_run = 100",
        )
        .unwrap();
    let wrong = run(&cluster, "no_account", &["emergency", "--confirm", "system_backlog", "--json"]);
    let failure = wrong.failure();
    assert_eq!(failure["message"], "\"system_backlog\" is not the target's name");
    assert_eq!((wrong.code, failure["hint"].as_str()), (2, Some("--confirm generations")));
    let template = cli::command(&cluster, "no_account", &[]);
    let binary = env!("CARGO_BIN_EXE_backlog-cleanup");
    let mut terminal = cli::Terminal::start(&template, &format!("{binary} emergency"), 100, 30);
    assert!(terminal.until(|screen| screen.contains("Type the target's name, generations,")), "{}", terminal.text());
    assert!(terminal.text().contains("of the target will be gone"), "{}", terminal.text());
    terminal.press("generations\n");
    assert_eq!(terminal.finish(), 0, "{}", terminal.text());
    assert_eq!(number(&mut client, FAILED), 0);
}

#[test]
fn a_dry_run_removes_nothing() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("dry");
    client.batch_execute(FAILURES).unwrap();
    for (arguments, field, rows) in [
        (&["cleanup"][..], "cleanedUpGenerations", 7),
        (&["run"], "cleanedUpGenerations", 7),
        (&["emergency"], "removedCount", 30),
        (&["run", "--mode", "emergency", "--recipe-id", "2"], "removedCount", 3),
    ] {
        let ran = run(&cluster, "dry", &[arguments, &["--dry-run", "--json"]].concat());
        assert_eq!((ran.code, ran.json()["dryRun"].clone()), (0, true.into()));
        assert_eq!(ran.json()[field], rows, "{arguments:?}");
    }
    let people = run(&cluster, "dry", &["emergency", "--dry-run"]);
    assert!(people.stdout.contains("A run would remove 30 of 30 generations in scope of 3 recipes"), "{people:?}");
    assert_eq!(number(&mut client, FAILED), 30);
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run"), 0);
}

#[test]
fn everything_goes_only_where_the_account_is_named() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("emergency");
    client.batch_execute(FAILURES).unwrap();
    for emergency in [&["emergency"][..], &["run", "--mode", "emergency"]] {
        let not = run(&cluster, "emergency", emergency);
        assert_eq!(not.code, 2);
        for shown in ["Cat Olympic Diving", "would remove all 30 generations in scope", "--confirm system_backlog"] {
            assert!(not.stderr.contains(shown), "{not:?}");
        }
        let wrong = run(&cluster, "emergency", &[emergency, &["--confirm", "yes", "--json"]].concat());
        assert_eq!((wrong.code, wrong.failure()["hint"].clone()), (2, "--confirm system_backlog".into()));
    }
    // In a terminal, which also shows what would be removed.
    for (typed, code, left) in [("system", 2, 30), ("system_backlog", 0, 27)] {
        let template = cli::command(&cluster, "emergency", &[]);
        let binary = env!("CARGO_BIN_EXE_backlog-cleanup");
        let mut terminal = cli::Terminal::start(&template, &format!("{binary} emergency --recipe-id 2"), 100, 30);
        assert!(terminal.until(|screen| screen.contains("Type the account's name")), "{}", terminal.text());
        assert!(terminal.text().contains("Dog Chess"), "{}", terminal.text());
        assert!(terminal.text().contains("All 3 generations in scope of recipe 2 will be gone"), "{}", terminal.text());
        terminal.press(&format!("{typed}\n"));
        assert_eq!(terminal.finish(), code, "{}", terminal.text());
        assert_eq!(number(&mut client, FAILED), left);
    }
    // What may end a run before it has come to all rows is in the question.
    for (arguments, asked) in [
        (&["--max-rows", "5"][..], "at most 5 of 15 generations in scope"),
        (&["--max-rows", "15"], "all 15 generations in scope"),
        (&["--max-duration", "1 minute"], "at most 15 generations in scope"),
    ] {
        let run =
            run(&cluster, "emergency", &[&["run", "--mode", "emergency", "--recipe-id", "1"], arguments].concat());
        assert!(run.code == 2 && run.stderr.contains(&format!("not confirmed: would remove {asked}\n")), "{run:?}");
        assert_eq!(number(&mut client, FAILED), 27);
    }
    assert_eq!(run(&cluster, "emergency", &["emergency", "--confirm", "system_backlog"]).code, 0);
    assert_eq!(number(&mut client, FAILED), 0);
}

#[test]
fn a_policy_does_what_its_simulation_says() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("policies");
    client.batch_execute(FAILURES).unwrap();
    let run = |arguments: &[&str]| run(&cluster, "policies", arguments);
    let mut rows = |query: &str| -> Value {
        let text: String = value(&mut client, &format!("SELECT coalesce(jsonb_agg(q), '[]')::text FROM ({query}) q"));
        serde_json::from_str(&text).unwrap()
    };
    let policy = ["--recipe-id", "1", "--keep", "2", "--json"];
    let simulated = run(&[&["policy", "simulate"], &policy[..]].concat()).json();
    let as_sql =
        "SELECT policy, recipe AS \"recipeId\", recipe_name AS \"recipeName\", removable_now AS \"removableNow\",
                         kept_now AS \"keptNow\", removable_then AS \"removableThen\", kept_then AS \"keptThen\"
                  FROM backlog_cleanup_simulate(recipe_id => '1', keep => 2)";
    assert_eq!(simulated, rows(as_sql));
    let sum = |key: &str| simulated.as_array().unwrap().iter().map(|group| group[key].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum("removableNow"), sum("removableThen")), (7, 15));
    let people = run(&[&["policy", "simulate"], &policy[..4]].concat()).stdout;
    assert!(people.contains("Removable are 7 of 30 generations in scope now, and 15 then"), "{people}");
    assert!(!people.contains("No recipe"), "nothing changes for it: {people}");
    assert_eq!(rows("SELECT FROM backlog_cleanup.policy").as_array().unwrap().len(), 1, "a simulation writes nothing");

    let written = run(&[&["policy", "set", "--note", "bread"], &policy[..]].concat()).json();
    for (member, expected) in [("policy", "recipe \"1\""), ("recipeId", "1"), ("maxAge", "24:00:00"), ("note", "bread")]
    {
        assert_eq!(written[member], expected, "{written}");
    }
    let explained = run(&["explain", "15", "--json"]).json();
    let as_sql = "SELECT verdict, reason, policy, rank, keep FROM backlog_cleanup_explain('15')";
    for (member, value) in rows(as_sql)[0].as_object().unwrap() {
        assert_eq!(&explained[member], value, "{explained}");
    }
    let people = run(&["explain", "15"]).stdout;
    assert!(people.contains("policy      recipe \"1\"") && people.contains("kept"), "{people}");
    assert_eq!(run(&["explain", "0", "--json"]).json()["verdict"], "no such row");

    let dry = run(&["cleanup", "--dry-run"]).stdout;
    assert!(dry.lines().any(|line| line.split_whitespace().eq(["recipe", "\"1\"", "15", "13", "2", "0"])), "{dry}");
    assert_eq!(run(&["cleanup", "--json"]).json()["cleanedUpGenerations"], 15);
    let removed = run(&["runs", "1"]).stdout;
    assert!(
        removed.lines().any(|line| line.split_whitespace().eq(["recipe", "\"1\"", "15", "13", "2", "0"])),
        "{removed}"
    );
    assert_eq!(run(&["runs", "1", "--json"]).json()["policies"][1]["removed"], 2);
    let list = run(&["policy", "list", "--json"]).json();
    let list: Vec<_> =
        list.as_array().unwrap().iter().map(|it| [&it["policy"], &it["inScope"], &it["removed"]]).collect();
    assert_eq!(serde_json::to_value(list).unwrap(), serde_json::json!([["recipe \"1\"", 15, 13], ["default", 15, 2]]));
    assert_eq!(run(&["policy", "drop", "--recipe-id", "1", "--json"]).json()["dropped"], true);
    assert_eq!(run(&["policy", "drop", "--recipe-id", "1"]).stdout.trim(), "Policy recipe \"1\" does not exist");
    // What cannot be obeyed is refused.
    for (arguments, sqlstate) in [
        (&["--recipe-id", "bread"][..], "22P02"),
        (&["--max-age", "soon"], "22007"),
        (&["--keep", "-1"], "22023"),
        (&["--status", "pending"], "22023"),
    ] {
        let refused = run(&[&["policy", "set", "--json"], arguments].concat());
        assert_eq!((refused.code, &refused.failure()["sqlstate"]), (1, &sqlstate.into()), "{arguments:?}");
    }
    assert_eq!(run(&["policy", "set", "--enabled", "--hold"]).code, 2);
    for (limit, kept) in [("--max-keep-age=1 year", "1 year"), ("--no-max-keep-age", "")] {
        assert!(run(&["policy", "simulate", limit]).code == 0, "{limit}");
        let written = run(&["policy", "set", limit, "--json"]).json();
        assert_eq!(written["maxKeepAge"].as_str().unwrap_or_default(), kept, "{limit}");
    }
    let unused = run(&["policy", "set", "--recipe-id", "77"]);
    assert!(unused.code == 0 && unused.stderr.contains("has no generation now that this policy is for"), "{unused:?}");
    for action in ["set", "simulate"] {
        let none = run(&["policy", action, "--failure-type", "(none)"]);
        assert!(none.code == 0 && none.stderr.contains("rows without a failure type have no name"), "{none:?}");
    }
}

#[test]
fn what_a_policy_holds_stays_in_an_emergency_unless_it_is_included() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("held");
    client.batch_execute(FAILURES).unwrap();
    let run = |arguments: &[&str]| run(&cluster, "held", arguments);
    assert!(run(&["policy", "set", "--recipe-id", "1", "--hold"]).stdout.contains("hold"));
    let dry = run(&["emergency", "--dry-run"]).stdout;
    assert!(dry.contains("would remove 15 of 30") && dry.contains("Held by policies: 15 generations"), "{dry}");
    let done = run(&["emergency", "--confirm", "system_backlog", "--json"]).json();
    assert_eq!((&done["removedCount"], &done["heldCount"]), (&15.into(), &15.into()));
    assert_eq!(run(&["runs", "1", "--json"]).json()["held"], 15);
    assert_eq!(run(&["run", "--include-held"]).code, 2);
    assert_eq!(number(&mut client, FAILED), 15);
    let batched = ["run", "--mode", "emergency", "--include-held", "--confirm", "system_backlog", "--json"];
    assert_eq!(run(&batched).json()["removedCount"], 15);
    assert_eq!(number(&mut client, FAILED), 0);
}

#[test]
fn who_lacks_a_level_is_told_which_one() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("levels");
    client.batch_execute("CREATE ROLE \"o'hara\" LOGIN").unwrap();
    for (level, command) in [
        ("monitor", &["status"][..]),
        ("monitor", &["policy", "simulate", "--keep", "5"]),
        ("monitor", &["explain", "1"]),
        ("monitor", &["alerts", "list"]),
        ("monitor", &["report"]),
        ("admin", &["policy", "set", "--keep", "5"]),
        ("monitor", &["target", "show", "generations"]),
        ("admin", &["target", "set", "generations", "pause=1 s"]),
        ("operator", &["emergency", "--confirm", "system_backlog"]),
        ("operator", &["cleanup"]),
    ] {
        let run = || run(&cluster, "levels", &[command, &["--username", "o'hara", "--json"]].concat());
        let refused = run();
        let hint = format!("SELECT backlog_cleanup_grant('o''hara', '{level}')");
        assert_eq!((refused.code, refused.failure()["hint"].as_str()), (1, Some(&*hint)), "{refused:?}");
        client.batch_execute(&hint).unwrap();
        assert_eq!(run().code, 0, "{command:?}");
        client.batch_execute("SELECT backlog_cleanup_revoke('o''hara')").unwrap();
    }
}

#[test]
fn who_stops_reading_is_not_met_with_a_panic() {
    let cluster = Cluster::shared("");
    cluster.platform_in("pipes").batch_execute(FAILURES).unwrap();
    let calls: [&[&str]; 6] =
        [&["status"], &["status", "--json"], &["doctor"], &["completions", "zsh"], &["cleanup"], &["--help"]];
    for arguments in calls {
        let mut child = cli::spawn(cli::command(&cluster, "pipes", arguments));
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
    // A full disk is an error.
    let mut full = cli::command(&cluster, "pipes", &["status"]);
    let full: Ran =
        full.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap()).output().unwrap().into();
    assert_eq!(full.code, 1, "{full:?}");
}

#[test]
fn what_comes_from_the_database_does_not_command_the_terminal() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("escapes");
    client.batch_execute(FAILURES).unwrap();
    client.batch_execute(r"UPDATE recipes SET name = E'\x1b[2J\u202eeman\x07' WHERE id = 1").unwrap();
    for arguments in [&["status"][..], &["cleanup", "--dry-run"], &["emergency"], &["cleanup"], &["runs", "1"]] {
        let Ran { stdout, stderr, .. } = run(&cluster, "escapes", arguments);
        let said = stdout + &stderr;
        assert!(said.contains(r"\u{1b}[2J\u{202e}eman\u{7}"), "{arguments:?}: {said}");
        assert!(!said.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{arguments:?}: {said}");
    }
    let unknown = run(&cluster, "escapes", &["status", "--target", "\u{1b}[2J"]);
    assert!(unknown.stderr.contains(r"\u{1b}[2J") && !unknown.stderr.contains('\u{1b}'), "{unknown:?}");
}

#[test]
fn colour_is_for_terminals_and_for_those_who_ask() {
    let cluster = Cluster::shared("");
    cluster.platform_in("colour");
    let color = |command: &mut Command| command.output().unwrap().stdout.contains(&0x1b);
    let command = |arguments: &[&str]| cli::command(&cluster, "colour", arguments);
    assert!(!color(&mut command(&["doctor"])));
    assert!(color(&mut command(&["doctor", "--color", "always"])));
    let binary = env!("CARGO_BIN_EXE_backlog-cleanup");
    for (shell, expected) in [
        (format!("{binary} doctor"), true),
        (format!("NO_COLOR=1 {binary} doctor"), false),
        (format!("{binary} doctor --color never"), false),
    ] {
        let mut terminal = cli::Terminal::start(&command(&[]), &shell, 80, 100);
        terminal.finish();
        assert_eq!(terminal.sent.contains(&0x1b), expected, "{shell}");
        // With or without colour, a table is no wider than the terminal.
        assert!(
            terminal.text().contains("target                ok      its tables and columns exist"),
            "{}",
            terminal.text()
        );
    }
}

#[test]
fn completions_and_manual_pages_are_there_for_every_command() {
    let cluster = Cluster::shared("");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = run(&cluster, "postgres", &["completions", shell]);
        assert!(completions.code == 0 && completions.stdout.contains("emergency"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(run(&cluster, "postgres", &["man", directory.path().to_str().unwrap()]).code, 0);
    for page in ["", "-run", "-schedule-set", "-policy-set", "-target-add", "-target-show"] {
        let name = format!("backlog-cleanup{page}.1");
        let page = std::fs::read_to_string(directory.path().join(&name)).unwrap();
        assert!(page.contains(".SH EXAMPLES") && page.contains(".SH EXIT STATUS"), "{page}");
        // Its examples are of this command.
        let command = name.trim_start_matches("backlog-cleanup-").trim_end_matches(".1").replace('-', " ");
        let examples = page.split_once(".SH EXAMPLES").unwrap().1;
        let is_own = |example: &str| name == "backlog-cleanup.1" || example.starts_with(&command);
        assert!(examples.split("backlog\\-cleanup ").skip(1).all(is_own), "{name}: {examples}");
    }
}

#[test]
fn bash_completes_the_arguments_of_every_command() {
    let completed = |typed: &str| {
        let binary = env!("CARGO_BIN_EXE_backlog-cleanup");
        let script = format!(
            "source <({binary} completions bash)
             COMP_WORDS=({typed} '') COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _backlog__cleanup backlog-cleanup '' \"${{COMP_WORDS[COMP_CWORD - 1]}}\"
             echo \" ${{COMPREPLY[*]}} \""
        );
        let completed = Command::new("bash").args(["-c", &script]).output().expect("bash starts");
        String::from_utf8(completed.stdout).expect("UTF-8")
    };
    for (typed, offered) in [
        ("backlog-cleanup", " emergency "),
        ("backlog-cleanup emergency", " --confirm "),
        ("backlog-cleanup run --mode", " regular emergency "),
        ("backlog-cleanup schedule", " remove "),
        ("backlog-cleanup schedule set", " --batched "),
    ] {
        assert!(completed(typed).contains(offered), "{typed}: {}", completed(typed));
    }
}
