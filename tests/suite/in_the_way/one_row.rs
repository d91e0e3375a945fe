//! What one row meets, and what is said of it.

use cluster::{Cluster, column, genuine_errors, number, refused, truth, veto};

use super::{JOB, RUNS, all, run};
use crate::batched::field;

#[test]
fn whatever_one_row_meets_it_alone_is_kept_back_and_its_reason_is_told() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE saved AS TABLE job;
             CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN RAISE EXCEPTION USING ERRCODE = TG_ARGV[0], MESSAGE = 'met'; END$$;
             CREATE FUNCTION modify() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE public.job SET error = 'x' WHERE id = OLD.id; RETURN OLD; END$$;
             CREATE FUNCTION calculate() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN PERFORM 1 / (OLD.id - 40); RETURN OLD; END$$;
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN LOCK TABLE public.locked IN EXCLUSIVE MODE NOWAIT; RETURN OLD; END$$;
             CREATE FUNCTION load() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN LOAD '/nowhere/library'; RETURN OLD; END$$;
             CREATE FUNCTION connect() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
                 $$BEGIN PERFORM dblink_connect('host=/nowhere'); RETURN OLD; END$$;
             CREATE FUNCTION confuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN PERFORM array_in('{1}', 0, -1); RETURN OLD; END$$;
             CREATE EXTENSION dblink;
             CREATE TABLE other (job int)",
        )
        .unwrap();
    let reference = |action: &str| {
        (
            format!("ALTER TABLE other ADD FOREIGN KEY (job) REFERENCES job {action}; INSERT INTO other VALUES (40)"),
            "DROP TABLE other; CREATE TABLE other (job int)".to_owned(),
        )
    };
    let trigger = |function: &str| {
        let when = if function == "calculate()" { "" } else { "WHEN (OLD.id = 40)" };
        let create = format!("CREATE TRIGGER t BEFORE DELETE ON job FOR EACH ROW {when} EXECUTE FUNCTION {function}");
        (create, "DROP TRIGGER t ON job".to_owned())
    };
    let is_18 = truth(&mut client, "SELECT current_setting('server_version_num')::int >= 180000");
    let restrict = if is_18 { "23001" } else { "23503" };
    let mut cases = vec![
        ("23503", reference("")),
        (restrict, reference("ON DELETE RESTRICT")),
        ("23503", reference("DEFERRABLE INITIALLY DEFERRED")),
        (
            "23502",
            (
                "ALTER TABLE other ALTER job SET NOT NULL, ADD FOREIGN KEY (job) REFERENCES job ON DELETE SET NULL;
                 INSERT INTO other VALUES (40)"
                    .to_owned(),
                reference("").1,
            ),
        ),
        (
            "23514",
            (
                "ALTER TABLE other ADD CHECK (job IS NOT NULL), ADD FOREIGN KEY (job) REFERENCES job ON DELETE SET NULL;
                 INSERT INTO other VALUES (40)"
                    .to_owned(),
                reference("").1,
            ),
        ),
        ("27000", trigger("modify()")),
        ("22012", trigger("calculate()")),
        // Errors of PostgreSQL's own, of what a trigger does.
        ("58P01", trigger("load()")),
        ("08001", trigger("connect()")),
        ("XX000", trigger("confuse()")),
    ];
    let raised = [
        "P0001", "23001", "0A000", "22003", "2F003", "42501", "42P01", "54001", "55000", "55P03", "P0004", "UR001",
        "XX001", "XX002", // Code chooses what it raises.
        "08006", "25006", "40001", "40P01", "53100", "53200", "57014", "57P01", "58030", "XX000",
    ];
    let meets: Vec<String> = raised.iter().map(|sqlstate| format!("meet('{sqlstate}')")).collect();
    cases.extend(raised.iter().zip(&meets).map(|(sqlstate, meet)| (*sqlstate, trigger(meet))));
    for (sqlstate, (create, drop)) in &cases {
        for call in RUNS {
            client.batch_execute(&format!("TRUNCATE job, other; INSERT INTO job TABLE saved; {create}")).unwrap();
            let (removed, kept_back, reason, message, row) = run(&mut client, call);
            let all = if call.contains("emergency") { 100 } else { 90 };
            assert_eq!((removed, kept_back), (all - 1, 1), "{sqlstate}, {call}");
            let told = (reason.as_deref(), row.as_deref());
            assert_eq!(told, (Some(*sqlstate), Some("40")), "{create}, {call}: {message:?}");
            client.batch_execute(drop).unwrap();
        }
    }
}

#[test]
fn what_is_not_about_a_row_ends_the_run() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    genuine_errors(&mut client);
    for sqlstate in ["57014", "57P01", "53100", "53200", "40001", "40P01", "58030"] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE TRIGGER t BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION meet('{sqlstate}', 'met')"
            ))
            .unwrap();
        for call in &RUNS[..2] {
            assert_eq!(refused(client.batch_execute(call)).0, sqlstate, "{call}");
        }
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100);
    }
    client
        .batch_execute(
            "DROP TRIGGER t ON job; CREATE ROLE the_owner; GRANT ALL ON SCHEMA public TO the_owner;
             ALTER TABLE job OWNER TO the_owner; REVOKE DELETE ON job FROM the_owner",
        )
        .unwrap();
    for call in &RUNS[..4] {
        assert_eq!(refused(client.batch_execute(call)).0, "42501", "{call}");
    }
}

