//! Reports speak of what they count: the rows of each status and policy, every status that is there, in the words of the target.

use cluster::{Cluster, JOBS, column, create_index, finding, findings, number, numbers, refused, truth, value, veto};
use postgres::Client;

/// A hundred jobs in two queues: failed, cancelled, or still available, two days old and older.
const STATES: &str = "
    UPDATE job SET state = (ARRAY['failed', 'cancelled', 'available'])[1 + id % 3], queue = 'q' || id % 2,
                   at = now() - interval '2 days' - interval '1 minute' * (id * 7919 % 100);
    CREATE TABLE saved AS TABLE job;
    UPDATE backlog_cleanup.target SET statuses = '{failed,cancelled}', pending_status = '{available}' WHERE name = 't';
    UPDATE backlog_cleanup.policy SET keep = 5 WHERE target = 't'";

/// Of each status the rows in scope, and those that go: all but the five newest of each queue, whatever their status.
const OF_STATES: &str = "
    SELECT concat_ws(' ', state, count(*), count(*) FILTER (WHERE rank > 5))
    FROM (SELECT state, row_number() OVER (PARTITION BY queue ORDER BY at DESC, id DESC) AS rank
          FROM job WHERE state IN ('failed', 'cancelled')) ranked
    GROUP BY state ORDER BY state::text DESC";

fn with_states(cluster: &Cluster, more: &str) -> Client {
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute(STATES).unwrap();
    client.batch_execute(more).unwrap();
    client
}

/// What a call reports of each status or policy: what it is for, then the given numbers.
fn reported(client: &mut Client, call: &str, list: &str, numbers: &[&str]) -> Vec<String> {
    let report: serde_json::Value = client.query_one(call, &[]).unwrap_or_else(|e| panic!("{call}: {e:?}")).get(0);
    let detail = |detail: &serde_json::Value| {
        let name = ["recipeId", "status"].iter().find_map(|name| detail[*name].as_str());
        let numbers: Vec<String> = numbers.iter().map(|number| detail[*number].to_string()).collect();
        format!("{} {}", name.unwrap_or("any"), numbers.join(" "))
    };
    report[list].as_array().unwrap_or_else(|| panic!("{call}: {report}")).iter().map(detail).collect()
}

const REGULAR: [&str; 5] = [
    "SELECT backlog_cleanup_failed_generations('t', dry_run => true)",
    "SELECT backlog_cleanup_failed_generations('t', rehearse => true)",
    "SELECT backlog_cleanup_failed_generations('t')",
    "CALL backlog_cleanup_run('t', batch_size => 7)",
    "CALL backlog_cleanup_run('t', batch_size => 7, workers => 2)",
];

const EMERGENCY: [&str; 4] = [
    "SELECT backlog_cleanup_emergency('t', dry_run => true)",
    "SELECT backlog_cleanup_emergency('t')",
    "CALL backlog_cleanup_run('t', 'emergency', batch_size => 7)",
    "CALL backlog_cleanup_run('t', 'emergency', batch_size => 7, workers => 2)",
];

const INDEXED: &str = "SELECT 'an index that serves'";

/// Texts, an integer for a recipe, an index, a policy that names a status, an enum.
const SHAPES: [&str; 5] = [
    "",
    "ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE int USING right(queue, 1)::int;
     ALTER TABLE saved ALTER queue TYPE int USING right(queue, 1)::int",
    INDEXED,
    "SELECT backlog_cleanup_set_policy(status => 'cancelled', keep => 5, target => 't')",
    "CREATE TYPE state AS ENUM ('failed', 'cancelled', 'available');
     ALTER TABLE job ALTER state DROP DEFAULT, ALTER state TYPE state USING state::state;
     ALTER TABLE saved ALTER state TYPE state USING state::state",
];

