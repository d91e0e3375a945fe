//! The dashboard in Chromium, with the real binary and a real server.

#[path = "browser/mod.rs"]
mod browser;
#[path = "server/mod.rs"]
mod server;

use std::sync::Arc;
use std::thread;

use browser::Browser;
use cluster::{Cluster, PG_CRON, number, until_holds};
use postgres::Client;
use server::{ADMIN, MONITOR, OPERATOR, Server};

/// A database with the platform's tables, the binary that serves it, and a browser.
struct Stage {
    browser: Browser,
    server: Server,
    database: Client,
    cluster: Arc<Cluster>,
}

impl Stage {
    /// Sets the stage in a database of that name, filled by `fill`.
    fn set(name: &str, fill: &str) -> Stage {
        let cluster = Cluster::shared("");
        let mut database = server::database(&cluster, name);
        database.batch_execute(fill).unwrap();
        Stage::around(cluster, database, name)
    }

    fn around(cluster: Arc<Cluster>, database: Client, name: &str) -> Stage {
        let browser = thread::spawn(Browser::start);
        let server = Server::start(&cluster, name, &["--count-interval", "1"]);
        Stage { browser: browser.join().unwrap(), server, database, cluster }
    }

    /// The same, with an operator at the dashboard.
    fn with_operator(name: &str, fill: &str) -> Stage {
        let stage = Stage::set(name, fill);
        stage.sign_in(OPERATOR);
        stage
    }

    fn sign_in(&self, token: &str) {
        self.open("/");
        self.browser.type_into("#token", token);
        self.browser.click("#login button");
        self.browser.text("#health-title");
    }

    fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.server.address));
    }

    /// Waits until the page shows a text about the run that has ended.
    fn says_of_the_run(&self, text: &str) {
        self.browser.until(&format!("document.querySelector('#asked')?.textContent.includes('{text}')"));
    }

    /// No error in the console, and no request to another host.
    fn is_clean(&self) {
        assert_eq!(self.browser.complaints(&self.server.address), Vec::<String>::new());
    }

    fn count(&mut self, query: &str) -> i64 {
        number(&mut self.database, query)
    }

    fn failed(&mut self) -> i64 {
        self.count("SELECT count(*) FROM generations WHERE status = 'failed'")
    }
}

/// Expired rows of two recipes: 30 and 15, of which 20 and 5 are removable.
const FAILURES: &str = "
    INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at, failure_reason)
    SELECT 'system_backlog', CASE WHEN i <= 30 THEN 1 ELSE 2 END, '', 'failed',
           now() AT TIME ZONE 'UTC' - interval '30 hours', 'timeout'
    FROM generate_series(1, 45) i;";

#[test]
fn the_light_says_what_is_wrong() {
    let mut stage = Stage::with_operator("light", FAILURES);
    stage.browser.says("#health-title", "warning");
    assert_eq!(stage.browser.text("#in-scope"), "45");
    assert_eq!(stage.browser.text("#removable"), "25");
    stage
        .database
        .batch_execute(
            "SELECT backlog_cleanup_failed_generations();
             INSERT INTO credit_transactions (user_id, amount, type, description)
             VALUES ('system_backlog', 7, 'backlog_cleanup', 'by hand')",
        )
        .unwrap();
    stage.open("/");
    assert_eq!(stage.browser.text("#health-title"), "1 problem");
    stage.browser.says("#health .reason", "the ledger has 32 removed rows, the history 25");
    stage.is_clean();
}

