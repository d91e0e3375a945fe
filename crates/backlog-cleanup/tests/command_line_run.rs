//! Signals cancel a run on the server; the command line prints what the run did.

mod cli;

use cli::FAILURES;
use cluster::{Cluster, number, until_true};

const FAILED: &str = "SELECT count(*) FROM generations WHERE status = 'failed'";
/// Whether the last run has committed batches.
const BATCHES: &str = "SELECT coalesce((SELECT batches FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1), 0) > 0";
const AT_WORK: &str = "SELECT count(*) FROM pg_stat_activity
                       WHERE application_name = 'backlog-cleanup' AND datname = current_database()";

#[test]
fn ctrl_c_cancels_a_run_in_batches_and_tells_what_it_did() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("batches");
    client.batch_execute(FAILURES).unwrap();
    for (run, signal, mode) in [(1, "INT", "regular"), (2, "TERM", "emergency")] {
        let before = number(&mut client, FAILED);
        let confirmed = ["--confirm", "system_backlog"];
        let arguments = ["run", "--mode", mode, "--batch-size", "2", "--pause", "1 hour", "--json"];
        let child = cli::spawn(cli::command(&cluster, "batches", &[&arguments[..], &confirmed].concat()));
        until_true(&mut client, &format!("{BATCHES} AND (SELECT count(*) FROM backlog_cleanup.run) = {run}"));
        cli::signal(&child, signal);
        let ran = cli::wait(child);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains("\"57014\""), "{ran:?}");
        let (told, left) = (ran.json(), number(&mut client, FAILED));
        let figures = ["id", "removed"].map(|figure| told[figure].as_i64().unwrap());
        assert_eq!((told["state"].as_str(), figures), (Some("interrupted"), [run, before - left]));
        assert!(left < before, "{ran:?}");
        assert_eq!(told["totalFailed"].as_i64(), Some(before));
        let details = cli::run(&cluster, "batches", &["runs", &run.to_string()]).stdout;
        assert!(details.contains(&format!(" of {before} generations in scope")), "{details}");
        until_true(&mut client, &format!("SELECT ({AT_WORK}) = 0"));
        let booked = "SELECT sum(amount) FROM credit_transactions WHERE type = 'backlog_cleanup'";
        assert_eq!(30 - left, number(&mut client, booked));
    }
    // So with one that stops at a number of rows.
    let few = ["run", "--mode", "emergency", "--confirm", "system_backlog", "--max-rows", "1"];
    let few = cli::run(&cluster, "batches", &few);
    assert!(few.code == 0 && few.stdout.contains("removed 1 of 26 generations in scope of "), "{few:?}");
    // The next run continues.
    let rest = cli::run(&cluster, "batches", &["run", "--mode", "emergency", "--confirm", "system_backlog"]);
    assert!(rest.code == 0 && rest.stdout.contains("removed 25 of 25 generations in scope"), "{rest:?}");
    assert_eq!(number(&mut client, FAILED), 0);
}

#[test]
fn ctrl_c_cancels_a_run_in_one_transaction_which_then_changes_nothing() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("one");
    client.batch_execute(FAILURES).unwrap();
    client.batch_execute("UPDATE backlog_cleanup.target SET lock_timeout = '1 hour'").unwrap();
    for arguments in [&["cleanup"][..], &["emergency", "--confirm", "system_backlog"]] {
        let mut other = cluster.connect_to("one");
        let mut holder = other.transaction().unwrap();
        holder.batch_execute("UPDATE generations SET retry_count = 9").unwrap();
        let child = cli::spawn(cli::command(&cluster, "one", arguments));
        until_true(
            &mut client,
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                            WHERE application_name = 'backlog-cleanup' AND wait_event_type = 'Lock')",
        );
        cli::signal(&child, "INT");
        let ran = cli::wait(child);
        assert!(ran.code == 1 && ran.stderr.contains("canceling statement due to user request"), "{ran:?}");
        holder.commit().unwrap();
        until_true(&mut client, &format!("SELECT ({AT_WORK}) = 0"));
        assert_eq!(number(&mut client, FAILED), 30);
    }
}

