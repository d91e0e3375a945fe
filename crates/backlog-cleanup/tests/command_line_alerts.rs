//! Alerts and the report on the command line.

mod cli;

use cli::run;
use cluster::{Cluster, truth, value};

#[test]
fn alerts_are_listed_snoozed_and_acknowledged_and_the_report_is_the_one_of_sql() {
    let cluster = Cluster::shared("");
    let mut client = cluster.platform_in("alerts");
    let run = |arguments: &[&str]| run(&cluster, "alerts", arguments);
    assert_eq!(run(&["alerts", "list"]).stdout, "No alert is open\n");
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence, fix, resolved_at) VALUES
                 ('rows in scope', 'generations', 7, 5, 'too many rows', 'SELECT 1', NULL), ('books', 'generations', 1, 0, 'long over', NULL, now())",
        )
        .unwrap();
    let people = run(&["alerts", "list"]).stdout;
    for shown in ["ALERT  STATE", "rows in scope", "too many rows", "alert 1: SELECT 1"] {
        assert!(people.contains(shown), "{shown}: {people}");
    }
    assert!(!people.contains("long over"), "{people}");
    let all = run(&["alerts", "list", "--all", "--target", "generations", "--json"]).json();
    assert_eq!(
        (all.as_array().unwrap().len(), &all[1]["fix"], &all[0]["rule"]),
        (2, &"SELECT 1".into(), &"books".into())
    );
    assert_eq!(run(&["alerts", "snooze", "1", "2 hours", "--note", "on it"]).code, 0);
    assert_eq!(run(&["alerts", "acknowledge", "1"]).stdout, "Alert 1 is yours\n");
    let taken = "SELECT snoozed_until > now() + interval '1 hour' AND acknowledged_by = 'postgres' AND note = 'on it'
                 FROM backlog_cleanup.alert WHERE id = 1";
    assert!(truth(&mut client, taken));
    assert!(run(&["alerts", "list"]).stdout.contains("snoozed"));
    let refused = run(&["alerts", "acknowledge", "2", "--json"]);
    assert_eq!((refused.code, refused.failure()["sqlstate"].as_str()), (1, Some("55000")), "{refused:?}");
    let report: String = value(&mut client, "SELECT backlog_cleanup_report()");
    let shown = run(&["report"]).stdout;
    assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), report.lines().skip(1).collect::<Vec<_>>());
    assert!(run(&["report", "--since", "1 day", "--markdown"]).stdout.starts_with("# Backlog cleanup of "));
    assert_eq!(run(&["report", "--since", "1 second"]).code, 1);
}