#[test]
fn a_run_counts_the_rows_of_each_status_in_every_form() {
    for shape in SHAPES {
        let cluster = Cluster::start("max_worker_processes = 16\n");
        let mut client = with_states(&cluster, shape);
        let is_indexed = shape == INDEXED;
        if is_indexed {
            create_index(&mut client, "t");
        }
        let each_policy = shape.contains("set_policy");
        for call in REGULAR.into_iter().chain(EMERGENCY) {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            if is_indexed {
                client.batch_execute("VACUUM ANALYZE job").unwrap();
            }
            let wanted: Vec<String> = match (call.contains("emergency"), each_policy) {
                (true, _) => vec!["failed 33 33".into(), "cancelled 34 34".into()],
                // Five of each queue and status stay.
                (false, true) => vec!["failed 33 23".into(), "cancelled 34 24".into()],
                (false, false) => column(&mut client, OF_STATES),
            };
            let found = reported(&mut client, call, "statuses", &["inScope", "removed"]);
            assert_eq!(found, wanted, "{shape}: {call}");
            let left = number(&mut client, "SELECT count(*) FROM job WHERE state <> 'available'");
            if !call.contains("dry_run") && !call.contains("rehearse") {
                let history = "SELECT concat_ws(' ', status, in_scope, removed) FROM backlog_cleanup.run_status
                               WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run) ORDER BY place";
                assert_eq!(column::<String>(&mut client, history), wanted, "{shape}: {call}");
                let removed = "SELECT removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
                assert_eq!(67 - left, number(&mut client, removed), "{shape}: {call}");
            }
            assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE state = 'available'"), 33);
        }
        let working = "SELECT (SELECT count(*) FROM backlog_cleanup.run_batch) + (SELECT count(*) FROM backlog_cleanup.run_cutoff)";
        assert_eq!(number(&mut client, working), 0);
    }
}

#[test]
fn rows_that_are_kept_back_are_counted_for_their_status_and_policy() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client =
        with_states(&cluster, "SELECT backlog_cleanup_set_policy('q0', max_age => '0', keep => 0, target => 't')");
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 0").unwrap();
    // 3, 9 and 15 are failed, of queue q1; 4 and 10 are cancelled, of queue q0.
    veto(&mut client, "job", "OLD.id IN (3, 9, 15, 4, 10)");
    for call in &REGULAR[1..] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let numbers = ["inScope", "removed", "kept", "keptBack"];
        let found = reported(&mut client, call, "statuses", &numbers);
        assert_eq!(found, ["failed 33 30 3 3", "cancelled 34 32 2 2"], "{call}");
        if *call != REGULAR[1] {
            let policies =
                "SELECT concat_ws(' ', coalesce(recipe_id, 'any'), kept_back) FROM backlog_cleanup.run_policy
                            WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run) ORDER BY place";
            assert_eq!(column::<String>(&mut client, policies), ["q0 2", "any 3"], "{call}");
        }
    }
    // One policy and one status have them all, also in an emergency.
    client
        .batch_execute(
            "SELECT backlog_cleanup_drop_policy('q0', target => 't');
             UPDATE backlog_cleanup.target SET statuses = '{failed}' WHERE name = 't'",
        )
        .unwrap();
    for call in [REGULAR[2], REGULAR[3], EMERGENCY[1], EMERGENCY[2]] {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        for (list, name) in [("statuses", "failed"), ("policies", "any")] {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            let found = reported(&mut client, call, list, &["inScope", "removed", "kept", "keptBack"]);
            assert_eq!(found, [format!("{name} 33 30 3 3")], "{call}");
        }
    }
    client.batch_execute("UPDATE backlog_cleanup.target SET status_column = NULL WHERE name = 't'").unwrap();
    let found = reported(&mut client, REGULAR[0], "statuses", &["inScope", "removed"]);
    assert_eq!(found, ["any 70 70"], "without a status");
}

