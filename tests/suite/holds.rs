//! A hold holds, whatever becomes of its target, and no fix takes it away.

use std::sync::mpsc::channel;

use cluster::{Cluster, JOBS, column, finding, findings, number, refused, truth, until_true, value};
use postgres::Client;

/// The target `t` with 100 failed rows of the recipe `a`, whose failure types are one fingerprint, 50 of them in another status.
fn with_jobs(cluster: &Cluster) -> Client {
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "UPDATE job SET error = 'timeout ' || id, state = CASE id % 2 WHEN 0 THEN 'dead' ELSE state END;
             UPDATE backlog_cleanup.target SET statuses = '{failed,dead}' WHERE name = 't'",
        )
        .unwrap();
    client
}

/// The rows that an emergency run would hold, of target `t`.
fn held(client: &mut Client) -> i64 {
    number(client, "SELECT (backlog_cleanup_emergency('t', dry_run => true) ->> 'heldCount')::bigint")
}

#[test]
fn no_change_of_a_target_switches_a_hold_off() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "CREATE TABLE other (LIKE job INCLUDING ALL); ALTER TABLE other OWNER TO app;
             ALTER TABLE other ALTER queue DROP DEFAULT, ALTER queue TYPE int USING 7, ALTER error TYPE int USING 7",
        )
        .unwrap();
    for (hold, rows, changes) in [
        (
            "failure_type => 'timeout 12'",
            100,
            vec![
                ("fingerprint = false", "a failure type would be something else"),
                ("failure_type_column = NULL", "target \"t\" has no failure_type_column"),
                ("failure_type_column = 'queue'", "a failure type would be something else"),
                ("failure_type_column = '(lower(error))'", "a failure type would be something else"),
                ("generations_table = 'public.other'", "\"timeout #\" cannot be read as integer"),
            ],
        ),
        (
            "'a'",
            100,
            vec![
                ("recipe_column = NULL", "which has neither a recipe_column nor recipe_columns"),
                ("recipe_column = NULL, recipe_columns = '{queue,state}'", "whose ids are JSON documents"),
                ("recipe_column = 'owner'", "a group would be something else"),
                ("recipe_column = '(upper(queue))'", "a group would be something else"),
                ("generations_table = 'public.other'", "\"a\" cannot be read as integer"),
            ],
        ),
        (
            "status => 'dead'",
            50,
            vec![
                ("statuses = '{failed}'", "status \"dead\" is none whose rows target \"t\" may remove"),
                ("status_column = 'owner'", "a status would be something else"),
            ],
        ),
    ] {
        client
            .batch_execute(&format!("SELECT backlog_cleanup_set_policy({hold}, enabled => false, target => 't')"))
            .unwrap();
        assert_eq!(held(&mut client), rows, "{hold}");
        for (change, reason) in changes {
            let write = format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'");
            let refusal = client.batch_execute(&write).expect_err(change);
            let refusal = refusal.as_db_error().unwrap();
            assert_eq!(refusal.code().code(), "2BP01", "{change}: {refusal:?}");
            assert!(refusal.detail().unwrap().contains(reason), "{change}: {refusal:?}");
            assert_eq!(
                number(
                    &mut client,
                    &format!(
                        "WITH it AS ({}) SELECT count(*) FROM it",
                        refusal.hint().unwrap().split(';').next().unwrap()
                    )
                ),
                2
            );
            assert_eq!(held(&mut client), rows, "{hold}: {change}");
        }
        client.batch_execute("DELETE FROM backlog_cleanup.policy WHERE NOT enabled").unwrap();
    }

    // What means the same rows, and what a person has decided.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET failure_type_column = '(lower(error))' WHERE name = 't';
             SELECT backlog_cleanup_set_policy('a', enabled => false, target => 't'),
                    backlog_cleanup_set_policy(failure_type => 'timeout 7', status => 'dead', enabled => false, target => 't')",
        )
        .unwrap();
    let both = "UPDATE backlog_cleanup.target SET fingerprint = false, recipe_column = 'owner' WHERE name = 't'";
    let refusal = client.batch_execute(both).unwrap_err();
    assert_eq!(refusal.as_db_error().unwrap().detail().unwrap().lines().count(), 2, "all in one answer");
    for change in [
        "UPDATE backlog_cleanup.target SET max_rows = 7, account = 'w' WHERE name = 't'",
        "UPDATE backlog_cleanup.target SET failure_type_column = '(lower(error))' WHERE name = 't'",
        "UPDATE backlog_cleanup.target SET statuses = '{dead,failed,other}' WHERE name = 't'",
        "ALTER TABLE job RENAME queue TO kind; UPDATE backlog_cleanup.target SET recipe_column = 'kind' WHERE name = 't'",
        "ALTER TABLE job RENAME TO work; UPDATE backlog_cleanup.target SET generations_table = 'public.work' WHERE name = 't'",
        "UPDATE backlog_cleanup.target SET name = 'u' WHERE name = 't'; UPDATE backlog_cleanup.target SET name = 't' WHERE name = 'u'",
        "BEGIN; DELETE FROM backlog_cleanup.policy WHERE failure_type IS NOT NULL;
         UPDATE backlog_cleanup.target SET fingerprint = false WHERE name = 't';
         SELECT backlog_cleanup_set_policy(failure_type => 'timeout 7', enabled => false, target => 't'); COMMIT",
    ] {
        client.batch_execute(change).unwrap_or_else(|failure| panic!("{change}: {failure:?}"));
        assert_eq!(held(&mut client), 100, "{change}");
    }
    // A policy that goes to another target is read as that one's.
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, account)
             VALUES ('n', 'public.other', NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w')",
        )
        .unwrap();
    let moved = client.batch_execute("UPDATE backlog_cleanup.policy SET target = 'n' WHERE recipe_id = 'a'");
    assert_eq!(refused(moved).0, "22P02");
}

