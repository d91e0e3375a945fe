//! The admin API over HTTP: the platform's endpoints, and all others.

mod server;

use cluster::{column, fail, number};
use serde_json::{Value, json};
use server::{ADMIN, Answer, BASE, MONITOR, OPERATOR, Server, bearer, start};

/// Whether a document has all members of a sample, with the same types.
fn has_shape(document: &Value, sample: &Value) -> bool {
    match (document, sample) {
        (Value::Object(document), Value::Object(sample)) => {
            sample.iter().all(|(name, sample)| document.get(name).is_some_and(|value| has_shape(value, sample)))
        }
        (Value::Array(values), Value::Array(sample)) => values.iter().all(|value| has_shape(value, &sample[0])),
        (Value::Number(value), Value::Number(_)) => value.is_i64(),
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => true,
        _ => false,
    }
}

fn assert_problem(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    for member in ["title", "detail", "hint"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
    }
    assert_eq!(problem["sqlstate"].as_str().map(str::len), Some(5), "{problem}");
    problem
}

#[test]
fn the_three_endpoints_answer_as_the_platform_has_them() {
    let (_cluster, mut client, server) = start("platform", &[]);
    fail(&mut client, 1, 15);
    fail(&mut client, 2, 3);

    let status = server.get(MONITOR, &format!("{BASE}/status"));
    let sample = json!({
        "success": true, "totalGenerations": 1, "completedGenerations": 1, "failedGenerations": 1, "pendingGenerations": 1,
        "processingGenerations": 1,
        "recipesWithFailedGenerations": [{"recipeId": 1, "recipeName": "", "failedCount": 1, "oldestFailedAge": ""}]
    });
    assert!(status.status == 200 && has_shape(&status.json(), &sample), "{status:?}");
    assert_eq!(status.json()["failedGenerations"], 18);
    assert_eq!(status.json()["recipesWithFailedGenerations"][0]["recipeName"], "Bread");
    assert_eq!(status.json()["recipesWithFailedGenerations"][0]["oldestFailedAge"], "2 days ago");

    // As the platform's backend calls it, without a body and a type.
    let run = server.send("POST", &format!("{BASE}/run"), &[("authorization", &bearer(OPERATOR))], "");
    let sample = json!({
        "success": true, "message": "", "totalFailedGenerations": 1, "cleanedUpGenerations": 1, "recipesAffected": 1,
        "cleanupDetails": [{"recipeId": 1, "recipeName": "", "failedCount": 1, "cleanedCount": 1, "keptCount": 1}]
    });
    assert!(run.status == 200 && has_shape(&run.json(), &sample), "{run:?}");
    assert_eq!(run.json()["message"], "Backlog cleanup completed successfully");
    assert_eq!(run.json()["cleanedUpGenerations"], 5);
    assert_eq!(
        run.json()["cleanupDetails"][0],
        json!({"recipeId": 1, "recipeName": "Bread", "failedCount": 15, "cleanedCount": 5, "keptCount": 10})
    );

    let emergency = server.post(OPERATOR, &format!("{BASE}/emergency"), "");
    let sample = json!({"success": true, "message": "", "removedCount": 1, "recipesAffected": 1});
    assert!(emergency.status == 200 && has_shape(&emergency.json(), &sample), "{emergency:?}");
    assert_eq!(emergency.json()["message"], "Emergency backlog cleanup completed successfully");
    assert_eq!(emergency.json()["removedCount"], 13);

    let by: Vec<String> = column(&mut client, "SELECT requested_by::text FROM backlog_cleanup.run ORDER BY id");
    assert_eq!(by, ["backlog_operator", "backlog_operator"]);
    server.until_logged("run begins who=\"backlog_operator\" from=127.0.0.1:");
    assert!(!server.log().contains(OPERATOR), "{}", server.log());
}