#[test]
fn where_counting_takes_long_the_last_sample_is_there_at_once() {
    let mut stage = Stage::set("glance", FAILURES);
    stage
        .database
        .batch_execute(
            "CREATE FUNCTION slowly(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.015); RETURN true; END $$;
             UPDATE backlog_cleanup.target SET condition = '(public.slowly(prompt))';
             SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    let until_counted = |word: &str| {
        until_holds(|| stage.server.get(MONITOR, "/").body.contains("id=\"glance\"") == (word == "slowly"));
    };
    until_counted("slowly");
    let begun = std::time::Instant::now();
    let glance = stage.server.get(MONITOR, "/").body;
    assert!(begun.elapsed().as_secs_f64() < 1.0, "nothing is counted for it");
    for figure in ["Counting the rows", "<dd>45</dd>", "<dd>25</dd>", "0; url=/?whole=true"] {
        assert!(glance.contains(figure), "{figure}: {glance}");
    }
    // The browser waits for the whole page.
    stage.sign_in(MONITOR);
    assert_eq!(stage.browser.text("#in-scope"), "45");
    stage.is_clean();
    stage.database.batch_execute("UPDATE backlog_cleanup.target SET condition = NULL").unwrap();
    until_counted("at once");
}

#[test]
fn what_was_previewed_is_what_is_removed() {
    let mut stage = Stage::with_operator("preview", FAILURES);
    stage.browser.click("#actions button[value=regular]");
    assert_eq!(stage.browser.text("#confirm-title"), "Remove 25 removable generations?");
    stage.browser.says("#confirm table", "Bread");
    // The number has grown by more than a tenth since it was shown.
    stage.database.batch_execute(FAILURES).unwrap();
    stage.browser.click("#confirm button");
    stage.browser.says("#alert", "25 generations were confirmed, but 70 would be removed now");
    assert_eq!(stage.failed(), 90);
    stage.open("/preview?target=generations&mode=regular&recipe=2");
    assert_eq!(stage.browser.text("#confirm-title"), "Remove 20 removable generations?");
    stage.browser.click("#confirm button");
    stage.says_of_the_run("completed: 20 generations removed");
    assert_eq!(stage.failed(), 70);
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.run WHERE requested_by = 'backlog_operator'"), 1);
    let details = stage.browser.text("#runs .details");
    assert!(details.contains("Recipes with most removed generations") && details.contains("Soup"), "{details}");
    assert!(!details.contains("Bread"), "it lost nothing: {details}");
}

#[test]
fn a_policy_is_tried_before_it_is_written() {
    let mut stage = Stage::set("policies", FAILURES);
    stage.sign_in(ADMIN);
    stage.browser.says("#policies tbody", "default");
    stage.browser.click("#try-policy summary");
    stage.browser.type_into("#policy-recipe", "1");
    stage.browser.type_into("#policy-keep", "5");
    stage.browser.click("#try-policy button");
    stage.browser.says("#confirm-title", "Simulation of policy recipe \"1\"");
    stage.browser.says("#confirm p", "Removable are 25 of 45 generations in scope now, and 30 with this policy");
    stage.browser.says("#confirm tbody", "Bread");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.policy"), 1);
    stage.browser.click("#confirm button");
    stage.browser.says("#policies tbody", "recipe \"1\"");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.policy WHERE recipe_id = '1' AND keep = 5"), 1);
    stage.database.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    stage.open("/");
    stage.browser.says("#policies tbody tr:first-child", "30 25");
    // A change starts from what the policy is.
    stage.browser.click("#policies tbody tr:first-child a");
    stage.browser.says("#confirm-title", "recipe \"1\"");
    assert_eq!(stage.browser.script("return document.querySelector('#policy-keep').value"), "5");
    // What the page says of all other rows is of the default policy.
    let status = "SELECT backlog_cleanup_set_policy(status => 'failed', max_age => '3 days', keep => 1)";
    stage.database.batch_execute(status).unwrap();
    stage.open("/");
    stage.browser.says("#next-run", "from more than 24 hours ago, but the 10 newest of them");
    stage.browser.says("#next-run", "2 other policies are for some generations");
    // A run says what it did under each.
    stage.open("/?run=1");
    stage.browser.says("#runs .details", "Policies of the run");
    stage.browser.says("#runs .details table:last-of-type tbody tr:first-child", "recipe \"1\" 30 25 5 0");
    stage.open("/");
    // Why a row of it stays.
    stage.browser.click("#why summary");
    stage.browser.type_into("#row", "30\n");
    stage.browser.says("#confirm-title", "Generation 30: kept");
    stage.browser.says("#confirm", "recipe \"1\"");
    stage.is_clean();
    // Who may not write policies may try them.
    stage.browser.click("header button");
    stage.sign_in(MONITOR);
    stage.open("/simulate?target=generations&keep=0");
    stage.browser.says("#confirm", "sign in with a token of level admin");
    assert_eq!(stage.browser.script("return document.querySelectorAll('#confirm form').length"), 0);
    stage.open("/simulate?target=generations&keep=many");
    stage.browser.says("#alert", "not a number of rows");
}

#[test]
fn a_policy_for_an_empty_failure_type_is_changed_and_dropped_and_no_other() {
    let mut stage = Stage::set("names", FAILURES);
    let others = "SELECT sum(hashtext(to_jsonb(p)::text)) FROM backlog_cleanup.policy p WHERE failure_type IS NULL";
    let as_before = stage.count(others);
    stage.count("SELECT count(*) FROM backlog_cleanup_set_policy(failure_type => '', enabled => false)");
    stage.sign_in(ADMIN);
    stage.browser.click("#policies a[aria-label='change policy failure type \"\"']");
    stage.browser.says("#confirm-title", "Simulation of policy failure type \"\"");
    stage.browser.type_into("#policy-note", "until the review");
    stage.browser.click("#again button");
    stage.browser.says("#confirm-title", "Simulation of policy failure type \"\"");
    stage.browser.click("#confirm button");
    let written = "SELECT count(*) FROM backlog_cleanup.policy WHERE failure_type = '' AND note = 'until the review' AND NOT enabled";
    assert_eq!((stage.count(written), stage.count(others)), (1, as_before));
    stage.open("/");
    stage.browser.click("#policies a[aria-label='drop policy failure type \"\"']");
    stage.browser.says("#confirm-title", "Drop policy failure type \"\"?");
    stage.browser.click("#confirm button");
    stage.open("/");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.policy WHERE failure_type = ''"), 0);
    assert_eq!(stage.count(others), as_before);
}

#[test]
fn a_policy_gets_a_note_a_warning_and_is_dropped_when_that_is_confirmed() {
    let mut stage = Stage::set("notes", FAILURES);
    stage.sign_in(ADMIN);
    stage.browser.click("#try-policy summary");
    stage.browser.type_into("#policy-recipe", "1");
    stage.browser.type_into("#policy-note", "until the <review>");
    stage.browser.click("#try-policy button");
    stage.browser.click("#confirm button");
    stage.browser.says("#policies tbody tr:first-child", "until the <review>");
    // What stands in no field of the form stays.
    stage.open("/simulate?target=generations&recipe=1&keep=3");
    stage.browser.click("#confirm button");
    stage.browser.says("#policies tbody tr:first-child", "until the <review>");
    stage.open("/simulate?target=generations&recipe=77");
    stage.browser.click("#confirm button");
    stage.browser.says("#confirm", "target \"generations\" has no generation now that this policy is for");
    stage.browser.click("#confirm .button");
    stage.browser.says("#policies tbody tr:nth-child(2)", "recipe \"77\"");
    // Asked first; the default policy cannot be dropped.
    assert_eq!(stage.browser.script("return document.querySelectorAll('#policies a[href^=\"/drop\"]').length"), 2);
    stage.browser.click("#policies tbody tr:first-child a[href^='/drop']");
    stage.browser.says("#confirm-title", "Drop policy recipe \"1\"?");
    stage.browser.says("#confirm", "until the <review>");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.policy"), 3);
    stage.browser.click("#confirm button");
    stage.browser.says("#policies tbody tr:first-child", "recipe \"77\"");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.policy"), 2);
    stage.is_clean();
    stage.open("/drop?target=generations&recipe=1");
    stage.browser.says("#alert", "policy recipe \"1\" does not exist");
    // Who may not write policies has no way to drop one.
    stage.open("/");
    stage.browser.click("header button");
    stage.sign_in(OPERATOR);
    assert_eq!(stage.browser.script("return document.querySelectorAll('#policies a[href^=\"/drop\"]').length"), 0);
    stage.open("/drop?target=generations&recipe=77");
    stage.browser.says("#alert", "this needs level admin");
}

#[test]
fn a_target_is_shown_with_its_columns_its_index_and_what_is_wrong() {
    let mut stage = Stage::set(
        "shown",
        "INSERT INTO backlog_cleanup.target (name, failed_at_column, condition) VALUES ('other', '(updated_at + interval ''1 hour'')', '(id > 7)')",
    );
    stage.sign_in(MONITOR);
    stage.database.batch_execute("ALTER TABLE recipes RENAME TO no_recipes").unwrap();
    stage.browser.click("header a[href='/targets']");
    stage.browser.says("#all-targets tbody", "generations");
    stage.browser.click("#all-targets tbody tr:nth-child(2) a");
    stage.browser.says("#target-title", "Target other");
    // It cannot be used, and is shown.
    stage.browser.says("#target .reasons", "public.recipes");
    stage.browser.says("#columns", "((id OPERATOR(pg_catalog.>) 7))");
    stage.browser.says("#columns", "rows per batch of a batched run");
    stage.browser.says("#index", "public.recipes");
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'backlog_cleanup.target'::regclass AND attnum > 0 AND NOT attisdropped";
    let columns = stage.count(columns);
    assert_eq!(stage.browser.script("return document.querySelectorAll('#columns tbody tr').length"), columns);
    stage.database.batch_execute("ALTER TABLE no_recipes RENAME TO recipes").unwrap();
    stage.open("/target?target=other");
    stage.browser.says("#index code", "CREATE INDEX CONCURRENTLY ON public.generations");
    stage.is_clean();
    stage.open("/target?target=nothing");
    stage.browser.says("#alert", "target \"nothing\" does not exist");
}

#[test]
fn a_target_is_added_changed_and_dropped_with_all_that_is_wrong_in_one_list() {
    let mut stage = Stage::set(
        "written",
        "CREATE TABLE job (id bigint PRIMARY KEY, queue text, state text, done timestamptz, error text);
         ALTER TABLE job OWNER TO backlog_admin",
    );
    stage.sign_in(ADMIN);
    stage.browser.click("header a[href='/targets']");
    stage.browser.click("#all-targets .button");
    stage.browser.says("#confirm-title", "Add a target");
    // A field has the default; NULL is no value.
    let value = |stage: &Stage, column: &str| {
        stage.browser.script(&format!("return document.querySelector('#column-{column}').value"))
    };
    assert_eq!(value(&stage, "statuses"), "{failed}");
    assert_eq!(value(&stage, "lock_timeout"), "00:00:05");
    let fill = |stage: &Stage, columns: &[(&str, &str)]| {
        for (column, text) in columns {
            stage.browser.script(&format!("document.querySelector('#column-{column}').value = ''"));
            stage.browser.type_into(&format!("#column-{column}"), text);
        }
    };
    fill(
        &stage,
        &[
            ("name", "jobs & <more>"),
            ("generations_table", "public.job"),
            ("account_column", "NULL"),
            ("account", "NULL"),
            ("recipe_column", "quue"),
            ("status_column", "state"),
            ("failed_at_column", "finished"),
            ("failure_type_column", "error"),
            ("recipes_table", "null"),
            ("users_table", "NULL"),
            ("ledger_table", "NULL"),
        ],
    );
    stage.browser.click("#confirm button.primary");
    // All that is wrong at once, at its fields, which have what was typed.
    stage.browser.says("#alert li:nth-child(1)", "recipe_column");
    stage.browser.says("#alert li:nth-child(2)", "failed_at_column");
    stage.browser.says("#alert .fix code", "'public.job'::regclass");
    assert_eq!(stage.browser.script("return document.querySelectorAll('[aria-invalid=true]').length"), 2);
    assert_eq!(value(&stage, "name"), "jobs & <more>");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.target"), 1);
    fill(&stage, &[("recipe_column", "queue"), ("failed_at_column", "(coalesce(done, done))")]);
    stage.browser.click("#confirm button.primary");
    // What the database warns of is said.
    stage.browser.says("#confirm", "has no account, no condition and no limit");
    stage.browser.click("#confirm .button");
    stage.browser.says("#target-title", "Target jobs & <more>");
    stage.browser.says("#columns", "(COALESCE(done, done))");
    // A change writes what was changed, whatever else somebody has changed meanwhile.
    stage.browser.click("#target .button[href^='/target/form']");
    stage.browser.says("#confirm-title", "Change target jobs & <more>");
    let meanwhile = "UPDATE backlog_cleanup.target SET batch_size = 77 WHERE name <> 'generations'";
    stage.database.batch_execute(meanwhile).unwrap();
    fill(&stage, &[("max_rows_per_run", "1000"), ("condition", "(queue <> 'vip')")]);
    stage.browser.click("#confirm button.primary");
    stage.browser.says("#target-title", "Target jobs & <more>");
    assert_eq!(
        stage.count(
            "SELECT count(*) FROM backlog_cleanup.target
             WHERE batch_size = 77 AND max_rows_per_run = 1000 AND condition IS NOT NULL AND account IS NULL"
        ),
        1
    );
    // Asked first.
    stage.browser.click("#target .button[href^='/target/drop']");
    stage.browser.says("#confirm-title", "Drop target jobs & <more>?");
    stage.browser.says("#confirm", "its 1 policy");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.target"), 2);
    stage.browser.click("#confirm button");
    stage.browser.says("#all-targets tbody", "generations");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.target"), 1);
    // The browser remarks on the refusal.
    let complaints = stage.browser.complaints(&stage.server.address);
    assert!(complaints.iter().all(|it| it.contains("/target - ") && it.contains("400")), "{complaints:?}");
    // Who may not write targets has no way to.
    stage.browser.click("header form button");
    stage.sign_in(OPERATOR);
    stage.open("/targets");
    stage.browser.says("#all-targets", "sign in with a token of level admin");
    stage.open("/target/form?target=generations");
    stage.browser.says("#alert", "this needs level admin");
}

#[test]
fn an_emergency_wants_the_accounts_name() {
    let mut stage = Stage::with_operator("emergency", FAILURES);
    stage.open("/preview?target=generations&mode=emergency&failure_type=timeout");
    stage.browser.says("#confirm table", "Bread");
    stage.open("/");
    stage.browser.click("#actions button[value=emergency]");
    assert_eq!(stage.browser.text("#confirm-title"), "Emergency: remove all 45 generations in scope?");
    stage.browser.type_into("#account", "system-backlog");
    stage.browser.click("#confirm button");
    stage.browser.says("#alert", "not the account’s name");
    assert_eq!(stage.failed(), 45);
    stage.browser.click("#alert .button");
    stage.browser.click("#actions button[value=emergency]");
    stage.browser.type_into("#account", "system_backlog");
    stage.browser.click("#confirm button");
    stage.says_of_the_run("45 generations removed");
    assert_eq!(stage.failed(), 0);
    // What policies hold is in scope, and stays.
    let hold = "SELECT backlog_cleanup_set_policy('2', enabled => false)";
    stage.database.batch_execute(&format!("{FAILURES} {hold}")).unwrap();
    stage.open("/preview?target=generations&mode=emergency");
    assert_eq!(stage.browser.text("#confirm-title"), "Emergency: remove 30 of 45 generations in scope?");
    stage.browser.says("#confirm p", "Policies hold 15 generations, which stay.");
    // A target without an account is confirmed by its own name.
    let no_account = "UPDATE backlog_cleanup.target SET account_column = NULL, account = NULL, users_table = NULL, ledger_table = NULL, max_rows_per_run = 100";
    stage.database.batch_execute(no_account).unwrap();
    stage.open("/preview?target=generations&mode=emergency");
    stage.browser.says("#confirm label", "type the target’s name, generations");
    assert!(!stage.browser.text("#confirm p").contains("Account"));
    stage.browser.type_into("#account", "system_backlog");
    stage.browser.click("#confirm button");
    stage.browser.says("#alert", "not the target’s name");
}

#[test]
fn a_run_at_work_is_followed_without_a_reload() {
    let mut stage =
        Stage::with_operator("progress", &format!("{FAILURES} UPDATE backlog_cleanup.target SET batch_size = 1"));
    stage.browser.script("window.same = true");
    let mut other = stage.cluster.connect_to("progress");
    let run = thread::spawn(move || other.batch_execute("CALL backlog_cleanup_run(pause => '300 ms')").unwrap());
    stage.browser.until("!document.querySelector('#progress').hidden");
    let removed = "Number(document.querySelector('#progress-removed').textContent)";
    stage.browser.until(&format!("{removed} >= 2"));
    stage.browser.until(&format!("{removed} >= 5 && document.querySelector('#progress-bar').value > 0"));
    run.join().unwrap();
    // The page shows the end of the run by itself.
    stage.browser.until("document.querySelector('#progress').hidden");
    stage.browser.until("document.querySelector('#removable').textContent === '0'");
    stage.browser.until("window.same === true");
    assert_eq!(stage.failed(), 20);
    stage.is_clean();
}

#[test]
fn a_run_at_work_can_be_stopped() {
    let mut stage =
        Stage::with_operator("stopped", &format!("{FAILURES} UPDATE backlog_cleanup.target SET batch_size = 1"));
    let mut other = stage.cluster.connect_to("stopped");
    let run = thread::spawn(move || other.batch_execute("CALL backlog_cleanup_run(pause => '300 ms')").unwrap());
    stage.browser.until("!document.querySelector('#progress').hidden");
    stage.browser.click("#progress button");
    run.join().unwrap();
    stage.says_of_the_run("stopped");
    assert!(stage.failed() > 20);
    stage.is_clean();
}

#[test]
fn a_monitor_sees_no_way_to_remove() {
    let stage = Stage::set("looker", FAILURES);
    stage.sign_in(MONITOR);
    stage.browser.says("#actions", "Read only");
    stage.open("/preview?target=generations&mode=emergency");
    stage.browser.says("#alert", "this needs level operator");
    stage.browser.click("#alert .button");
    stage.browser.click("header button");
    stage.browser.text("#login-title");
    stage.browser.type_into("#token", "a-token-that-nobody-has-got");
    stage.browser.click("#login button");
    stage.browser.says("#alert", "the token is unknown");
}

#[test]
fn text_of_the_database_is_text() {
    let evil = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>";
    let stage = Stage::with_operator(
        "escaped",
        &format!(
            "UPDATE recipes SET name = '{evil}';
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at, failure_reason)
             SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '30 hours', '{evil}'
             FROM generate_series(1, 15);
             INSERT INTO backlog_cleanup.target (name) VALUES ('{evil}');
             SELECT backlog_cleanup_set_policy(failure_type => '{evil}', note => '{evil}');"
        ),
    );
    let escaped = |path: &str, element: &str| {
        stage.open(path);
        stage.browser.says(element, evil);
        let scripts = stage.browser.script("return document.scripts.length + document.images.length");
        assert_eq!(scripts, 1, "{path}");
        stage.is_clean();
    };
    let address: String = url::form_urlencoded::byte_serialize(evil.as_bytes()).collect();
    escaped("/", "#recipes table");
    // A name that changes the direction of writing does so for itself only.
    assert_eq!(stage.browser.text("#recipes tbody bdi"), evil);
    escaped("/", "#failures .legend");
    escaped("/", "nav[aria-label=targets]");
    escaped("/", "#policies table");
    escaped(&format!("/simulate?target=generations&failure_type={address}"), "#confirm");
    escaped("/targets", "#all-targets");
    escaped(&format!("/target?target={address}"), "#columns");
    escaped(&format!("/?search={address}"), "#recipes");
    escaped(&format!("/?target={address}"), "nav[aria-label=targets] [aria-current]");
    escaped("/preview?target=generations&mode=regular", "#confirm table");
    escaped(&format!("/preview?target=generations&mode=emergency&failure_type={address}"), "#confirm");
    escaped(&format!("/preview?target={address}&mode=emergency"), "#confirm");
}