#[test]
fn an_emergency_run_counts_the_rows_that_it_passes_over_for_their_recipe_status_and_policy() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    // All of a recipe, and some of another.
    let holds = "SELECT backlog_cleanup_set_policy('q0', enabled => false, target => 't');
                 SELECT backlog_cleanup_set_policy('q1', status => 'cancelled', enabled => false, target => 't')";
    let mut client = with_states(&cluster, holds);
    let goes = "queue = 'q1' AND state = 'failed'";
    let counts = format!("count(*), count(*) FILTER (WHERE {goes}), count(*) FILTER (WHERE NOT ({goes}))");
    let wanted = |client: &mut Client, of: &str, order: &str| -> Vec<String> {
        let wanted = format!(
            "SELECT concat_ws(' ', {of}, {counts}) FROM saved WHERE state <> 'available' GROUP BY {of} ORDER BY {order}"
        );
        column(client, &wanted)
    };
    let of_statuses = wanted(&mut client, "state", "state DESC");
    let of_policies = wanted(&mut client, &format!("CASE WHEN {goes} THEN 'any' ELSE queue END"), "1 DESC");
    let of_recipes = wanted(&mut client, "queue", "queue DESC");
    // All add up to the same sums: of the 67 rows in scope, those that go and those that are held.
    let sums = |counted: &[String]| {
        let figures = |line: &String| line.split(' ').skip(1).map(|figure| figure.parse().unwrap()).collect();
        let figures: Vec<Vec<i64>> = counted.iter().map(figures).collect();
        [0, 1, 2].map(|place| figures.iter().map(|figures| figures[place]).sum::<i64>())
    };
    let all = sums(&of_policies);
    assert_eq!([sums(&of_statuses), sums(&of_recipes)], [all, all]);
    for call in EMERGENCY {
        for (list, numbers, wanted, table) in [
            ("statuses", ["inScope", "removed", "kept"], &of_statuses, "run_status"),
            ("policies", ["inScope", "removed", "kept"], &of_policies, "run_policy"),
            ("cleanupDetails", ["failedCount", "cleanedCount", "keptCount"], &of_recipes, "run_recipe"),
        ] {
            client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
            assert_eq!(&reported(&mut client, call, list, &numbers), wanted, "{call}");
            if call.contains("dry_run") {
                continue;
            }
            let (in_scope, removed) = match table {
                // Recipes that lost rows.
                "run_recipe" => ("failed_count", "cleaned_count"),
                _ => ("in_scope", "removed"),
            };
            let history = format!(
                "SELECT string_agg(concat_ws(' ', total_failed, r.removed, held), ',') || '; ' ||
                        (SELECT concat_ws(' ', sum({in_scope}), sum({removed})) FROM backlog_cleanup.{table} WHERE run_id = r.id)
                 FROM backlog_cleanup.run r WHERE id = (SELECT max(id) FROM backlog_cleanup.run) GROUP BY id"
            );
            let [in_scope, removed, held] = all;
            let of_table = if table == "run_recipe" { sums(&of_recipes[..1]) } else { all };
            let history: String = value(&mut client, &history);
            assert_eq!(history, format!("{in_scope} {removed} {held}; {} {}", of_table[0], of_table[1]), "{call}");
        }
    }
}

#[test]
fn status_counts_every_status_that_is_there_and_the_rows_in_scope() {
    let cluster = Cluster::start("");
    let mut client = with_states(
        &cluster,
        "UPDATE job SET state = 'scheduled' WHERE id IN (2, 5); UPDATE job SET state = NULL WHERE id = 8;
         UPDATE backlog_cleanup.target SET condition = 'id <> 3' WHERE name = 't'",
    );
    let status = "SELECT concat_ws(' ', recipe_id, total_count, failed_count, pending_count, in_scope_count, statuses)
                  FROM backlog_cleanup_status('t') ORDER BY recipe_id";
    let found: Vec<String> = column(&mut client, status);
    let wanted = "SELECT concat_ws(' ', queue, count(*), count(*) FILTER (WHERE state IN ('failed', 'cancelled') AND id <> 3),
                                   count(*) FILTER (WHERE state = 'available'),
                                   count(*) FILTER (WHERE state IN ('failed', 'cancelled') AND id <> 3),
                                   (SELECT jsonb_object_agg(coalesce(state, '(none)'), rows)
                                    FROM (SELECT state, count(*) AS rows FROM job b WHERE b.queue = job.queue GROUP BY state) c))
                  FROM job GROUP BY queue ORDER BY queue";
    assert_eq!(found, column::<String>(&mut client, wanted));
    // Rows in several statuses are ranked together.
    let removable = "SELECT sum(removable_count)::bigint FROM backlog_cleanup_status('t')";
    let dry = "SELECT (backlog_cleanup_failed_generations('t', dry_run => true) ->> 'cleanedUpGenerations')::bigint";
    assert_eq!(number(&mut client, removable), number(&mut client, dry));
    let document: serde_json::Value = value(&mut client, "SELECT backlog_cleanup_status_json('t')");
    assert_eq!(document["inScope"], 66);
    assert_eq!(document["statuses"][0], serde_json::json!({"status": "cancelled", "count": 34}));
    assert_eq!(document["statuses"].as_array().unwrap().len(), 5, "{document}");
    // Not as many as there are texts.
    client.batch_execute("UPDATE job SET state = 'state ' || id; INSERT INTO job (id, state) SELECT i, 'state ' || i FROM generate_series(101, 200) i").unwrap();
    let document: serde_json::Value = value(&mut client, "SELECT backlog_cleanup_status_json('t')");
    assert_eq!(document["statuses"].as_array().unwrap().len(), 101);
    assert_eq!(document["statuses"][0], serde_json::json!({"status": "(other)", "count": 100}));
}