#[test]
fn a_recipe_of_several_columns_is_held_as_people_write_it() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "ALTER TABLE job ADD place int DEFAULT 7;
             UPDATE backlog_cleanup.target SET recipe_column = NULL, recipe_columns = '{queue,place}' WHERE name = 't'",
        )
        .unwrap();
    for written in [r#"{"place":7,"queue":"a"}"#, r#"{"queue": "a", "place": "007"}"#, r#"{"place": 7, "queue": "a"}"#]
    {
        let hold = "SELECT (backlog_cleanup_set_policy($1, enabled => false, target => 't')).recipe_id";
        assert_eq!(client.query_one(hold, &[&written]).unwrap().get::<_, String>(0), r#"{"place": 7, "queue": "a"}"#);
        assert_eq!(held(&mut client), 100, "{written}");
        client
            .batch_execute("UPDATE backlog_cleanup.target SET recipe_columns = '{place,queue}' WHERE name = 't'")
            .unwrap();
        assert_eq!(held(&mut client), 100, "{written}");
        let drop = "SELECT backlog_cleanup_drop_policy($1, target => 't')";
        assert!(client.query_one(drop, &[&written]).unwrap().get::<_, bool>(0), "{written}");
        assert_eq!(held(&mut client), 0, "{written}");
        client
            .batch_execute("UPDATE backlog_cleanup.target SET recipe_columns = '{queue,place}' WHERE name = 't'")
            .unwrap();
    }
    let mut is_refused = |written: &str, sqlstate: &str| {
        let hold = format!("SELECT backlog_cleanup_set_policy($x${written}$x$, enabled => false, target => 't')");
        let (code, message, hint) = refused(client.batch_execute(&hold));
        assert_eq!(code, sqlstate, "{written}: {message}");
        client.batch_execute(&hint).unwrap_or_else(|failure| panic!("{hint}: {failure:?}"));
    };
    for written in ["a", "[1]", "7", r#"{"queue":"a"}"#, r#"{"queue":"a","place":7,"x":1}"#] {
        is_refused(written, "22023");
    }
    is_refused(r#"{"queue":"a","place":"b"}"#, "22P02");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET recipe_columns = NULL, failure_type_column = NULL WHERE name = 't'",
        )
        .unwrap();
    for hold in ["'a'", "failure_type => 'timeout 7'"] {
        let hold = format!("SELECT backlog_cleanup_set_policy({hold}, enabled => false, target => 't')");
        assert_eq!(refused(client.batch_execute(&hold)).0, "22023", "{hold}");
    }
}

#[test]
fn a_policy_that_its_column_can_no_longer_read_stops_no_run_and_the_doctor_fails() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "SELECT backlog_cleanup_set_policy('a', enabled => false, target => 't'),
                    backlog_cleanup_set_policy(failure_type => 'timeout 1', keep => 50, target => 't');
             ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE int USING 7, ALTER error TYPE int USING 7",
        )
        .unwrap();
    let found = findings(&mut client, "policy");
    let [hold, policy] = &found[..] else { panic!("{found:?}") };
    assert!(hold.0 == "fail" && hold.2.is_none() && policy.0 == "fail", "{found:?}");
    assert!(hold.1.contains("the hold for group \"a\": \"a\" cannot be read as integer"), "{found:?}");
    client.batch_execute(policy.2.as_ref().unwrap()).unwrap();
    let dry_run =
        "SELECT (backlog_cleanup_failed_generations('t', dry_run => true) ->> 'cleanedUpGenerations')::bigint";
    assert_eq!(number(&mut client, dry_run), 90);
    for (run, left) in [
        ("SELECT backlog_cleanup_failed_generations('t')", 10),
        ("CALL backlog_cleanup_run('t', batch_size => 7)", 10),
        ("SELECT backlog_cleanup_emergency('t')", 0),
        ("CALL backlog_cleanup_run('t', 'emergency', batch_size => 7)", 0),
    ] {
        client.batch_execute("TRUNCATE job; INSERT INTO job (id, queue) SELECT generate_series(1, 100), 7").unwrap();
        client.batch_execute(run).unwrap_or_else(|failure| panic!("{run}: {failure:?}"));
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), left, "{run}");
    }
    // Nor does it stop a change of something else.
    client.batch_execute("UPDATE backlog_cleanup.target SET max_rows = 7 WHERE name = 't'").unwrap();
    let drop = hold.1.split("and type ").nth(1).unwrap();
    assert!(truth(&mut client, drop));
    assert_eq!(finding(&mut client, "policy").0, "ok");
}