#[test]
fn all_of_it_works_without_javascript() {
    let mut stage = Stage::set("plain", FAILURES);
    stage.browser.without_javascript();
    stage.sign_in(OPERATOR);
    stage.browser.type_into("#search", "soup\n");
    stage.browser.says("#recipes", "1 of 2 recipes for “soup”");
    stage.browser.click("#reasons summary");
    stage.browser.click("#try-policy summary");
    stage.browser.type_into("#policy-keep", "0\n");
    stage.browser.says("#confirm p", "and 45 with this policy");
    stage.open("/");
    stage.browser.click("#actions button[value=regular]");
    stage.browser.click("#confirm button");
    stage.says_of_the_run("25 generations removed");
    assert_eq!(stage.failed(), 20);
    stage.is_clean();
}

#[test]
fn a_keyboard_is_enough() {
    let mut stage = Stage::with_operator("keyboard", FAILURES);
    stage.browser.tab_to("document.activeElement.value === 'emergency'");
    stage.browser.press("\u{e007}");
    stage.browser.text("#confirm-title");
    stage.browser.tab_to("document.activeElement.id === 'account'");
    stage.browser.press("system_backlog\u{e007}");
    stage.says_of_the_run("45 generations removed");
    assert_eq!(stage.failed(), 0);
    stage
        .browser
        .tab_to("document.activeElement.textContent.trim() === '1' && !!document.activeElement.closest('#runs')");
}