#[test]
fn selections_and_dry_runs_go_through_and_a_mistyped_one_is_refused() {
    let (_cluster, mut client, server) = start("selections", &[]);
    fail(&mut client, 1, 15);
    fail(&mut client, 2, 12);
    let run = |query: &str| server.post(OPERATOR, &format!("{BASE}/run?{query}"), "").json();
    assert_eq!(run("dryRun=true")["cleanedUpGenerations"], 7);
    assert_eq!(run("dryRun=true&recipeId=2")["cleanedUpGenerations"], 2);
    assert_eq!(run("dryRun=true&failureType=timeout")["cleanedUpGenerations"], 0);
    let emergency = server.post(OPERATOR, &format!("{BASE}/emergency?dryRun=true&recipeId=1"), "").json();
    assert_eq!((&emergency["dryRun"], &emergency["removedCount"]), (&json!(true), &json!(15)));
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 27);
    for (path, body) in [
        ("run?dryrun=true", ""),
        ("run?dryRun=yes", ""),
        ("run?recipeId=bread", ""),
        ("run?recipeId=%00", ""),
        ("run", "{\"expectedcount\": 1}"),
        ("run", "{\"expectedCount\": -1}"),
        ("run", "{\"expectedCount\": \"1\"}"),
        ("run", "[]"),
    ] {
        assert_problem(&server.post(OPERATOR, &format!("{BASE}/{path}"), body), 400);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM generations"), 27);
    let plain = [("authorization", bearer(OPERATOR)), ("content-type", "text/plain".into())];
    let plain = plain.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_problem(&server.send("POST", &format!("{BASE}/run"), &plain, "{\"expectedCount\": 1}"), 415);
    assert_eq!(run("recipeId=2")["cleanedUpGenerations"], 2);
}

#[test]
fn what_was_confirmed_is_what_happens() {
    let (_cluster, mut client, server) = start("confirmed", &[]);
    fail(&mut client, 1, 110);
    for (path, field, would_go) in [("run", "cleanedUpGenerations", 100), ("emergency", "removedCount", 110)] {
        let confirm =
            |count: i64| server.post(OPERATOR, &format!("{BASE}/{path}"), &json!({"expectedCount": count}).to_string());
        for count in [0, 90 * would_go / 100, 2 * would_go, i64::MAX] {
            let problem = assert_problem(&confirm(count), 409);
            assert_eq!((&problem["expectedCount"], &problem["actualCount"]), (&json!(count), &json!(would_go)));
        }
        let done = confirm(would_go + would_go / 20);
        assert_eq!((done.status, &done.json()[field]), (200, &json!(would_go)), "{done:?}");
        fail(&mut client, 1, 100);
    }
}