#[test]
fn a_run_is_limited_to_a_status_in_every_form() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = with_states(&cluster, "");
    let left = "SELECT concat_ws(' ', state, count(*)) FROM job GROUP BY state ORDER BY state";
    for call in REGULAR.into_iter().chain(EMERGENCY).skip(2) {
        client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
        let of_states: Vec<String> = column(&mut client, OF_STATES);
        let cancelled: i64 = match call.contains("emergency") {
            true => 34,
            false => of_states[1].split(' ').next_back().unwrap().parse().unwrap(),
        };
        let selective = call.replace(')', ", status => 'cancelled')");
        client.query_one(&selective, &[]).unwrap_or_else(|failure| panic!("{selective}: {failure:?}"));
        let stay = if call.contains("dry_run") { 34 } else { 34 - cancelled };
        let mut wanted = vec!["available 33".to_owned(), format!("cancelled {stay}"), "failed 33".to_owned()];
        wanted.retain(|state| !state.ends_with(" 0"));
        assert_eq!(column::<String>(&mut client, left), wanted, "{selective}");
        if !call.contains("dry_run") {
            let run = "SELECT status = 'cancelled' FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
            assert!(truth(&mut client, run), "{selective}");
        }
        let outside = call.replace(')', ", status => 'available')");
        let (sqlstate, message, hint) = refused(client.batch_execute(&outside));
        assert_eq!((sqlstate.as_str(), message.contains("\"available\"")), ("22023", true), "{outside}: {message}");
        client.batch_execute(&hint).unwrap();
    }
}

#[test]
fn messages_and_reports_use_the_words_of_the_target() {
    let cluster = Cluster::start("");
    let mut client = with_states(
        &cluster,
        "UPDATE backlog_cleanup.target SET group_word = 'queue', row_word = 'job' WHERE name = 't';
         SELECT backlog_cleanup_set_policy('q0', enabled => false, target => 't')",
    );
    let said: String =
        value(&mut client, "SELECT backlog_cleanup_failed_generations('t', rehearse => true) ->> 'message'");
    assert!(said.ends_with("; 33 jobs are held by policies"), "{said}");
    for report in ["backlog_cleanup_failed_generations('t', dry_run => true)", "backlog_cleanup_status_json('t')"] {
        let words = format!("SELECT concat_ws(' ', r ->> 'groupWord', r ->> 'rowWord') FROM {report} r");
        assert_eq!(value::<String>(&mut client, &words), "queue job");
    }
    client.batch_execute("UPDATE job SET queue = NULL WHERE queue = 'q1'").unwrap();
    for names in [
        "SELECT recipe_name FROM backlog_cleanup_status('t') WHERE recipe_id IS NULL",
        "SELECT recipe_name FROM backlog_cleanup_simulate(keep => 1, target => 't') WHERE recipe IS NULL",
        "SELECT detail ->> 'recipeName' FROM backlog_cleanup_failed_generations('t', dry_run => true) report,
                jsonb_array_elements(report::jsonb -> 'cleanupDetails') detail WHERE detail ->> 'recipeId' IS NULL",
    ] {
        assert_eq!(value::<String>(&mut client, names), "No queue", "{names}");
    }
    let policy = "SELECT policy FROM backlog_cleanup_explain((SELECT min(id)::text FROM job WHERE queue = 'q0' AND state = 'failed'), 't')";
    assert_eq!(value::<String>(&mut client, policy), "queue \"q0\"");
    client.batch_execute("UPDATE backlog_cleanup.target SET max_rows_per_run = 1 WHERE name = 't'").unwrap();
    let (_, message, _) = refused(client.batch_execute("SELECT backlog_cleanup_failed_generations('t')"));
    assert!(message.contains(" jobs in scope, more than max_rows_per_run"), "{message}");
    let default = "SELECT string_agg(group_word || ' ' || row_word, ', ' ORDER BY name) FROM backlog_cleanup.target";
    client
        .batch_execute("UPDATE backlog_cleanup.target SET group_word = DEFAULT, row_word = DEFAULT WHERE name = 't'")
        .unwrap();
    assert_eq!(value::<String>(&mut client, default), "recipe generation, group row");
    for wrong in ["''", "' job'", "E'jo\\nb'", "'a  b'", "repeat('x', 41)", "NULL"] {
        let write = format!("UPDATE backlog_cleanup.target SET row_word = {wrong} WHERE name = 't'");
        assert!(matches!(refused(client.batch_execute(&write)).0.as_str(), "23514" | "23502"), "{write}");
    }
}