#[test]
fn ten_thousand_recipes_are_shown_a_page_at_a_time() {
    let stage = Stage::with_operator(
        "many",
        "TRUNCATE recipes;
         INSERT INTO recipes (name, slug, description, prompt, category, credit_cost)
         SELECT 'Recipe ' || i, 'recipe-' || i, '', '', '', 1 FROM generate_series(1, 10000) i;
         INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
         SELECT 'system_backlog', i, '', 'failed', now() AT TIME ZONE 'UTC' - i * interval '1 minute'
         FROM generate_series(1, 10000) i",
    );
    let rows = "return document.querySelectorAll('#recipes tbody tr').length";
    assert_eq!(stage.browser.script(rows), 15);
    assert!(stage.browser.script("return document.documentElement.outerHTML.length").as_i64().unwrap() < 200_000);
    stage.browser.says("#recipes .pager", "page 1 of 667");
    stage.browser.click("#recipes [rel=next]");
    stage.browser.says("#recipes .pager", "page 2 of 667");
    stage.browser.click("#recipes thead th:last-child a");
    stage.browser.says("#recipes tbody tr:first-child", "Recipe 10000");
    stage.browser.type_into("#search", "777\n");
    stage.browser.says("#recipes p", "19 of 10,000 recipes");
    stage.is_clean();
}