#[test]
fn a_rule_that_keeps_a_row_keeps_no_other_and_archives_each_once() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("CREATE TABLE saved AS TABLE job; CREATE TABLE archive (LIKE job)").unwrap();
    let hold = "CREATE RULE hold AS ON DELETE TO job WHERE OLD.id = 40 DO INSTEAD NOTHING";
    let archive = "CREATE RULE keep AS ON DELETE TO job DO ALSO INSERT INTO archive SELECT OLD.*;
                   CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                   CREATE TRIGGER veto BEFORE DELETE ON job FOR EACH ROW WHEN (OLD.id = 40) EXECUTE FUNCTION veto()";
    let move_away = "CREATE RULE soft AS ON DELETE TO job WHERE OLD.id = 40
                     DO INSTEAD UPDATE job SET state = 'hidden' WHERE id = OLD.id";
    for (rule, drop) in [
        (hold, "DROP RULE hold ON job"),
        (move_away, "DROP RULE soft ON job"),
        (archive, "DROP RULE keep ON job; DROP TRIGGER veto ON job; DROP FUNCTION veto"),
    ] {
        for call in RUNS {
            client.batch_execute(&format!("TRUNCATE job, archive; INSERT INTO job TABLE saved; {rule}")).unwrap();
            let (removed, kept_back, _, _, row) = run(&mut client, call);
            let all = if call.contains("emergency") { 100 } else { 90 };
            assert_eq!((removed, kept_back, row.as_deref()), (all - 1, 1, Some("40")), "{rule}, {call}");
            if rule == archive {
                let archived = "SELECT count(*) * 1000 + count(DISTINCT id) FROM archive WHERE id <> 40";
                assert_eq!(number(&mut client, archived), removed * 1001, "{call}");
                assert_eq!(number(&mut client, "SELECT count(*) FROM archive WHERE id = 40"), 0, "{call}");
            }
            client.batch_execute(drop).unwrap();
        }
    }
}

#[test]
fn a_rehearsal_tells_what_a_run_would_do_and_leaves_nothing_but_a_sequence() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE fired;
             CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$BEGIN PERFORM nextval('public.fired'); RETURN OLD; END$$;
             CREATE TRIGGER count AFTER DELETE ON job FOR EACH ROW EXECUTE FUNCTION count_up();
             CREATE TABLE holding (job int REFERENCES job); INSERT INTO holding VALUES (40)",
        )
        .unwrap();
    for (call, all, count) in [
        ("backlog_cleanup_failed_generations('t', rehearse => true)", 90, "cleanedUpGenerations"),
        ("backlog_cleanup_emergency('t', rehearse => true)", 100, "removedCount"),
    ] {
        let report: serde_json::Value = client.query_one(&format!("SELECT {call}"), &[]).unwrap().get(0);
        assert_eq!((&report[count], &report["keptBackCount"]), (&(all - 1).into(), &1.into()), "{report}");
        assert!(field(&report, "keptBackReason").starts_with("row 40: update or delete on table"), "{report}");
        assert!(
            report["runId"].is_null() && report["dryRun"] == true && report["walBytes"].as_i64() > Some(1000),
            "{report}"
        );
        assert!(field(&report, "message").contains("triggers ran"), "{report}");
    }
    let written = "SELECT (SELECT count(*) FROM backlog_cleanup.run) + (SELECT count(*) FROM credit_transactions)
                        + (SELECT 100 - count(*) FROM job)";
    assert_eq!(number(&mut client, written), 0);
    assert!(number(&mut client, "SELECT last_value FROM fired") >= 188);
    for function in ["failed_generations", "emergency"] {
        let both = format!("SELECT backlog_cleanup_{function}('t', dry_run => true, rehearse => true)");
        assert_eq!(refused(client.batch_execute(&both)).0, "22023");
        // It takes its target as a run does, and gives it back.
        let mut other = cluster.connect();
        other.batch_execute("BEGIN; SELECT backlog_cleanup_emergency('t')").unwrap();
        let rehearsal = format!("SELECT backlog_cleanup_{function}('t', rehearse => true)");
        assert_eq!(refused(client.batch_execute(&rehearsal)).0, "55P03");
        other.batch_execute("ROLLBACK").unwrap();
        client.batch_execute(&format!("BEGIN; {rehearsal}")).unwrap();
        other.batch_execute("BEGIN; SELECT backlog_cleanup_emergency('t'); ROLLBACK").unwrap();
        client.batch_execute("COMMIT").unwrap();
    }
}