#[test]
fn the_doctor_names_what_no_row_has_and_what_can_never_apply() {
    let cluster = Cluster::start("");
    let mut client = with_states(&cluster, "");
    let mend = |client: &mut Client, check: &str, said: &str| {
        let found = findings(client, check);
        let (status, detail, fix) =
            found.iter().find(|found| found.1.contains(said)).unwrap_or_else(|| panic!("{found:?}"));
        assert_eq!(status, "warn", "{detail}");
        client.batch_execute(fix.as_ref().expect("a fix")).unwrap();
        let found = findings(client, check);
        assert!(found.iter().all(|found| !found.1.contains(said)), "{found:?}");
    };
    // A status that no row has: a remark, until a run has looked for it.
    client
        .batch_execute("UPDATE backlog_cleanup.target SET statuses = statuses || '{discarded}' WHERE name = 't'")
        .unwrap();
    let (status, detail, _) = finding(&mut client, "rows");
    assert_eq!((status.as_str(), detail.contains("\"discarded\"")), ("ok", true), "{detail}");
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    // While a policy names it, the target cannot be without it.
    client
        .batch_execute("SELECT backlog_cleanup_set_policy(status => 'discarded', enabled => false, target => 't')")
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "rows");
    assert_eq!((status.as_str(), fix), ("warn", None), "{detail}");
    client.batch_execute("SELECT backlog_cleanup_drop_policy(status => 'discarded', target => 't')").unwrap();
    mend(&mut client, "rows", "no row has status \"discarded\", and no run has found one");
    // One that runs have found is all gone.
    client.batch_execute("DELETE FROM job WHERE state = 'cancelled'").unwrap();
    assert_eq!(finding(&mut client, "rows").0, "ok");
    client.batch_execute("TRUNCATE job; INSERT INTO job TABLE saved").unwrap();
    // A policy that others shadow, and one whose status is out of scope.
    client
        .batch_execute(
            "SELECT backlog_cleanup_set_policy('q1', target => 't'),
                    backlog_cleanup_set_policy('q1', status => 'failed', target => 't'),
                    backlog_cleanup_set_policy('q1', status => 'cancelled', target => 't'),
                    backlog_cleanup_set_policy('q7', target => 't');
             SELECT backlog_cleanup_failed_generations('t')",
        )
        .unwrap();
    mend(&mut client, "policy", "the policy for group \"q1\" can never apply: there is one for each status");
    let (status, detail, fix) = finding(&mut client, "policy");
    assert!(
        status == "warn" && fix.is_none() && detail.contains("no row under the policy for group \"q7\""),
        "{detail}"
    );
    // The default policy stays, whoever takes its rows.
    client
        .batch_execute(
            "BEGIN; DELETE FROM backlog_cleanup.policy WHERE recipe_id IS NOT NULL;
             SELECT backlog_cleanup_set_policy(status => status, target => 't')
             FROM backlog_cleanup.target, unnest(statuses) status WHERE name = 't'",
        )
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "policy");
    assert!(status == "ok" && fix.is_none() && detail.contains("the default policy can never apply"), "{detail}");
    client.batch_execute("ROLLBACK").unwrap();
    let narrow = "UPDATE backlog_cleanup.target SET statuses = '{failed}' WHERE name = 't'";
    assert_eq!(refused(client.batch_execute(narrow)).0, "2BP01");
    client.batch_execute("SELECT backlog_cleanup_drop_policy('q1', status => 'cancelled', target => 't')").unwrap();
    client.batch_execute(narrow).unwrap();
    // Rows that never expire, with their number.
    client
        .batch_execute("UPDATE job SET at = NULL WHERE id IN (SELECT id FROM job WHERE state = 'failed' LIMIT 2)")
        .unwrap();
    let (status, detail, _) = finding(&mut client, "failed_at");
    assert_eq!((status.as_str(), detail.starts_with("2 rows in scope")), ("warn", true), "{detail}");
}

