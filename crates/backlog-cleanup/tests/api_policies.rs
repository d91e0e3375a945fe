//! Policies over HTTP: read, simulated, written; and why a row stays.

mod server;

use cluster::{fail, number};
use serde_json::{Value, json};
use server::{ADMIN, Answer, BASE, MONITOR, OPERATOR, bearer, start};

fn ask(server: &server::Server, method: &str, token: &str, path: &str, body: &Value) -> Answer {
    let headers = [("authorization", &*bearer(token)), ("content-type", "application/json")];
    server.send(
        method,
        &format!("{BASE}/{path}"),
        &headers,
        &if body.is_null() { String::new() } else { body.to_string() },
    )
}

#[test]
fn a_policy_is_simulated_written_obeyed_and_dropped() {
    let (_cluster, mut client, server) = start("policies", &[]);
    fail(&mut client, 1, 15);
    fail(&mut client, 2, 12);
    let get = |path: &str| server.get(MONITOR, &format!("{BASE}/{path}")).json();
    let simulated = get("policies/simulate?recipeId=1&keep=2");
    assert_eq!(
        simulated["groups"],
        json!([
            {"policy": "recipe \"1\"", "recipeId": "1", "recipeName": "Bread", "removableNow": 0, "keptNow": 0,
             "removableThen": 13, "keptThen": 2},
            {"policy": "default", "recipeId": "2", "recipeName": "Soup", "removableNow": 2, "keptNow": 10,
             "removableThen": 2, "keptThen": 10},
            {"policy": "default", "recipeId": "1", "recipeName": "Bread", "removableNow": 5, "keptNow": 10,
             "removableThen": 0, "keptThen": 0},
        ])
    );
    let written = ask(&server, "PUT", ADMIN, "policies?recipeId=1", &json!({"keep": 2, "note": "less bread"}));
    assert_eq!(written.status, 200, "{written:?}");
    let written = written.json();
    assert_eq!(
        (&written["policy"], &written["maxAge"], &written["keep"]),
        (&json!("recipe \"1\""), &json!("24:00:00"), &json!(2))
    );
    assert_eq!(written["warnings"], json!([]));
    // What is not in the body stays.
    let changed = ask(&server, "PUT", ADMIN, "policies?recipeId=1", &json!({"maxKeepAge": "90 days"})).json();
    assert_eq!((&changed["keep"], &changed["maxKeepAge"]), (&json!(2), &json!("90 days")));
    let simulated = get("policies/simulate?recipeId=1&noMaxKeepAge=true");
    assert_eq!(simulated["success"], true, "{simulated}");
    let back = json!({"noMaxKeepAge": true, "note": ""});
    let back = ask(&server, "PUT", ADMIN, "policies?recipeId=1", &back).json();
    assert_eq!((&back["keep"], &back["maxKeepAge"], &back["note"]), (&json!(2), &json!(null), &json!(null)));
    assert_eq!(server.post(OPERATOR, &format!("{BASE}/run"), "").json()["cleanedUpGenerations"], 15);
    let list = get("policies");
    let rows = |place: usize| {
        [&list["policies"][place]["policy"], &list["policies"][place]["inScope"], &list["policies"][place]["removed"]]
    };
    assert_eq!(rows(0), [&json!("recipe \"1\""), &json!(15), &json!(13)]);
    assert_eq!(rows(1), [&json!("default"), &json!(12), &json!(2)]);

    // The run has the same.
    let run = get("runs/1");
    assert_eq!(
        run["policies"],
        json!([
            {"recipeId": "1", "failureType": null, "status": null, "inScope": 15, "removed": 13, "kept": 2, "keptBack": 0},
            {"recipeId": null, "failureType": null, "status": null, "inScope": 12, "removed": 2, "kept": 10, "keptBack": 0},
        ])
    );
    let warned = ask(&server, "PUT", ADMIN, "policies?recipeId=77", &json!({"keep": 1})).json();
    assert_eq!(warned["warnings"], json!(["target \"generations\" has no generation now that this policy is for"]));
    ask(&server, "DELETE", ADMIN, "policies?recipeId=77", &Value::Null);

    // A hold stays in an emergency, which says so, unless it is included.
    assert_eq!(ask(&server, "PUT", ADMIN, "policies?recipeId=1", &json!({"enabled": false})).json()["enabled"], false);
    let emergency = server.post(OPERATOR, &format!("{BASE}/emergency"), "").json();
    assert_eq!((&emergency["removedCount"], &emergency["heldCount"]), (&json!(10), &json!(2)));
    assert_eq!(server.post(OPERATOR, &format!("{BASE}/run?includeHeld=true"), "").status, 400);
    let emergency = server.post(OPERATOR, &format!("{BASE}/emergency?includeHeld=true"), "").json();
    assert_eq!((&emergency["removedCount"], &emergency["heldCount"]), (&json!(2), &json!(0)));
    for dropped in [true, false] {
        let answer = ask(&server, "DELETE", ADMIN, "policies?recipeId=1", &Value::Null).json();
        assert_eq!(answer, json!({"success": true, "policy": "recipe \"1\"", "dropped": dropped}));
    }
    server.until_logged("policy is written who=\"backlog_admin\"");
}