#[test]
fn no_fix_of_the_doctor_takes_a_hold_away() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    client
        .batch_execute(
            "SELECT backlog_cleanup_set_policy('legal', enabled => false, target => 't'),
                    backlog_cleanup_set_policy('rare', target => 't'),
                    backlog_cleanup_set_policy(failure_type => 'timeout 1', enabled => false, target => 't');
             SELECT backlog_cleanup_failed_generations('t')",
        )
        .unwrap();
    for (status, detail, fix) in findings(&mut client, "policy") {
        assert!(status == "warn" && fix.is_none() && detail.contains("group \"rare\""), "{detail}");
    }
    client.batch_execute("SELECT backlog_cleanup_drop_policy('rare', target => 't')").unwrap();
    let (status, detail, _) = finding(&mut client, "policy");
    assert!(status == "ok" && detail.contains("hold for group \"legal\""), "{detail}");
    // The owner may no longer call what takes fingerprints: holds for failure types need it.
    client.batch_execute("REVOKE USAGE ON SCHEMA public FROM public, app").unwrap();
    let (status, detail, fix) = finding(&mut client, "target");
    assert!(status == "fail" && fix.is_none(), "{detail}: {fix:?}");
    let fixes = "SELECT fix FROM backlog_cleanup_doctor('t') WHERE fix IS NOT NULL";
    for fix in column::<String>(&mut client, fixes) {
        client.batch_execute(&fix).unwrap_or_else(|failure| panic!("{fix}: {failure:?}"));
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.policy WHERE NOT enabled"), 2);
    assert!(value::<bool>(&mut client, "SELECT fingerprint FROM backlog_cleanup.target WHERE name = 't'"));
    client.batch_execute(detail.split("and type ").nth(1).unwrap()).unwrap();
    assert_eq!(finding(&mut client, "target").0, "ok");
    assert_eq!(held(&mut client), 100);
}