#[test]
fn each_level_has_what_the_database_gives_its_role() {
    let (cluster, mut client, server) = start("levels", &[]);
    fail(&mut client, 1, 15);
    for token in [MONITOR, OPERATOR, ADMIN] {
        for path in ["status", "runs", "doctor"] {
            assert_eq!(server.get(token, &format!("{BASE}/{path}")).status, 200);
        }
    }
    for path in ["run", "emergency", "run?dryRun=true", "runs/1/stop"] {
        let problem = assert_problem(&server.post(MONITOR, &format!("{BASE}/{path}"), ""), 403);
        assert_eq!((&problem["sqlstate"], &problem["hint"]), (&"42501".into(), &"a token of level operator".into()));
    }
    // The database refuses what the role of a token may not do; the hint is the level that the request needs.
    client.batch_execute("SELECT backlog_cleanup_revoke('backlog_operator')").unwrap();
    for (method, paths, level) in [
        ("GET", &["status", "status?target=generations", "runs", "runs/1", "doctor"][..], "monitor"),
        ("POST", &["run", "emergency", "run?dryRun=true", "runs/1/stop"], "operator"),
    ] {
        for path in paths {
            let headers = [("authorization", &*bearer(OPERATOR)), ("accept", "application/json")];
            let problem = assert_problem(&server.send(method, &format!("{BASE}/{path}"), &headers, ""), 403);
            let hint = format!("SELECT backlog_cleanup_grant('backlog_operator', '{level}')");
            assert_eq!((&problem["sqlstate"], &problem["hint"]), (&"42501".into(), &hint.into()), "{path}");
        }
        client.batch_execute(&format!("SELECT backlog_cleanup_grant('backlog_operator', '{level}')")).unwrap();
    }
    // Superusers bypass levels.
    let file = cluster.socket().to_owned() + "/tokens-of-a-superuser";
    std::fs::write(&file, format!("operator postgres {OPERATOR}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let said = Server::try_start(&cluster, "levels", &["--tokens", &file]).err().expect("refused");
    assert!(said.contains("role \"postgres\" of level operator is a superuser"), "{said}");
}

#[test]
fn what_the_database_refuses_is_a_problem_with_its_sqlstate_and_hint() {
    let (cluster, mut client, server) = start("problems", &[]);
    fail(&mut client, 1, 15);
    let problem = assert_problem(&server.get(MONITOR, &format!("{BASE}/status?target=nothing")), 404);
    assert_eq!(
        (&problem["sqlstate"], &problem["detail"]),
        (&json!("42704"), &json!("target \"nothing\" does not exist"))
    );
    assert_eq!(problem["hint"], "SELECT name FROM backlog_cleanup.target");
    assert_problem(&server.get(MONITOR, &format!("{BASE}/runs/0")), 404);
    assert_problem(&server.post(OPERATOR, &format!("{BASE}/runs/0/stop"), ""), 404);
    assert_problem(&server.get(MONITOR, &format!("{BASE}/runs/one")), 400);
    assert_problem(&server.get(MONITOR, &format!("{BASE}/runs?limit=0")), 400);
    assert_problem(&server.get(MONITOR, "/nothing"), 404);
    let wrong_method = server.get(OPERATOR, &format!("{BASE}/run"));
    assert_problem(&wrong_method, 405);
    assert_eq!(wrong_method.header("allow"), "POST");

    client.batch_execute("UPDATE backlog_cleanup.target SET max_share = 10").unwrap();
    let problem = assert_problem(&server.post(OPERATOR, &format!("{BASE}/run"), ""), 422);
    assert_eq!(problem["sqlstate"], "54000");
    client.batch_execute("UPDATE backlog_cleanup.target SET max_share = 100").unwrap();

    let mut other = cluster.connect_to("problems");
    let mut held = other.transaction().unwrap();
    held.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    let problem = assert_problem(&server.post(OPERATOR, &format!("{BASE}/run"), ""), 409);
    assert_eq!(problem["sqlstate"], "55P03");
    held.rollback().unwrap();
    assert_eq!(server.post(OPERATOR, &format!("{BASE}/run"), "").status, 200);
}

#[test]
fn the_status_is_compressed_for_who_takes_it() {
    let (_cluster, _client, server) = start("gzip", &[]);
    let authorization = format!("authorization: {}", bearer(MONITOR));
    let curl = ["-s", "-D", "-", "-o", "/dev/null", "-H", "accept-encoding: gzip", "-H", &authorization];
    let address = format!("{}{BASE}/status", server.address);
    let answer = std::process::Command::new("curl").args(curl).arg(address).output().expect("curl starts");
    assert!(String::from_utf8_lossy(&answer.stdout).contains("content-encoding: gzip"), "{answer:?}");
}

#[test]
fn twenty_thousand_recipes_have_a_limit() {
    let (_cluster, mut client, server) = start("many_recipes", &[]);
    client
        .batch_execute(
            "INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost)
             SELECT i, 'Recipe ' || i, 'recipe-' || i, '', '', '', 1 FROM generate_series(3, 20000) i;
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', i, '', 'failed', now() FROM generate_series(1, 20000) i, generate_series(1, 1 + (i = 777)::int)",
        )
        .unwrap();
    let recipes = |query: &str| {
        let status = server.get(MONITOR, &format!("{BASE}/status{query}"));
        (status.body.len(), status.json())
    };
    let (_, all) = recipes("");
    assert_eq!(all["recipesWithFailedGenerations"].as_array().unwrap().len(), 20_000);
    assert_eq!(all.get("recipesAffected"), None);
    let (bytes, mut few) = recipes("?limit=2");
    assert!(bytes < 2_000, "{bytes}");
    assert_eq!(few["recipesWithFailedGenerations"][0]["recipeName"], "Recipe 777");
    assert_eq!(few["recipesWithFailedGenerations"].as_array().unwrap().len(), 2);
    assert_eq!(few.as_object_mut().unwrap().remove("recipesAffected"), Some(json!(20_000)));
    // All else is as without it.
    few["recipesWithFailedGenerations"] = all["recipesWithFailedGenerations"].clone();
    assert_eq!(few, all);
    assert_eq!(recipes("?limit=0").1["recipesWithFailedGenerations"], json!([]));
    assert_problem(&server.get(MONITOR, &format!("{BASE}/status?limit=-1")), 400);
}

#[test]
fn where_no_target_is_named_it_is_one_that_exists() {
    let (_cluster, mut client, server) = start("usual_target", &[]);
    fail(&mut client, 1, 15);
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'only'").unwrap();
    let ask = || {
        let get = ["status", "status?limit=1", "doctor"].map(|path| server.get(OPERATOR, &format!("{BASE}/{path}")));
        let post = ["run?dryRun=true", "emergency?dryRun=true", "emergency?rehearse=true", "run"];
        get.into_iter().chain(post.map(|path| server.post(OPERATOR, &format!("{BASE}/{path}"), ""))).collect::<Vec<_>>()
    };
    for answer in ask() {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target SELECT (t).*
             FROM (SELECT jsonb_populate_record(t, '{\"name\": \"a b\"}') t FROM backlog_cleanup.target t) t",
        )
        .unwrap();
    for answer in ask() {
        let problem = assert_problem(&answer, 400);
        assert_eq!((&problem["targets"], &problem["hint"]), (&json!(["a b", "only"]), &"?target=a+b".into()));
        assert_eq!(problem["detail"], "the targets are \"a b\", \"only\": name one");
    }
    assert_eq!(server.get(OPERATOR, &format!("{BASE}/status?target=a+b")).status, 200);
    // A name that is empty is not the usual one.
    assert_problem(&server.post(OPERATOR, &format!("{BASE}/run?target="), ""), 404);
    // The page shows the first of them.
    assert!(server.get(MONITOR, "/").body.contains("Backlog of a b"));
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'generations' WHERE name = 'only'").unwrap();
    for answer in ask() {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn where_the_default_target_has_no_table_the_only_other_one_is_meant() {
    let (_cluster, mut client, server) = start("no_table", &[]);
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'own'").unwrap();
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO backlog_cleanup.target (name, generations_table) VALUES ('generations', 'public.gone');
             RESET session_replication_role",
        )
        .unwrap();
    for path in ["status", "doctor", "samples", "policies"] {
        assert_eq!(server.get(OPERATOR, &format!("{BASE}/{path}")).status, 200, "{path}");
    }
    assert_eq!(server.post(OPERATOR, &format!("{BASE}/run?dryRun=true"), "").json()["target"], "own");
    let page = server.get(MONITOR, "/");
    assert!(page.status == 200 && page.body.contains("Backlog of own"), "{page:?}");
}

#[test]
fn a_name_that_no_target_has_is_a_problem_everywhere() {
    let (_cluster, _client, server) = start("nosuch_target", &[]);
    for path in [
        "status",
        "doctor",
        "runs",
        "alerts",
        "samples",
        "policies",
        "report",
        "quiet-hours",
        "explain/1",
        "status?limit=1",
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let problem = assert_problem(&server.get(OPERATOR, &format!("{BASE}/{path}{joint}target=nosuch")), 404);
        assert_eq!(
            (&problem["sqlstate"], &problem["detail"]),
            (&"42704".into(), &"target \"nosuch\" does not exist".into())
        );
    }
}

#[test]
fn the_page_shows_a_target_that_exists() {
    let (_cluster, mut client, server) = start("usual_page", &[]);
    client.batch_execute("UPDATE backlog_cleanup.target SET name = 'only'").unwrap();
    let page = server.get(MONITOR, "/");
    assert!(page.status == 200 && page.body.contains("Backlog of only"), "{page:?}");
}

#[test]
fn the_history_has_a_page_and_a_run_its_recipes() {
    let (_cluster, mut client, server) = start("history", &[]);
    fail(&mut client, 1, 15);
    for _ in 0..3 {
        server.post(OPERATOR, &format!("{BASE}/run"), "");
    }
    let runs = |query: &str| {
        let page = server.get(MONITOR, &format!("{BASE}/runs{query}")).json();
        page["runs"].as_array().unwrap().iter().map(|run| run["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let all = runs("");
    assert_eq!(all.len(), 3);
    assert_eq!(runs("?limit=1"), all[..1]);
    assert_eq!(runs(&format!("?before={}", all[0])), all[1..]);
    assert_problem(&server.get(MONITOR, &format!("{BASE}/runs?target=other")), 404);
    let first = server.get(MONITOR, &format!("{BASE}/runs/{}", all[2])).json();
    assert_eq!(
        first["recipes"],
        json!([{"recipeId": 1, "recipeName": "Bread", "failedCount": 15, "cleanedCount": 5, "keptCount": 10}])
    );
    assert_eq!((&first["state"], &first["requestedBy"]), (&json!("completed"), &json!("backlog_operator")));
}

#[test]
fn doctor_health_and_the_document_answer() {
    let (_cluster, _client, server) = start("around", &[]);
    let doctor = server.get(MONITOR, &format!("{BASE}/doctor")).json();
    assert!(doctor["checks"].as_array().unwrap().iter().any(|check| check["check"] == "index"), "{doctor}");
    assert_eq!(doctor["healthy"], false);
    for path in ["/healthz", "/readyz"] {
        let answer = server.send("GET", path, &[("host", "10.0.0.7")], "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    }
    let document = server.send("GET", "/api/openapi.json", &[], "").json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert!(paths.len() >= 12, "{paths:?}");
    // Every path of the document exists, and needs a token.
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let answer = server.send(&method.to_uppercase(), &path.replace("{id}", "1"), &[], "");
            let is_open = ["/healthz", "/readyz", "/api/openapi.json", "/login", "/logout"].contains(&path.as_str());
            assert!(answer.status == 401 || is_open && answer.status != 404, "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn a_dry_run_has_all_that_the_document_requires() {
    /// The required members of a schema.
    fn required(schemas: &Value, schema: &Value) -> Vec<String> {
        let name = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next());
        let schema = name.map_or(schema, |name| &schemas[name]);
        let parts = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| required(schemas, part));
        let own = schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned());
        parts.chain(own).collect()
    }
    let (_cluster, _client, server) = start("required", &[]);
    let document = server.send("GET", "/api/openapi.json", &[], "").json();
    for path in ["run", "emergency"] {
        let answers = &document["paths"][format!("{BASE}/{path}")]["post"]["responses"];
        let schema = &answers["200"]["content"]["application/json"]["schema"];
        let required = required(&document["components"]["schemas"], schema);
        assert!(required.contains(&"recipesAffected".to_owned()), "{required:?}");
        let answer = server.post(OPERATOR, &format!("{BASE}/{path}?dryRun=true"), "").json();
        assert!(required.iter().all(|name| answer.get(name).is_some()), "{required:?}: {answer}");
    }
}