#[test]
fn a_row_is_explained() {
    let (_cluster, mut client, server) = start("explained", &[]);
    fail(&mut client, 1, 15);
    let explain = |id: &str| server.get(MONITOR, &format!("{BASE}/explain/{id}"));
    let oldest = number(&mut client, "SELECT id::bigint FROM generations ORDER BY updated_at, id LIMIT 1");
    let verdict = explain(&oldest.to_string()).json();
    for (member, expected) in
        [("verdict", json!("removable")), ("policy", json!("default")), ("keep", json!(10)), ("rank", json!(15))]
    {
        assert_eq!(verdict[member], expected, "{verdict}");
    }
    assert!(verdict["expiresAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{verdict}");
    assert_eq!(explain("0").json()["verdict"], "no such row");
    assert_eq!(explain("bread").status, 400);
}

#[test]
fn a_monitor_reads_and_an_admin_writes() {
    let (_cluster, mut client, server) = start("policy_levels", &[]);
    fail(&mut client, 1, 1);
    for path in ["policies", "policies/simulate?keep=0", "explain/1"] {
        assert_eq!(server.get(MONITOR, &format!("{BASE}/{path}")).status, 200, "{path}");
    }
    for method in ["PUT", "DELETE"] {
        for token in [MONITOR, OPERATOR] {
            let refused = ask(&server, method, token, "policies?recipeId=1", &Value::Null);
            assert_eq!((refused.status, &refused.json()["hint"]), (403, &json!("a token of level admin")));
        }
        assert_eq!(ask(&server, method, ADMIN, "policies?recipeId=1", &Value::Null).status, 200);
    }
    // The database refuses what the role may not do.
    client.batch_execute("SELECT backlog_cleanup_revoke('backlog_admin')").unwrap();
    let refused = ask(&server, "PUT", ADMIN, "policies?recipeId=1", &Value::Null);
    assert_eq!(
        (refused.status, &refused.json()["hint"]),
        (403, &json!("SELECT backlog_cleanup_grant('backlog_admin', 'admin')"))
    );
}

#[test]
fn a_policy_that_cannot_be_is_a_problem() {
    let (_cluster, mut client, server) = start("policy_problems", &[]);
    fail(&mut client, 1, 1);
    for (method, path, body, status) in [
        ("PUT", "policies?recipeId=bread", Value::Null, 400),
        ("PUT", "policies?status=pending", Value::Null, 400),
        ("PUT", "policies?recipeid=1", Value::Null, 400),
        ("PUT", "policies", json!({"maxage": "1 day"}), 400),
        ("PUT", "policies", json!({"maxAge": "soon"}), 400),
        ("PUT", "policies", json!({"keep": -1}), 400),
        ("PUT", "policies", json!({"maxKeepAge": "1 second"}), 400),
        ("PUT", "policies?target=nothing", Value::Null, 404),
        ("DELETE", "policies", Value::Null, 400),
        ("DELETE", "policies?target=nothing&recipeId=1", Value::Null, 404),
        ("GET", "policies?target=nothing", Value::Null, 404),
        ("GET", "policies/simulate?target=nothing", Value::Null, 404),
        ("GET", "policies/simulate?keep=-1", Value::Null, 400),
        ("GET", "policies/simulate?keep=many", Value::Null, 400),
        ("GET", "policies/simulate?maxAge=soon", Value::Null, 400),
        ("GET", "explain/1?target=nothing", Value::Null, 404),
        ("POST", "policies", Value::Null, 405),
    ] {
        let answer = ask(&server, method, ADMIN, path, &body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["sqlstate"].as_str().map(str::len), Some(5), "{answer:?}");
    }
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM backlog_cleanup.policy WHERE keep = 10 AND max_age = '24 hours'"),
        1
    );
}