#[test]
fn a_policy_that_comes_before_a_hold_and_takes_rows_out_of_it_is_told() {
    let cluster = Cluster::start("");
    with_jobs(&cluster);
    let (notices, told) = channel();
    let mut client = cluster.connect_with_notices(notices);
    // Each warning is told with a statement that shows more.
    let warned = |client: &mut Client| {
        let told: Vec<(String, String)> = told.try_iter().collect();
        told.iter().for_each(|(_, hint)| client.batch_execute(hint).unwrap());
        told.iter().filter(|(message, _)| message.contains("does not keep them")).count()
    };
    client.batch_execute("SELECT backlog_cleanup_set_policy('a', enabled => false, target => 't')").unwrap();
    assert_eq!(finding(&mut client, "policy").0, "ok");
    assert_eq!((held(&mut client), warned(&mut client)), (100, 0));
    client.batch_execute("SELECT backlog_cleanup_set_policy('a', status => 'dead', keep => 0, target => 't')").unwrap();
    assert_eq!((held(&mut client), warned(&mut client)), (50, 1));
    for (write, warnings) in [
        ("SELECT backlog_cleanup_set_policy('a', status => 'dead', keep => 1, target => 't')", 0),
        ("UPDATE backlog_cleanup.policy SET enabled = true WHERE recipe_id = 'a' AND status IS NULL", 0),
        ("UPDATE backlog_cleanup.policy SET enabled = false WHERE recipe_id = 'a' AND status IS NULL", 1),
    ] {
        client.batch_execute(write).unwrap();
        assert_eq!(warned(&mut client), warnings, "{write}");
    }
    let (status, detail, fix) = finding(&mut client, "policy");
    assert!(status == "warn" && fix.is_none() && detail.contains("does not keep them"), "{detail}");
    // A policy that comes from another target is told, and one whose target gets another name is not told again.
    client
        .batch_execute(
            "CREATE TABLE job_of_u (LIKE job INCLUDING ALL); INSERT INTO job_of_u TABLE job;
             INSERT INTO backlog_cleanup.target SELECT (jsonb_populate_record(t, '{\"name\": \"u\", \"generations_table\": \"public.job_of_u\"}')).*
             FROM backlog_cleanup.target t WHERE name = 't';
             DELETE FROM backlog_cleanup.policy WHERE target = 't' AND status IS NOT NULL;
             SELECT backlog_cleanup_set_policy('a', status => 'dead', keep => 0, target => 'u')",
        )
        .unwrap();
    warned(&mut client);
    for (write, warnings) in [
        ("UPDATE backlog_cleanup.policy SET target = 't' WHERE target = 'u' AND status = 'dead'", 1),
        ("UPDATE backlog_cleanup.target SET name = 't2' WHERE name = 't'", 0),
        ("UPDATE backlog_cleanup.target SET name = 't' WHERE name = 't2'", 0),
    ] {
        client.batch_execute(write).unwrap();
        assert_eq!(warned(&mut client), warnings, "{write}");
    }
    // A hold by both names keeps them.
    client
        .batch_execute("SELECT backlog_cleanup_set_policy('a', status => 'dead', enabled => false, target => 't')")
        .unwrap();
    assert_eq!(held(&mut client), 100);
    assert_eq!(finding(&mut client, "policy").0, "ok");
}