#[test]
fn a_target_is_spoken_of_in_its_words_and_its_rows_by_their_status() {
    let stage = Stage::with_operator(
        "words",
        "CREATE TABLE job (id bigserial PRIMARY KEY, worker text, state text, at timestamptz, error text);
         INSERT INTO job (worker, state, at, error)
         SELECT 'Mailer', (ARRAY['discarded', 'cancelled', 'executing'])[1 + i % 3], now() - i * interval '1 hour',
                CASE i % 3 WHEN 0 THEN 'timeout' END
         FROM generate_series(1, 90) i;
         INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table,
                                             account_column, account, recipe_column, status_column, statuses,
                                             failed_at_column, failure_type_column, group_word, row_word)
         VALUES ('jobs', 'public.job', NULL, NULL, NULL, NULL, NULL, 'worker', 'state', '{discarded,cancelled}', 'at', 'error',
                 'worker', 'job');
         INSERT INTO backlog_cleanup.policy (target, recipe_id, keep) VALUES ('jobs', 'Other', 1)",
    );
    stage.open("/?target=jobs");
    stage.browser.says("#statuses", "cancelled 30, discarded 30, executing 30.");
    stage.browser.says("#recipes-title", "In scope by worker");
    stage.browser.says("#failures .note", "Jobs by failure type, (none) without one");
    stage.browser.says("#recipes p", "1 worker.");
    stage.browser.says("#next-run", "newest of them in each worker stay");
    stage.browser.says("#policies tbody tr:first-child", "worker \"Other\"");
    let words = "return [...document.querySelectorAll('main, [aria-label]')].map(it => `${it.textContent} ${it.ariaLabel}`).join()";
    let page = |words: serde_json::Value| words.as_str().unwrap().to_lowercase();
    let said = page(stage.browser.script(words));
    assert!(!said.contains("recipe") && !said.contains("generations that"), "{said}");
    // Not every row that runs remove has failed.
    for section in ["#health .figures", "#next-run", "#failures", "#recipes", "#trend"] {
        let claims = stage.browser.text(section).to_lowercase().replace("failure type", "");
        assert!(!claims.contains("fail"), "{section}: {claims}");
    }
    stage.browser.click("#selection summary");
    stage.browser.script("document.querySelector('#status').value = 'cancelled'");
    stage.browser.click("#actions button[value=regular]");
    stage.browser.says("#confirm-title", "removable jobs?");
    stage.browser.says("#confirm p", "only status cancelled");
    stage.browser.click("#confirm button");
    stage.says_of_the_run("jobs removed");
    stage.browser.says("#runs", "regular, status cancelled");
    let details = stage.browser.text("#runs .details");
    for said in ["workers in scope", "Statuses of the run", "discarded 30 0 30 0", "Policies of the run", "kept back"] {
        assert!(details.contains(said), "{said}: {details}");
    }
    assert_eq!(stage.browser.axe(), Vec::<String>::new());
    stage.browser.phone();
    let sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(stage.browser.script(sideways), 0);
    stage.browser.desk();
    // The platform's rows have one status that runs remove.
    stage.open("/");
    stage.browser.says("#recipes-title", "In scope by recipe");
    assert_eq!(stage.browser.script("return document.querySelectorAll('#status, #statuses').length"), 0);
    stage.open("/explain?target=jobs&id=1");
    stage.browser.says("#confirm-title", "Job 1: ");
    stage.open("/simulate?target=jobs&recipe=Mailer&keep=0");
    stage.browser.says("#confirm-title", "Simulation of policy worker \"Mailer\"");
    stage.browser.says("#confirm thead", "worker");
    stage.is_clean();
}

