//! Every command in terminals of several widths, with long names, without a target `generations`, in two databases.

mod cli;

use std::sync::Arc;

use cli::{FAILURES, Terminal};
use cluster::{Cluster, PG_CRON, number};

/// Lines to be copied, which are not broken.
fn is_copied(line: &str) -> bool {
    line.ends_with(';')
        || ["HINT:", "backlog-cleanup ", "schedule   not known", "SELECT "].iter().any(|it| line.starts_with(it))
}

/// The lines of what was sent to a terminal, without its control sequences.
fn lines(sent: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(sent);
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => drop(chars.by_ref().find(|char| char.is_ascii_alphabetic())),
            char => plain.push(char),
        }
    }
    plain.split(['\n', '\r']).map(|line| line.trim_end().into()).collect()
}

#[test]
fn every_command_fits_its_terminal() {
    let cluster = Arc::new(Cluster::start(&PG_CRON.replace("'postgres'", "'narrow'")));
    let mut client = cluster.platform_in("narrow");
    let mut shop = cluster.platform_in("shop");
    let long = "Long ".repeat(39) + "name!";
    client
        .batch_execute(&format!(
            "CREATE EXTENSION pg_cron;
             {FAILURES}
             UPDATE recipes SET name = '{long}' WHERE id = 1;
             UPDATE recipes SET name = repeat('W', 200) WHERE id = 2;
             UPDATE generations SET failure_reason = '{long}' WHERE recipe_id = 2;
             UPDATE backlog_cleanup.target SET name = '{long}', group_word = repeat('g', 40), row_word = repeat('r', 40);"
        ))
        .unwrap();
    shop.batch_execute(FAILURES).unwrap();
    let pages = tempfile::tempdir().unwrap();
    let man = format!("man {}", pages.path().display());
    let by_type = format!("cleanup --failure-type '{long}'");
    let commands = [
        ("status", 0, 0),
        ("status --check --max-failed 1", 4, 4),
        ("cleanup --dry-run", 0, 0),
        ("cleanup --rehearse", 0, 0),
        (&by_type, 0, 0),
        ("cleanup --recipe-id 1", 0, 0),
        ("run --dry-run", 0, 0),
        ("run --batch-size 2", 0, 0),
        ("emergency", 2, 2),
        ("emergency --confirm nobody", 2, 2),
        ("run --mode emergency --max-rows 1", 2, 2),
        ("runs", 0, 0),
        ("runs 2", 0, 0),
        ("runs 0", 1, 1),
        ("stop 2", 0, 0),
        ("doctor", 0, 0),
        ("schedule show", 0, 0),
        ("schedule set", 0, 1),
        ("schedule show", 0, 0),
        ("schedule remove", 0, 1),
        ("schedule remove --job-name nothing", 0, 1),
        ("setup", 1, 1),
        ("status --target nothing", 1, 1),
        ("status --dbname nothing", 1, 1),
        ("status --nothing", 2, 2),
        ("help run", 0, 0),
        (&man, 0, 0),
    ];
    let binary = env!("CARGO_BIN_EXE_backlog-cleanup");
    for columns in [60, 80, 200] {
        for database in ["narrow", "shop"] {
            for (command, here, elsewhere) in commands {
                let template = cli::command(&cluster, database, &[]);
                let mut terminal = Terminal::start(&template, &format!("{binary} {command}"), columns, 50);
                // The answers to questions.
                terminal.press("no\nno\nno\n");
                let code = terminal.finish();
                let said = lines(&terminal.sent).join("\n");
                assert_eq!(
                    code,
                    if database == "narrow" { here } else { elsewhere },
                    "{columns}, {database}, {command}: {said}"
                );
                assert!(!said.contains("panicked"), "{command}: {said}");
                for line in lines(&terminal.sent).iter().filter(|line| !is_copied(line)) {
                    assert!(
                        line.chars().count() <= usize::from(columns),
                        "{columns}, {database}, {command}: {line}\n{said}"
                    );
                }
            }
        }
        for database in ["narrow", "shop"] {
            let template = cli::command(&cluster, database, &[]);
            let mut watch = Terminal::start(&template, &format!("{binary} watch"), columns, 24);
            assert!(
                watch.until(|screen| screen.contains("last run") && screen.contains("STARTED")),
                "{}",
                watch.text()
            );
            watch.press("q");
            assert_eq!(watch.finish(), 0);
        }
    }
    assert!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run") >= 3);
    // A terminal that does not tell its size.
    let shell = format!("stty cols 0 rows 0; {binary} doctor");
    let mut terminal = Terminal::start(&cli::command(&cluster, "narrow", &[]), &shell, 80, 50);
    assert_eq!(terminal.finish(), 0);
    let said = lines(&terminal.sent);
    assert!(said.iter().any(|line| line.contains("its tables and columns exist")), "{said:?}");
    assert!(said.iter().all(|line| is_copied(line) || line.chars().count() <= 80), "{said:?}");
}