#[test]
fn of_two_policies_for_one_number_the_hold_is_obeyed_everywhere() {
    let cluster = Cluster::start("");
    let mut client = with_jobs(&cluster);
    let policies = "SELECT count(*) FROM backlog_cleanup.policy WHERE recipe_id IS NOT NULL";
    client.batch_execute("UPDATE job SET queue = '7'").unwrap();
    for (hold, other) in [("7", "07"), ("07", "7")] {
        client
            .batch_execute(&format!(
                "ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE text;
                 SELECT backlog_cleanup_set_policy('{hold}', enabled => false, target => 't'),
                        backlog_cleanup_set_policy('{other}', keep => 0, max_age => '0', target => 't');
                 ALTER TABLE job ALTER queue TYPE int USING queue::int"
            ))
            .unwrap();
        // Whichever of them the table has first.
        for touched in [hold, other] {
            client
                .batch_execute(&format!("UPDATE backlog_cleanup.policy SET note = 'x' WHERE recipe_id = '{touched}'"))
                .unwrap();
            assert_eq!(held(&mut client), 100, "{hold}: {touched}");
            let explained = "SELECT count(*) FROM job, backlog_cleanup_explain(id::text, 't') WHERE verdict = 'held'";
            assert_eq!(number(&mut client, explained), 100, "{hold}: {touched}");
            let simulated = "SELECT sum(removable_now)::bigint FROM backlog_cleanup_simulate(keep => 3, target => 't')";
            assert_eq!(number(&mut client, simulated), 0, "{hold}: {touched}");
            for run in ["SELECT backlog_cleanup_failed_generations('t')", "CALL backlog_cleanup_run('t')"] {
                client.batch_execute(run).unwrap();
                assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100, "{hold}: {touched}: {run}");
            }
        }
        // No third one comes beside them, and the hint takes away the one that no run obeys.
        let set = client.batch_execute("SELECT backlog_cleanup_set_policy('007', keep => 1, target => 't')");
        let refusal = set.unwrap_err();
        let refusal = refusal.as_db_error().unwrap();
        assert_eq!(refusal.code().code(), "42710", "{refusal:?}");
        let (status, detail, fix) = finding(&mut client, "policy");
        assert!(status == "fail" && detail.contains(&format!("not the one for group \"{other}\"")), "{detail}");
        assert_eq!(refusal.hint(), fix.as_deref());
        assert!(truth(&mut client, &fix.unwrap()));
        assert_eq!(held(&mut client), 100);

        // One is found however its number is written.
        let lift = "SELECT backlog_cleanup_set_policy('7', enabled => true, keep => 1, target => 't')";
        client.batch_execute(lift).unwrap();
        assert_eq!((held(&mut client), number(&mut client, policies)), (0, 1), "{hold}");
        let insert = "INSERT INTO backlog_cleanup.policy (target, recipe_id) VALUES ('t', '7')";
        assert_eq!(refused(client.batch_execute(insert)).0, "23505");
        let simulated =
            "SELECT sum(kept_then)::bigint FROM backlog_cleanup_simulate('7', max_age => '0', target => 't')";
        assert_eq!(number(&mut client, simulated), 1, "{hold}");
        assert!(truth(&mut client, "SELECT backlog_cleanup_drop_policy('007', target => 't')"));
        assert_eq!(number(&mut client, policies), 0, "{hold}");
    }
}

#[test]
fn who_writes_a_hold_is_told_of_a_run_at_work_that_does_not_obey_it() {
    let cluster = Cluster::start("");
    with_jobs(&cluster);
    let (notices, told) = channel();
    let mut client = cluster.connect_with_notices(notices);
    let hold = "SELECT backlog_cleanup_set_policy('a', enabled => false, target => 't')";
    client.batch_execute(hold).unwrap();
    client.batch_execute("SELECT backlog_cleanup_drop_policy('a', target => 't')").unwrap();
    assert!(told.try_iter().all(|(message, _)| !message.contains("at work")));
    let run = cluster.in_background("CALL backlog_cleanup_run('t', batch_size => 10, pause => '1 hour')");
    until_true(&mut client, "SELECT EXISTS (SELECT FROM backlog_cleanup.progress WHERE removed > 0)");
    client.batch_execute(hold).unwrap();
    client.batch_execute("SELECT backlog_cleanup_set_policy('a', keep => 1, target => 't')").unwrap();
    let warnings: Vec<_> = told.try_iter().filter(|(message, _)| message.contains("at work")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    client.batch_execute(&warnings[0].1).unwrap();
    run.join().unwrap().1.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 90);
}