#[test]
fn each_target_has_its_light_and_no_name_takes_the_room_of_others() {
    let long = "Long ".repeat(39) + "name!";
    let others = format!(
        "{FAILURES}
         UPDATE recipes SET name = '{long}' WHERE id = 1;
         UPDATE generations SET failure_reason = CASE id % 5 WHEN 0 THEN '{long}' ELSE repeat('failure-', 4) || id % 5 END
         WHERE updated_at > now() - interval '2 days';
         CREATE TABLE job (id uuid PRIMARY KEY, owner text, queue text, state text, finished_at timestamptz, error text);
         INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table,
                                             account_column, recipe_column, status_column, failed_at_column,
                                             failure_type_column, account)
         SELECT name, 'public.job', NULL, NULL, NULL, 'owner', 'queue', 'state', 'finished_at', 'error', 'worker'
         FROM (VALUES ('gone'), ('{long}')) target (name);
         CREATE TABLE another (LIKE job INCLUDING ALL);
         UPDATE backlog_cleanup.target SET generations_table = 'public.another', group_word = repeat('g', 40), row_word = repeat('r', 40)
         WHERE name = '{long}';
         DROP TABLE job;"
    );
    let stage = Stage::with_operator("lights", &others);
    let mut database = stage.cluster.connect_to("lights");
    let lights = "return [...document.querySelectorAll('#targets a')]
                      .map(tab => `${tab.textContent.slice(0, 11)}: ${tab.querySelector('svg')?.ariaLabel}`).join()";
    let until = |expected: &str| {
        until_holds(|| {
            stage.open("/");
            stage.browser.script(lights) == expected
        });
    };
    until("Long Long L: traffic light: amber,generations: traffic light: amber,gone: traffic light: red");
    database.batch_execute("UPDATE backlog_cleanup.policy SET enabled = false WHERE target ~ 'Long'").unwrap();
    until("Long Long L: traffic light: red,generations: traffic light: amber,gone: traffic light: red");
    // A page that cannot be shown leads to the others.
    stage.open("/?target=gone");
    stage.browser.says("#alert", "does not exist");
    stage.browser.click("#targets a:nth-child(2)");
    stage.browser.says("#health-title", "warning");
    // What is cut has the whole name as its tool tip.
    let cut = "return [...document.querySelectorAll('.cut')].every(name => name.title === name.textContent)";
    let simulation = format!("/simulate?target=generations&failure_type={long}");
    for page in ["/", &format!("/?target={long}"), "/preview?target=generations&mode=emergency", &simulation] {
        for width in [1440, 768, 390] {
            stage.browser.wide(width);
            stage.open(page);
            assert_eq!(stage.browser.script(cut), true, "{page}, {width}");
            stage.browser.script("document.querySelectorAll('details').forEach(it => it.open = true)");
            let sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(stage.browser.script(sideways), 0, "{page}, {width}");
            let highest = "return Math.max(0, ...[...document.querySelectorAll('tbody th, .tabs a, .legend li')].map(it => it.offsetHeight))";
            assert!(stage.browser.script(highest).as_f64().unwrap() < 80.0, "{page}, {width}");
            let words = stage.browser.text("main").to_lowercase();
            assert!(!words.contains("expired") && !words.contains(" old "), "one word for one thing: {words}");
        }
    }
    // A phone shows all that is left of a run without scrolling, whatever was selected.
    database
        .batch_execute(&format!(
            "SELECT setval('backlog_cleanup.run_id_seq', 1233);
             SELECT backlog_cleanup_failed_generations();
             UPDATE backlog_cleanup.run SET state = 'interrupted', removed = 12345 WHERE id = 1234;
             SELECT backlog_cleanup_emergency(recipe_id => '2', failure_type => '{long}')"
        ))
        .unwrap();
    stage.browser.phone();
    stage.open("/");
    stage.browser.says("#runs tbody td:nth-child(3)", "emergency");
    let edge =
        "return document.querySelector('#runs tbody td:nth-child(3)').getBoundingClientRect().right < innerWidth";
    assert_eq!(stage.browser.script(edge), true);
    let hidden = "const runs = document.querySelector('#runs .scroll'); return runs.scrollWidth - runs.clientWidth";
    assert_eq!(stage.browser.script(hidden), 0);
    let number = "return document.querySelector('#runs tbody th a').getClientRects().length";
    assert_eq!(stage.browser.script(number), 1);
    // Six columns of long names are no reason to scroll on a desk.
    stage.browser.wide(1440);
    stage.open("/");
    stage.browser.click("#failures-table summary");
    let hidden =
        "const table = document.querySelector('#failures-table .scroll'); return table.scrollWidth - table.clientWidth";
    assert_eq!(stage.browser.script("return document.querySelectorAll('#failures-table thead th').length"), 7);
    assert_eq!(stage.browser.script(hidden), 0);
    assert_eq!(
        stage.browser.script("return document.querySelector('header').textContent.includes('lights on localhost:')"),
        true
    );
}

