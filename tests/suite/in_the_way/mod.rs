//! What keeps a run from its rows.

mod by_key;
mod changes;
mod circles;
mod expressions;
mod many;
mod one_row;
mod references;
mod waits;

use cluster::number;
use postgres::Client;

/// The table of a target `t`: 100 failed rows of one recipe, of which a regular run removes the 90 oldest.
const JOB: &str = "
    CREATE TABLE job (id int PRIMARY KEY, owner text DEFAULT 'w', queue text DEFAULT 'a', state text DEFAULT 'failed',
                      at timestamptz, error text);
    INSERT INTO job (id, at) SELECT id, now() - interval '9 days' + id * interval '1 minute' FROM generate_series(1, 100) id;
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                        recipe_column, status_column, failed_at_column, failure_type_column, account)
    VALUES ('t', 'public.job', NULL, NULL, 'public.credit_transactions', 'owner', 'queue', 'state', 'at', 'error', 'w')";

/// The runs of `t`, in one transaction, in batches, by workers.
const RUNS: [&str; 6] = [
    "SELECT backlog_cleanup_failed_generations('t')",
    "SELECT backlog_cleanup_emergency('t')",
    "CALL backlog_cleanup_run('t', batch_size => 10)",
    "CALL backlog_cleanup_run('t', 'emergency', batch_size => 10)",
    "CALL backlog_cleanup_run('t', batch_size => 10, workers => 2)",
    "CALL backlog_cleanup_run('t', 'emergency', batch_size => 10, workers => 2)",
];

/// Does a run of `t`. Returns the rows removed and kept back, and the first reason: SQLSTATE, message, id. Panics unless
/// history, ledger and table say the same.
fn run(client: &mut Client, call: &str) -> (i64, i64, Option<String>, Option<String>, Option<String>) {
    let rows = number(client, "SELECT count(*) FROM job");
    client.batch_execute("TRUNCATE credit_transactions").unwrap();
    let report: serde_json::Value =
        client.query_one(call, &[]).unwrap_or_else(|failure| panic!("{call}: {:?}", failure.as_db_error())).get(0);
    let last = "SELECT removed, kept_back, kept_back_sqlstate, kept_back_message, kept_back_row
                FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    let last = client.query_one(last, &[]).unwrap();
    let (removed, kept_back) = (last.get(0), last.get(1));
    assert_eq!(rows - number(client, "SELECT count(*) FROM job"), removed, "{call}: {report}");
    assert_eq!(number(client, "SELECT sum(amount) FROM credit_transactions"), removed, "{call}");
    assert_eq!(report["keptBackCount"], kept_back, "{call}");
    assert_eq!(report["keptBackReason"].is_null(), kept_back == 0, "{call}: {report}");
    // A row for which an expression fails is of no policy.
    let is_read = !last.get::<_, Option<&str>>(3).is_some_and(|message| message.contains("fails for row"));
    for table in ["run_policy", "run_status"] {
        let sum = format!(
            "SELECT sum(kept_back)::bigint FROM backlog_cleanup.{table} WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)"
        );
        assert_eq!(number(client, &sum), if is_read { kept_back } else { 0 }, "{table}, {call}: {report}");
    }
    (removed, kept_back, last.get(2), last.get(3), last.get(4))
}

/// The rows of `t` that a regular run of `call` removes, of its 100, or an emergency run.
fn all(call: &str) -> i64 {
    if call.contains("emergency") { 100 } else { 90 }
}