#[test]
fn how_far_a_run_is_can_be_seen_in_a_terminal() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("bar");
    client.batch_execute(FAILURES).unwrap();
    let more = "INSERT INTO generations (user_id, prompt, status, updated_at)
                SELECT 'system_backlog', '', 'failed', now() - interval '3 days' FROM generate_series(1, 3000)";
    client.batch_execute(more).unwrap();
    let binary = env!("CARGO_BIN_EXE_backlog-cleanup");
    let run = format!("{binary} run --mode emergency --confirm system_backlog --batch-size 500 --pause '1 s'");
    let mut terminal = cli::Terminal::start(&cli::command(&cluster, "bar", &[]), &run, 100, 30);
    assert!(
        terminal.until(|screen| screen.contains("500 generations, ") && screen.contains(" left")),
        "{}",
        terminal.text()
    );
    terminal.press("\u{3}");
    terminal.finish();
    let text = terminal.text();
    assert!(
        text.contains("cancelling; committed batches are permanent") && text.contains("Run 1 did not finish"),
        "{text}"
    );
    let left = number(&mut client, FAILED);
    assert!(0 < left && left < 3030, "{left}");
}

#[test]
fn watch_gives_the_terminal_back_however_it_ends() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("watched");
    client.batch_execute(FAILURES).unwrap();
    let binary = env!("CARGO_BIN_EXE_backlog-cleanup");
    // After it has quit, the shell prints the state of the terminal.
    for (end, code) in [("q", 0), ("\u{3}", 0), ("TERM", 0)] {
        let pid = tempfile::NamedTempFile::new().unwrap();
        let watch = format!("echo $$ >{}; exec {binary} watch --interval 0.2", pid.path().display());
        let shell = format!("sh -c '{watch}'; code=$?; stty -a; echo after=$code");
        let mut terminal = cli::Terminal::start(&cli::command(&cluster, "watched", &[]), &shell, 100, 40);
        assert!(terminal.until(|screen| screen.contains("Cat Olympic Diving") && screen.contains("q quits")));
        // It is refreshed.
        client.batch_execute("UPDATE recipes SET name = name || '!' WHERE id = 1").unwrap();
        assert!(terminal.until(|screen| screen.contains("Cat Olympic Diving!")), "{}", terminal.text());
        assert!(terminal.screen.screen().alternate_screen());
        if end == "TERM" {
            // The shell has written the id of the process.
            let pid = std::fs::read_to_string(pid.path()).unwrap();
            assert!(std::process::Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
        } else {
            terminal.press(end);
        }
        terminal.finish();
        let text = terminal.text();
        assert!(text.contains(&format!("after={code}")), "{end:?}: {text}");
        assert!(!terminal.screen.screen().alternate_screen() && !terminal.screen.screen().hide_cursor(), "{text}");
        assert!(text.contains("isig icanon iexten echo "), "{text}");
        client.batch_execute("UPDATE recipes SET name = 'Cat Olympic Diving' WHERE id = 1").unwrap();
    }
    // Without a terminal it needs --json.
    let no_terminal = cli::run(&cluster, "watched", &["watch"]);
    assert!(no_terminal.code == 2 && no_terminal.stderr.contains("watch --json"), "{no_terminal:?}");
}

#[test]
fn a_run_that_was_told_to_outlive_its_terminal_does() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("nohup");
    client.batch_execute(FAILURES).unwrap();
    let mut nohup = std::process::Command::new("nohup");
    let run = cli::command(&cluster, "nohup", &["run", "--batch-size", "2", "--pause", "200 ms", "--json"]);
    nohup
        .arg(run.get_program())
        .args(run.get_args())
        .envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = cli::spawn(nohup);
    until_true(&mut client, BATCHES);
    cli::signal(&child, "HUP");
    let ran = cli::wait(child);
    assert_eq!((ran.code, ran.json()["state"].as_str()), (0, Some("completed")), "{ran:?}");
}