/// All pages, dark and light, on a desktop and on a phone: none scrolls sideways, and axe-core finds no violation.
#[test]
fn every_page_is_for_everybody() {
    let cluster = Arc::new(Cluster::start(&PG_CRON.replace("'postgres'", "'everybody'")));
    let mut database = server::database(&cluster, "everybody");
    outage(&mut database);
    let stage = Stage::around(cluster, database, "everybody");
    let look = |page: &str| {
        for (width, scheme) in [("desk", "light"), ("desk", "dark"), ("phone", "light"), ("phone", "dark")] {
            stage.browser.color_scheme(scheme);
            match width {
                "phone" => stage.browser.phone(),
                _ => stage.browser.desk(),
            }
            let sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(stage.browser.script(sideways), 0, "{page}, {width}");
            assert_eq!(stage.browser.axe(), Vec::<String>::new(), "{page}, {width}, {scheme}");
            stage.browser.picture(&format!("{page}-{width}-{scheme}"));
        }
        stage.browser.desk();
    };
    stage.open("/");
    look("login");
    stage.sign_in(OPERATOR);
    look("dashboard");
    stage.open("/?run=2&span=7d#run-2");
    stage.browser.click("#reasons summary");
    stage.browser.click("#failures-table summary");
    for form in ["#selection", "#try-policy", "#why"] {
        stage.browser.click(&format!("{form} summary"));
    }
    look("details");
    stage.open("/simulate?target=generations&recipe=1&keep=3&max_age=2+days");
    look("simulation");
    stage.open("/explain?target=generations&id=7");
    look("explanation");
    stage.open("/targets");
    look("targets");
    stage.open("/target?target=generations");
    look("target");
    stage.open("/preview?target=generations&mode=regular");
    look("preview");
    stage.open("/preview?target=generations&mode=emergency");
    look("emergency");
    stage.open("/preview?target=nothing&mode=regular");
    look("refused");
    stage.open("/");
    stage.browser.click("header button");
    stage.sign_in(ADMIN);
    stage.open("/simulate?target=generations&recipe=123456&note=until+the+review&enabled=false");
    stage.browser.click("#confirm button");
    stage.browser.says("#confirm", "has no generation now");
    look("warned");
    stage.open("/drop?target=generations&recipe=123456");
    look("drop");
    stage.open("/target/form?target=generations");
    stage.browser.click("#confirm summary");
    look("target-form");
    stage.open("/target/form");
    stage.browser.type_into("#column-name", "jobs");
    for column in ["users_table", "recipes_table", "ledger_table"] {
        stage.browser.script(&format!("document.querySelector('#column-{column}').value = 'NULL'"));
    }
    stage.browser.script("document.querySelector('#column-generations_table').value = 'public.jobs'");
    stage.browser.click("#confirm button.primary");
    stage.browser.says("#alert", "public.jobs");
    look("target-refused");
    stage.open("/target/drop?target=generations");
    look("target-drop");
    stage.open("/report?target=generations");
    look("report");
    stage.open("/");
    look("policies");
}

/// The demo's outage, with the runs of the following nights.
fn outage(database: &mut Client) {
    let mut script = include_str!("../../../demo/outage.sql").to_owned();
    for (name, value) in [("rows", "20000"), ("recipes", "200"), ("failed", "0.7"), ("days", "10")] {
        script = script.replace(&format!(":{name}"), value);
    }
    let job = "CREATE EXTENSION pg_cron; SELECT backlog_cleanup_schedule()";
    for statements in ["TRUNCATE recipes RESTART IDENTITY", &script, job] {
        database.batch_execute(statements).unwrap();
    }
    for night in (1..=8).rev() {
        for statement in [
            format!("UPDATE backlog_cleanup.policy SET max_age = interval '{night} days' + interval '1 day'"),
            "SELECT backlog_cleanup_failed_generations()".into(),
            format!(
                "UPDATE backlog_cleanup.run
                 SET started_at = started_at - interval '{night} days', finished_at = finished_at - interval '{night} days'
                 WHERE id = (SELECT max(id) FROM backlog_cleanup.run)"
            ),
        ] {
            database.batch_execute(&statement).unwrap();
        }
    }
    database.batch_execute("UPDATE backlog_cleanup.policy SET max_age = DEFAULT").unwrap();
}