#[test]
fn the_doctor_warns_of_rows_that_the_last_run_has_kept_back() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("CREATE TABLE holding (job int REFERENCES job); INSERT INTO holding VALUES (40)").unwrap();
    let finding = "SELECT status || ': ' || detail || ' -> ' || coalesce(fix, '') FROM backlog_cleanup_doctor('t')
                   WHERE check_name = 'kept_back'";
    run(&mut client, RUNS[0]);
    let found: Vec<String> = column(&mut client, finding);
    let [found] = &found[..] else { panic!("{found:?}") };
    assert!(found.starts_with("warn: run 1 has kept back 1 row: row 40: update or delete"), "{found}");
    assert!(found.ends_with("(23503) -> "), "{found}");
    client.batch_execute("TRUNCATE holding").unwrap();
    run(&mut client, RUNS[0]);
    assert!(column::<String>(&mut client, finding)[0].starts_with("ok"));
    // What is lost of a row stays lost: somebody has to see to it.
    client
        .batch_execute(
            "INSERT INTO job (id, at) VALUES (40, '2001-01-01');
             CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN RAISE 'missing chunk number 0' USING ERRCODE = 'data_corrupted'; END$$;
             CREATE TRIGGER lost BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION lost()",
        )
        .unwrap();
    run(&mut client, RUNS[0]);
    let found: Vec<String> = column(&mut client, finding);
    assert!(
        found[0].starts_with("fail: run 3 has kept back 1 row: row 40: missing chunk number 0 (XX001)"),
        "{found:?}"
    );
}

#[test]
fn a_run_that_needs_too_much_memory_says_that_smaller_batches_need_less() {
    let cluster = Cluster::start("max_locks_per_transaction = 12\nmax_connections = 10\nmax_worker_processes = 2\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, at) SELECT i, now() - interval '9 days' FROM generate_series(1001, 20000) i;
             CREATE FUNCTION locks() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN PERFORM pg_advisory_xact_lock(OLD.id); RETURN OLD; END$$;
             CREATE TRIGGER locks BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION locks();
             -- A name that would be statements of its own, were it in a comment.
             UPDATE backlog_cleanup.target SET name = E't\\n; DROP TABLE job; --' WHERE name = 't'",
        )
        .unwrap();
    for (call, batch_size) in [
        (r"SELECT backlog_cleanup_failed_generations(E't\n; DROP TABLE job; --')", 1000),
        (r"CALL backlog_cleanup_run(E't\n; DROP TABLE job; --', batch_size => 5000)", 500),
    ] {
        let (sqlstate, message, hint) = refused(client.batch_execute(call));
        assert_eq!((sqlstate.as_str(), message.as_str()), ("53200", "out of shared memory"), "{call}");
        client.batch_execute(&hint).unwrap();
        let set = "SELECT batch_size::bigint FROM backlog_cleanup.target WHERE starts_with(name, 't')";
        assert_eq!(number(&mut client, set), batch_size, "{call}");
    }
    client.batch_execute(r"CALL backlog_cleanup_run(E't\n; DROP TABLE job; --', batch_size => 100)").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 10);
}

#[test]
fn a_rule_that_deletes_as_many_rows_of_another_table_keeps_all_back() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client
        .batch_execute(
            "CREATE TABLE other AS SELECT id FROM job;
             CREATE RULE instead AS ON DELETE TO job DO INSTEAD DELETE FROM other WHERE id = OLD.id",
        )
        .unwrap();
    for call in RUNS {
        run(&mut client, call);
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100, "{call}");
        assert_eq!(number(&mut client, "SELECT sum(removed) FROM backlog_cleanup.run"), 0, "{call}");
    }
}

#[test]
fn the_doctor_tells_what_a_run_passes_over_or_takes_along() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    let found = "SELECT status || ' ' || split_part(detail, ':', 1) FROM backlog_cleanup_doctor('t') WHERE check_name = 'triggers'";
    for (harm, tells) in [
        ("ALTER TABLE job ADD parent int REFERENCES job ON DELETE CASCADE", "warn foreign key job_parent_fkey of public.job to itself"),
        (
            "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TABLE part () INHERITS (job);
             CREATE TRIGGER seen AFTER DELETE ON job FOR EACH STATEMENT EXECUTE FUNCTION seen()",
            "fail statement trigger \"seen\" of \"public.job\" would not fire",
        ),
        (
            "CREATE TABLE part () INHERITS (job); CREATE RULE hold AS ON DELETE TO job DO INSTEAD NOTHING",
            "fail rule \"hold\" of \"public.job\" would not apply",
        ),
    ] {
        client.batch_execute(&format!("BEGIN; {harm}")).unwrap();
        let all: Vec<String> = column(&mut client, found);
        assert!(all.iter().any(|problem| problem.starts_with(tells)), "{harm}: {all:?}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn a_row_of_a_recipe_with_a_long_id_stays_alone() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(JOB).unwrap();
    client.batch_execute("UPDATE job SET queue = repeat('q', 2000); CREATE TABLE saved AS TABLE job").unwrap();
    veto(&mut client, "job", "OLD.id = 7");
    for call in RUNS {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let (removed, kept_back, .., row) = run(&mut client, call);
        assert_eq!((removed, kept_back, row.as_deref()), (all(call) - 1, 1, Some("7")), "{call}");
    }
}
