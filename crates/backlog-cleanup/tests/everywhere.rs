//! Every endpoint and every page: in a database with pg_cron and in another, without a target `generations`, with an empty table
//! and with 20,000 recipes, with names of 200 letters, signed out, and without a database.

mod server;

use cluster::{Cluster, PG_CRON};
use server::{Answer, BASE, OPERATOR, Server, bearer, database};

const ENDPOINTS: [(&str, &str); 17] = [
    ("GET", "status"),
    ("GET", "status?limit=1"),
    ("GET", "doctor"),
    ("GET", "progress"),
    ("GET", "targets"),
    ("GET", "targets/its+name"),
    ("GET", "policies"),
    ("GET", "policies/simulate?keep=1"),
    ("GET", "explain/1"),
    ("POST", "run?dryRun=true"),
    ("POST", "run?rehearse=true"),
    ("POST", "emergency?dryRun=true"),
    ("POST", "emergency?failureType=nothing"),
    ("POST", "run"),
    ("GET", "runs"),
    ("GET", "runs/last"),
    ("POST", "runs/last/stop"),
];

const PAGES: [&str; 9] = [
    "/",
    "/?search=1&span=7d&sort=name&page=2",
    "/?run=last",
    "/preview?target=its+name&mode=regular",
    "/preview?target=its+name&mode=emergency&recipe=1",
    "/simulate?target=its+name&recipe=1&keep=3",
    "/explain?target=its+name&id=1",
    "/targets",
    "/target?target=its+name",
];

fn ask(server: &Server, method: &str, path: &str, accept: &str, token: Option<&str>) -> Answer {
    let token = token.map(bearer);
    let mut headers = vec![("accept", accept)];
    headers.extend(token.as_deref().map(|token| ("authorization", token)));
    server.send(method, path, &headers, "")
}

/// Asks every endpoint and opens every page as an operator.
fn visit(server: &Server, target: &str, expect: impl Fn(&str, &Answer)) {
    let mut last = "1".to_owned();
    let name: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
    for (method, path) in ENDPOINTS {
        let path = path.replace("last", &last).replace("its+name", &name.replace('+', "%20"));
        let path = format!("{BASE}/{path}");
        let answer = ask(server, method, &path, "application/json", Some(OPERATOR));
        expect(&path, &answer);
        if let Some(run) = answer.body.starts_with('{').then(|| answer.json()["runId"].as_i64()).flatten() {
            last = run.to_string();
        }
    }
    for path in PAGES {
        let path = path.replace("last", &last).replace("its+name", &name);
        expect(&path, &ask(server, "GET", &path, "text/html", Some(OPERATOR)));
    }
}

#[test]
fn every_endpoint_and_page_answers() {
    let cluster = Cluster::start(&PG_CRON.replace("'postgres'", "'home'"));
    let (mut home, mut away) = (database(&cluster, "home"), database(&cluster, "away"));
    let long = "Long ".repeat(39) + "name!";
    home.batch_execute(&format!(
        "CREATE EXTENSION pg_cron;
         SELECT backlog_cleanup_schedule();
         UPDATE backlog_cleanup.target SET name = '{long}';
         UPDATE recipes SET name = '{long}';
         INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost)
         SELECT i, repeat('W', 200), 'recipe-' || i, '', '', '', 1 FROM generate_series(3, 20000) i;
         INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at, failure_reason)
         SELECT 'system_backlog', 1 + i % 20000, '', 'failed', now() - i * interval '10 seconds', '{long}'
         FROM generate_series(1, 40000) i"
    ))
    .unwrap();
    away.batch_execute("TRUNCATE recipes; UPDATE backlog_cleanup.target SET name = 'only'").unwrap();
    let servers =
        [("home", long.as_str()), ("away", "only")].map(|(name, target)| (Server::start(&cluster, name, &[]), target));
    for (server, target) in &servers {
        visit(server, target, |path, answer| {
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.body.len() < 20_000_000, "{path}");
        });
        // A link that is opened by somebody who is signed out is where the login leads to.
        for path in PAGES {
            let answer = ask(server, "GET", path, "text/html", None);
            let next: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
            let login = if path == "/" { "/login".into() } else { format!("/login?next={next}") };
            assert_eq!((answer.status, answer.header("location")), (303, login.as_str()));
        }
    }
    cluster.stop();
    for (server, target) in &servers {
        visit(server, target, |path, answer| {
            assert_eq!(answer.status, 503, "{path}: {answer:?}");
            let is_page = !path.starts_with(BASE);
            let said = if is_page { "The page reloads in a moment" } else { "\"sqlstate\":" };
            assert!(answer.body.contains(said), "{path}: {answer:?}");
        });
        for (path, status) in
            [("/healthz", 200), ("/readyz", 503), ("/api/openapi.json", 200), ("/login", 200), ("/metrics", 200)]
        {
            assert_eq!(ask(server, "GET", path, "*/*", Some(OPERATOR)).status, status, "{path}");
        }
    }
}