#[test]
fn stop_stops_with_seven_tabs_open() {
    let mut stage =
        Stage::with_operator("tabs", &format!("{FAILURES} UPDATE backlog_cleanup.target SET batch_size = 1"));
    let mut other = stage.cluster.connect_to("tabs");
    let run = thread::spawn(move || other.batch_execute("CALL backlog_cleanup_run(pause => '500 ms')").unwrap());
    for _ in 0..6 {
        stage.browser.new_tab();
        stage.open("/");
        stage.browser.until("!document.querySelector('#progress').hidden");
    }
    let before = std::time::Instant::now();
    stage.browser.click("#progress button");
    run.join().unwrap();
    assert!(before.elapsed().as_secs_f64() < 3.0, "{:?}", before.elapsed());
    stage.says_of_the_run("stopped");
    assert!(stage.failed() > 20);
}

#[test]
fn a_page_that_is_open_when_the_database_is_lost_says_so_and_shows_no_light() {
    let cluster = Arc::new(Cluster::start(""));
    let database = server::database(&cluster, "lost");
    let stage = Stage::around(cluster, database, "lost");
    stage.sign_in(OPERATOR);
    stage.cluster.stop();
    // It looks again when its tab is shown.
    stage.browser.script("document.dispatchEvent(new Event('visibilitychange'))");
    stage.browser.says("#stale", "No answer from the database since");
    assert_eq!(stage.browser.script("return document.title"), "✕ No answer from the database");
    let sign = "return getComputedStyle(document.querySelector('.sign')).visibility";
    assert_eq!(stage.browser.script(sign), "hidden");
}

#[test]
fn a_link_survives_the_login_and_a_search_keeps_the_rest() {
    let mut stage = Stage::set("deep", FAILURES);
    stage.open("/?span=7d&search=soup");
    stage.browser.type_into("#token", OPERATOR);
    stage.browser.click("#login button");
    stage.browser.says("#recipes", "1 of 2 recipes for “soup”");
    stage.browser.type_into("#search", "bread\n");
    stage.browser.says("#recipes", "0 of 2 recipes");
    assert_eq!(stage.browser.script("return new URLSearchParams(location.search).get('span')"), "7d");
    // Another host is not a link of ours.
    stage.browser.click("header button");
    stage.open("/login?next=//example.com");
    stage.browser.type_into("#token", OPERATOR);
    stage.browser.click("#login button");
    stage.browser.says("#next-run", "Database deep, target generations");
    // Nothing is worse than a run that does not come.
    stage.database.batch_execute("UPDATE backlog_cleanup.policy SET enabled = false").unwrap();
    stage.open("/");
    stage.browser.says("#next-run", "No run will come");
    assert!(stage.browser.text("#health .reason").contains("disabled"));
    assert_eq!(stage.browser.script("return document.title.startsWith('✕')"), true);
    stage.open("/preview?target=nothing&mode=regular");
    assert_eq!(
        stage.browser.script("return document.querySelector('#alert .button').getAttribute('href')"),
        "/?target=nothing"
    );
}

#[test]
fn who_may_takes_an_alert_on_and_everybody_sees_the_course_of_the_week() {
    let mut stage = Stage::with_operator(
        "alerted",
        "INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence, fix)
         VALUES ('rows in scope', 'generations', 7, 5, '7 generations are in scope', 'SELECT 1'), ('books', NULL, 1, 0, 'books differ', NULL);
         INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, in_scope, milliseconds, seconds, transactions)
         SELECT 'generations', 'hour', date_trunc('hour', now()) - interval '1 hour' * i, 2000 - i, 1, 3600, 3600 * (20 + i % 24)
         FROM generate_series(1, 600) i",
    );
    assert_eq!(stage.browser.text("#alerts-title"), "2 open alerts");
    stage.browser.says("#trend", "1,999 generations in scope, 1,832 at the start");
    stage.browser.says("#trend", "quietest of the day");
    stage.browser.click("[aria-label='Acknowledge alert 1']");
    stage.browser.says("#alerts", "backlog_operator has taken it on");
    stage.browser.click("[aria-label='Snooze alert 2 for 8 hours']");
    stage.browser.says("#alerts", "snoozed until");
    assert_eq!(stage.count("SELECT count(*) FROM backlog_cleanup.alert WHERE acknowledged_by = 'backlog_operator' OR snoozed_until > now()"), 2);
    for (width, scheme) in [("desk", "light"), ("desk", "dark"), ("phone", "light"), ("phone", "dark")] {
        stage.browser.color_scheme(scheme);
        if width == "phone" {
            stage.browser.phone()
        } else {
            stage.browser.desk()
        }
        let sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(stage.browser.script(sideways), 0, "{width}");
        assert_eq!(stage.browser.axe(), Vec::<String>::new(), "{width}, {scheme}");
        stage.browser.picture(&format!("alerts-{width}-{scheme}"));
    }
    stage.browser.desk();
    stage.browser.click("#trend .title a");
    stage.browser.says("#report", "Backlog cleanup of");
    stage.open("/");
    stage.browser.click("header button");
    stage.sign_in(MONITOR);
    assert_eq!(stage.browser.script("return document.querySelectorAll('#alerts button[type=submit]').length"), 0);
    stage.is_clean();
}
