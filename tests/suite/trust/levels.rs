//! What a level sees and may do.

use cluster::{Cluster, number as count, refused, value};
use postgres::Client;

use super::{PRELUDE, database};

#[test]
fn a_monitor_learns_of_no_row_of_another_account() {
    let (_cluster, mut client) = database("rows_of_others");
    client.batch_execute("INSERT INTO job (id, owner) VALUES (101, 'other'); SET ROLE mon").unwrap();
    let verdict = |id: i32| format!("SELECT verdict || reason FROM backlog_cleanup_explain('{id}', 't')");
    let [of_another, of_none]: [String; 2] = [101, 102].map(|id| value(&mut client, &verdict(id)));
    assert_eq!(of_another, of_none);
    client.batch_execute("RESET ROLE").unwrap();
    assert!(value::<String>(&mut client, &verdict(101)).starts_with("out of scope"));
}

#[test]
fn an_error_shows_rows_to_those_only_who_have_the_rights_of_the_tables_owner() {
    let (_cluster, mut client) = database("discreet");
    client
        .batch_execute(
            "CREATE TABLE secret (job int REFERENCES job); INSERT INTO secret VALUES (77); ALTER TABLE secret OWNER TO app;
             ALTER TABLE ledger ADD CHECK (amount < 5), OWNER TO app",
        )
        .unwrap();
    let run = "SELECT backlog_cleanup_emergency('t')";
    let detail_for = |client: &mut Client, role: &str| {
        client.batch_execute(&format!("BEGIN; {role}")).unwrap();
        let failure = client.batch_execute(run).unwrap_err();
        client.batch_execute("ROLLBACK").unwrap();
        let error = failure.as_db_error().unwrap().clone();
        (error.code().code().to_owned(), error.message().to_owned(), error.detail().map(str::to_owned))
    };
    // What keeps a row back is told without the DETAIL, which has the key.
    let reason: String = value(&mut client, &format!("{run} ->> 'keptBackReason'"));
    assert!(
        reason.contains("\"secret_job_fkey\"") && reason.ends_with("(23503)") && !reason.contains("Key"),
        "{reason}"
    );
    client
        .batch_execute(
            "DROP TABLE secret; INSERT INTO job (id) SELECT generate_series(101, 199); UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'",
        )
        .unwrap();
    assert_eq!(detail_for(&mut client, "SET LOCAL ROLE op").2, None);
    assert!(detail_for(&mut client, "GRANT app TO op; SET LOCAL ROLE op").2.unwrap().contains("100"));
}

#[test]
fn a_level_is_revoked_and_granted_whatever_the_session_has_set() {
    let (cluster, mut client) = database("quoted");
    let executable = "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                      WHERE (p.proname ~ '^backlog_cleanup' OR n.nspname = 'backlog_cleanup')
                        AND p.proname <> 'backlog_cleanup_fingerprint'
                        AND has_function_privilege('op', p.oid, 'EXECUTE')";
    let before = count(&mut client, executable);
    client.batch_execute("SET quote_all_identifiers = on; SET search_path = pg_temp").unwrap();
    client.batch_execute("SELECT public.backlog_cleanup_revoke('op')").unwrap();
    assert_eq!(count(&mut client, executable), 0);
    client.batch_execute("SELECT public.backlog_cleanup_grant('op', 'operator')").unwrap();
    assert_eq!(count(&mut client, executable), before);

    let mut operator = cluster.connect_to("quoted");
    operator.batch_execute("SET quote_all_identifiers = on; SET SESSION AUTHORIZATION op").unwrap();
    operator.batch_execute("CALL backlog_cleanup_run('t', batch_size => 30)").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM public.job"), 10);
    assert_eq!(count(&mut operator, "SELECT count(*) FROM backlog_cleanup_doctor('t')"), {
        operator.batch_execute("RESET quote_all_identifiers").unwrap();
        count(&mut operator, "SELECT count(*) FROM backlog_cleanup_doctor('t')")
    });

    client.batch_execute("ALTER EXTENSION backlog_cleanup DROP FUNCTION public.backlog_cleanup_stop(bigint)").unwrap();
    let (sqlstate, message, _) = refused(client.batch_execute("SELECT public.backlog_cleanup_revoke('op')"));
    assert_eq!((sqlstate.as_str(), message.contains("backlog_cleanup_stop")), ("42704", true), "{message}");
}

#[test]
fn no_setting_of_the_caller_shows_values_of_rows() {
    let cluster = Cluster::start("");
    let (notices, said) = std::sync::mpsc::channel();
    let mut client = cluster.connect();
    client.batch_execute(PRELUDE).unwrap();
    client
        .batch_execute(
            "CREATE TABLE known (k int); ALTER TABLE known OWNER TO app;
             CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM 1 FROM public.known WHERE k = OLD.id + 123456000; RAISE LOG ''SECRET''; RETURN OLD; END';
             ALTER FUNCTION tr OWNER TO app;
             CREATE TRIGGER tr BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION tr()",
        )
        .unwrap();
    let mut operator = cluster.connect_with_notices(notices);
    operator
        .batch_execute(
            "SET SESSION AUTHORIZATION op; SET client_min_messages = log;
             SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on; SET debug_pretty_print = off",
        )
        .unwrap();
    operator.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 10);
    let said: Vec<String> = said.try_iter().map(|(message, _)| message).collect();
    assert!(said.iter().any(|message| message == "plan:"), "the operator's own statement");
    assert!(!said.iter().any(|message| message == "SECRET"));
    assert!(!cluster.logged().contains(":aliasname known"));
    // Who has the owner's rights may look.
    client.batch_execute("SET debug_print_plan = on; SELECT backlog_cleanup_emergency('t')").unwrap();
    assert!(cluster.logged().contains(":aliasname known"));
}
