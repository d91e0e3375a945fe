//! Targets over HTTP: read, added, changed, dropped.

mod server;

use cluster::{fail, number, value};
use serde_json::{Value, json};
use server::{ADMIN, Answer, BASE, MONITOR, OPERATOR, Server, bearer, start};

fn ask(server: &Server, method: &str, token: &str, path: &str, body: &Value) -> Answer {
    let headers = [("authorization", &*bearer(token)), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.send(method, &format!("{BASE}/{path}"), &headers, &body)
}

/// A table of the admin's own, and the target of it.
const JOBS: &str = "
    CREATE TABLE job (id bigserial PRIMARY KEY, queue text, state text, finished_at timestamptz, error text);
    ALTER TABLE job OWNER TO backlog_admin;
    INSERT INTO job (queue, state, finished_at, error)
    SELECT 'mail', 'cancelled', now() - i * interval '1 hour', 'timeout' FROM generate_series(1, 50) i;";

fn jobs() -> Value {
    json!({
        "name": "its jobs/1", "generations_table": "public.job", "recipes_table": null, "users_table": null,
        "ledger_table": null, "account_column": null, "account": null, "recipe_column": "queue", "status_column": "state",
        "statuses": ["failed", "cancelled"], "failed_at_column": "finished_at", "failure_type_column": "error",
    })
}

#[test]
fn a_target_is_added_changed_and_dropped() {
    let (_cluster, mut client, server) = start("targets", &[]);
    client.batch_execute(JOBS).unwrap();
    let added = ask(&server, "POST", ADMIN, "targets", &jobs());
    assert_eq!(added.status, 201, "{added:?}");
    // Every row of the table is at stake.
    let warnings = &added.json()["warnings"];
    assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{added:?}");
    let place = "targets/its%20jobs%2F1";
    assert_eq!(added.header("location"), format!("{BASE}/{place}"));
    assert_eq!(server.post(OPERATOR, &format!("{BASE}/run?target=its+jobs/1"), "").json()["cleanedUpGenerations"], 17);

    let columns = |answer: &Answer| -> Value {
        let columns = answer.json()["columns"].as_array().expect("columns").clone();
        columns.iter().map(|it| (it["column"].as_str().unwrap().to_owned(), it["value"].clone())).collect()
    };
    let change = json!({"batch_size": 5000, "pause": "100 ms", "condition": "(id > 5)", "statuses": ["cancelled"], "max_share": "50"});
    let changed = ask(&server, "PATCH", ADMIN, place, &change);
    assert_eq!((changed.status, &changed.json()["warnings"]), (200, &json!([])), "{changed:?}");
    let row: String =
        value(&mut client, "SELECT to_jsonb(t)::text FROM backlog_cleanup.target t WHERE name <> 'generations'");
    let row: Value = serde_json::from_str(&row).unwrap();
    assert_eq!(columns(&changed), row);
    assert_eq!(
        (&row["pause"], &row["condition"], &row["max_share"]),
        (&json!("00:00:00.1"), &json!("((id OPERATOR(pg_catalog.>) 5))"), &json!(50))
    );
    let one = server.get(MONITOR, &format!("{BASE}/{place}"));
    assert_eq!(columns(&one), row);
    assert_eq!(server.get(MONITOR, &format!("{BASE}/targets")).json()["targets"][1], row);
    assert!(one.body.contains("\"column\":\"batch_size\",\"type\":\"integer\",\"value\":5000,\"default\":\"10000\",\"meaning\":\"rows per batch"), "{one:?}");

    let renamed = ask(&server, "PATCH", ADMIN, place, &json!({"name": "jobs"}));
    assert_eq!(renamed.json()["name"], "jobs", "{renamed:?}");
    for dropped in [true, false] {
        let answer = ask(&server, "DELETE", ADMIN, "targets/jobs", &Value::Null).json();
        assert_eq!(answer, json!({"success": true, "name": "jobs", "dropped": dropped}));
    }
    server.until_logged("target is written who=\"backlog_admin\"");
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
fn a_run_is_limited_to_a_status_and_says_what_it_did_to_each() {
    let (_cluster, mut client, server) = start("statuses", &[]);
    client.batch_execute(&format!("{JOBS}{FAILED_JOBS}")).unwrap();
    let mut target = jobs();
    (target["group_word"], target["row_word"]) = (json!("queue"), json!("job"));
    assert_eq!(ask(&server, "POST", ADMIN, "targets", &target).status, 201);
    let target = "target=its+jobs/1";
    let status = server.get(MONITOR, &format!("{BASE}/status?{target}")).json();
    assert_eq!(
        (&status["groupWord"], &status["rowWord"], &status["inScope"]),
        (&json!("queue"), &json!("job"), &json!(81))
    );
    assert_eq!(
        status["statuses"],
        json!([{"status": "cancelled", "count": 50}, {"status": "failed", "count": 31}, {"status": "available", "count": 3}])
    );
    let post = |path: &str| server.post(OPERATOR, &format!("{BASE}/{path}&{target}"), "");
    assert_eq!(post("emergency?dryRun=true&status=cancelled").json()["removedCount"], 50);
    let report = post("run?status=failed").json();
    let statuses = json!([
        {"status": "failed", "inScope": 31, "removed": 2, "kept": 29, "keptBack": 1},
        {"status": "cancelled", "inScope": 50, "removed": 0, "kept": 50, "keptBack": 0},
    ]);
    assert_eq!((&report["statuses"], &report["policies"][0]["keptBack"]), (&statuses, &json!(1)));
    let run = server.get(MONITOR, &format!("{BASE}/runs/1")).json();
    assert_eq!((&run["statuses"], &run["policies"]), (&statuses, &report["policies"]));
    assert_eq!((&run["status"], &run["rowWord"]), (&json!("failed"), &json!("job")));
    // It says nothing of what a whole run does.
    let policies = server.get(MONITOR, &format!("{BASE}/policies?{target}")).json();
    assert_eq!(policies["policies"][0]["runId"], Value::Null);
    let written = ask(&server, "PUT", ADMIN, &format!("policies?recipeId=mail&{target}"), &json!({"keep": 2})).json();
    assert_eq!(written["policy"], "queue \"mail\"");
    let dropped = ask(&server, "DELETE", ADMIN, &format!("policies?recipeId=mail&{target}"), &Value::Null).json();
    assert_eq!(dropped["policy"], "queue \"mail\"");
    for status in ["available", "nothing"] {
        let refused = post(&format!("run?status={status}"));
        assert_eq!((refused.status, &refused.json()["sqlstate"]), (400, &json!("22023")), "{refused:?}");
    }
}

#[test]
fn a_target_that_cannot_be_is_a_problem_and_nothing_is_written() {
    let (_cluster, mut client, server) = start("target_problems", &[]);
    client.batch_execute(JOBS).unwrap();
    let before = number(
        &mut client,
        "SELECT hashtext(string_agg(t::text, '' ORDER BY name))::bigint FROM backlog_cleanup.target t",
    );
    let with = |column: &str, value: Value| {
        let mut jobs = jobs();
        jobs[column] = value;
        jobs
    };
    for (method, path, body, status, sqlstate) in [
        ("POST", "targets", json!({}), 400, "22023"),
        ("POST", "targets", json!({"name": 7}), 400, "22023"),
        ("POST", "targets", json!([]), 400, "22023"),
        ("POST", "targets", with("name", json!("generations")), 409, "23505"),
        ("POST", "targets", with("queue", json!("mail")), 400, "42703"),
        ("POST", "targets", with("ctid", json!("(0,1)")), 400, "42703"),
        ("POST", "targets", with("account", json!({})), 400, "22023"),
        ("POST", "targets", with("account", json!("\0")), 400, "22P05"),
        ("POST", "targets", with("batch_size", json!("many")), 400, "22P02"),
        ("POST", "targets", with("batch_size", json!(0)), 400, "23514"),
        ("POST", "targets", with("condition", json!("(id > (SELECT 1))")), 400, "0A000"),
        ("PATCH", "targets/generations", Value::Null, 400, "22023"),
        ("PATCH", "targets/generations", json!({"statuses": null}), 400, "23502"),
        ("PATCH", "targets/nothing", json!({"pause": "0"}), 404, "42704"),
        ("GET", "targets/nothing", Value::Null, 404, "42704"),
        ("PUT", "targets/generations", Value::Null, 405, "22023"),
        // The table is another role's.
        ("PATCH", "targets/generations", json!({"generations_table": "public.recipes"}), 403, "42501"),
    ] {
        let answer = ask(&server, method, ADMIN, path, &body);
        assert_eq!(
            (answer.status, answer.json()["sqlstate"].as_str()),
            (status, Some(sqlstate)),
            "{method} {path} {body}: {answer:?}"
        );
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    // All problems at once.
    let mut several = with("recipe_column", json!("quue"));
    several["status_column"] = json!("sate");
    let answer = ask(&server, "POST", ADMIN, "targets", &several);
    assert!(answer.status == 400 && answer.body.contains("quue") && answer.body.contains("sate"), "{answer:?}");
    let after = number(
        &mut client,
        "SELECT hashtext(string_agg(t::text, '' ORDER BY name))::bigint FROM backlog_cleanup.target t",
    );
    assert_eq!(after, before);
}

#[test]
fn a_monitor_reads_targets_and_an_admin_writes_them() {
    let (_cluster, mut client, server) = start("target_levels", &[]);
    fail(&mut client, 1, 1);
    for path in ["targets", "targets/generations"] {
        assert_eq!(server.get(MONITOR, &format!("{BASE}/{path}")).status, 200, "{path}");
    }
    for (method, path, body) in [
        ("POST", "targets", json!({"name": "other"})),
        ("PATCH", "targets/generations", json!({"pause": "1 s"})),
        ("DELETE", "targets/generations", Value::Null),
    ] {
        for token in [MONITOR, OPERATOR] {
            let refused = ask(&server, method, token, path, &body);
            assert_eq!((refused.status, &refused.json()["hint"]), (403, &json!("a token of level admin")));
        }
    }
    client.batch_execute("SELECT backlog_cleanup_revoke('backlog_admin')").unwrap();
    let refused = ask(&server, "PATCH", ADMIN, "targets/generations", &json!({"pause": "1 s"}));
    let hint = "SELECT backlog_cleanup_grant('backlog_admin', 'admin')";
    assert_eq!((refused.status, &refused.json()["hint"]), (403, &json!(hint)));
}