#[test]
fn the_defaults_of_a_policy_are_those_of_the_table() {
    let cluster = Cluster::start("");
    let mut client = with_states(
        &cluster,
        "ALTER TABLE backlog_cleanup.policy ALTER keep SET DEFAULT 3, ALTER max_age SET DEFAULT '1 day 1 hour'",
    );
    let kept = "SELECT max(kept_then) FROM backlog_cleanup_simulate('q1', target => 't') WHERE recipe = 'q1'";
    assert_eq!(value::<i64>(&mut client, kept), 3);
    let policy = "SELECT concat_ws(' ', (p).max_age, (p).keep, (p).enabled) FROM backlog_cleanup_set_policy('q1', target => 't') p";
    assert_eq!(value::<String>(&mut client, policy), "1 day 01:00:00 3 t");
    // What is there stays as it is, where nothing else is said.
    let policy = policy.replace("'q1',", "'q1', note => 'n',").replace("enabled)", "note)");
    client.batch_execute("ALTER TABLE backlog_cleanup.policy ALTER keep SET DEFAULT 4").unwrap();
    assert_eq!(value::<String>(&mut client, &policy), "1 day 01:00:00 3 n");
}

#[test]
fn failures_are_what_is_there_and_what_runs_have_removed_by_hour_and_type() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.policy SET max_age = '1 hour', keep = 5;
             INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
             SELECT 'system_backlog', i % 3, '', 'failed', CASE i % 4 WHEN 0 THEN 'timeout' WHEN 1 THEN NULL ELSE 'HTTP 503' END,
                    date_trunc('hour', now() AT TIME ZONE 'UTC') - interval '1 hour' * (2 + i % 5) + interval '1 minute'
             FROM generate_series(1, 120) i",
        )
        .unwrap();
    let came = "SELECT string_agg(concat_ws('|', hour AT TIME ZONE 'UTC', failure_type, failed_count + removed_count), ',' ORDER BY hour, failure_type)
                FROM backlog_cleanup_failures()";
    let sums = "SELECT sum(failed_count)::bigint, sum(removed_count)::bigint FROM backlog_cleanup_failures()";
    let before: String = value(&mut client, came);
    assert_eq!(numbers(&mut client, sums), [120, 0]);
    // In one transaction, in batches (also of a run that is at work), and in an emergency: the past stays what it was.
    client.batch_execute("SELECT backlog_cleanup_failed_generations(recipe_id => '1')").unwrap();
    assert_eq!((value::<String>(&mut client, came), numbers(&mut client, sums)), (before.clone(), [85, 35]));
    let mut session = cluster.connect();
    session.batch_execute(&cluster::start_run(20)).unwrap();
    let run: i64 = value(&mut client, "SELECT max(id) FROM backlog_cleanup.run");
    session.batch_execute(&format!("SELECT backlog_cleanup.next_batch({run})")).unwrap();
    assert_eq!((value::<String>(&mut client, came), numbers(&mut client, sums)), (before.clone(), [65, 55]));
    while truth(&mut session, &format!("SELECT backlog_cleanup.next_batch({run}) IS NOT NULL")) {}
    session.batch_execute(&format!("SELECT backlog_cleanup.finish_run({run})")).unwrap();
    assert_eq!((value::<String>(&mut client, came), numbers(&mut client, sums)), (before.clone(), [15, 105]));
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run_batch"), 0);
    client.batch_execute("SELECT backlog_cleanup_emergency()").unwrap();
    assert_eq!((value::<String>(&mut client, came), numbers(&mut client, sums)), (before, [0, 120]));
    // Of which recipe, too.
    let recipes = "SELECT string_agg(concat_ws(' ', recipe_id, removed), ', ' ORDER BY recipe_id)
                   FROM (SELECT recipe_id, sum(removed) AS removed FROM backlog_cleanup.run_failure GROUP BY 1) of_recipe";
    assert_eq!(value::<String>(&mut client, recipes), "0 40, 1 40, 2 40");
    let balanced = "SELECT bool_and(r.removed = (SELECT sum(removed) FROM backlog_cleanup.run_failure WHERE run_id = r.id)) FROM backlog_cleanup.run r";
    assert!(truth(&mut client, balanced));

    // Of many, a sample stands for all: the sums are right, and types and hours nearly so.
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
             SELECT 'system_backlog', i % 7, '', 'failed', CASE WHEN i % 10 < 7 THEN 'HTTP 503' ELSE 'timeout ' || i END,
                    date_trunc('hour', now() AT TIME ZONE 'UTC') - interval '1 hour' * (2 + i % 40 / 10) + interval '1 minute'
             FROM generate_series(1, 40000) i",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run(batch_size => 5000)").unwrap();
    assert!(truth(&mut client, balanced));
    let share = "SELECT 100 * sum(removed) FILTER (WHERE failure_type = 'HTTP 503') / sum(removed) FROM backlog_cleanup.run_failure
                 WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
    let share = number(&mut client, share);
    assert!((60..=80).contains(&share), "{share} %");

    // Of many recipes the largest, in both forms.
    let many = "INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
                SELECT 'system_backlog', CASE WHEN i <= 15 THEN NULL WHEN i <= 100 THEN i % 8 ELSE i END, '', 'failed', 'x',
                       now() AT TIME ZONE 'UTC' - interval '2 hours' FROM generate_series(1, 120) i";
    for run in ["CALL backlog_cleanup_run(batch_size => 100)", "SELECT backlog_cleanup_failed_generations()"] {
        client.batch_execute("DELETE FROM generations; UPDATE backlog_cleanup.policy SET keep = 0").unwrap();
        client.batch_execute(many).unwrap();
        client.batch_execute(run).unwrap();
        let recipes =
            "SELECT concat_ws(' ', count(DISTINCT recipe_id), sum(removed) FILTER (WHERE recipe_id = '(none)'),
                                        sum(removed) FILTER (WHERE recipe_id = '(other)'))
                       FROM backlog_cleanup.run_failure WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
        assert_eq!(value::<String>(&mut client, recipes), "6 15 61", "{run}");
    }
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 5").unwrap();

    // Code of the owner that fails in between stops no run: then it is not known.
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
             SELECT 'system_backlog', 1, '', 'failed', 'x', now() AT TIME ZONE 'UTC' - interval '2 hours' FROM generate_series(1, 50);
             CREATE FUNCTION typed(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
             UPDATE backlog_cleanup.target SET failure_type_column = '(public.typed(failure_reason))';
             CREATE OR REPLACE FUNCTION typed(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''no''; END';
             SELECT backlog_cleanup_failed_generations()",
        )
        .unwrap();
    let unknown =
        "SELECT bool_and(hour IS NULL AND failure_type IS NULL AND recipe_id IS NULL) AND sum(removed) > 40 FROM backlog_cleanup.run_failure
                   WHERE run_id = (SELECT max(id) FROM backlog_cleanup.run)";
    assert!(truth(&mut client, unknown));
}

#[test]
fn a_report_lists_every_recipe_that_loses_rows_and_a_thousand_of_the_others() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', i, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' FROM generate_series(1, 1500) i;
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', 1001 + i % 2, '', 'failed', now() AT TIME ZONE 'UTC' - interval '3 days' FROM generate_series(1, 30) i",
        )
        .unwrap();
    let report = "SELECT (r ->> 'recipesAffected')::bigint, (r ->> 'totalFailedGenerations')::bigint,
                         jsonb_array_length(r -> 'cleanupDetails')::bigint,
                         (SELECT sum((detail ->> 'cleanedCount')::bigint)::bigint FROM jsonb_array_elements(r -> 'cleanupDetails') detail)
                  FROM backlog_cleanup_failed_generations() r";
    assert_eq!(numbers(&mut client, report), [1500, 1530, 1002, 12]);
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run_recipe"), 2);
    let message: String = value(&mut client, "SELECT backlog_cleanup_failed_generations() ->> 'message'");
    assert!(message.ends_with("; the details have 1000 of 1500 recipes"), "{message}");
}
