//! Random tables of every kind, cleaned up, and compared with an oracle that knows nothing of SQL.

use std::cell::RefCell;
use std::collections::BTreeSet;

use cluster::{Cluster, column, number};
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const DAY: i64 = 86_400_000_000;

const STATUSES: [&str; 4] = ["failed", "cancelled", "discarded", "pending"];

/// One row; its id is its place in the table.
#[derive(Debug, Clone)]
struct Row {
    ours: bool,
    /// Its place in `STATUSES`.
    status: usize,
    recipe: Option<u8>,
    failure_type: Option<bool>,
    /// Microseconds before now; negative is the future.
    age: Option<i64>,
    /// Whether it meets the condition, if the target has one.
    met: Option<bool>,
}

/// A policy, for a recipe, a failure type, a status, some of them, or any row.
#[derive(Debug, Clone)]
struct Policy {
    recipe: Option<u8>,
    failure_type: Option<bool>,
    status: Option<usize>,
    /// Days.
    max_age: i64,
    keep: usize,
    /// Days, above `max_age`.
    max_keep_age: Option<i64>,
    enabled: bool,
}

#[derive(Debug, Clone)]
struct Case {
    rows: Vec<Row>,
    /// Of the first three `STATUSES`, those whose rows may go.
    statuses: Vec<usize>,
    /// Whether every row is the target's.
    without_account: bool,
    /// With different names; the first is the default policy.
    policies: Vec<Policy>,
    include_held: bool,
    emergency: bool,
    only_recipe: Option<u8>,
    only_type: Option<bool>,
    id_type: &'static str,
    recipe_type: &'static str,
    time_type: &'static str,
    hostile: bool,
    index: bool,
    time_zone: &'static str,
    partitioned: bool,
    /// Whether the target has expressions instead of columns, and a condition.
    expressions: bool,
}

/// How a batched run goes; none is one transaction.
type Batches = Option<(i32, i32)>;

fn row() -> impl Strategy<Value = Row> {
    let age = prop_oneof![
        1 => Just(None),
        6 => prop::sample::select(vec![-DAY, 0, DAY - 1, DAY, DAY + 1, 2 * DAY, 3 * DAY]).prop_map(Some),
        2 => (-2 * DAY..4 * DAY).prop_map(Some),
    ];
    (
        prop::bool::weighted(0.8),
        prop_oneof![3 => Just(0), 2 => 1..4usize],
        prop::option::weighted(0.8, 0..3u8),
        any::<Option<bool>>(),
        age,
        prop::option::weighted(0.9, prop::bool::weighted(0.8)),
    )
        .prop_map(|(ours, status, recipe, failure_type, age, met)| Row {
            ours,
            status,
            recipe,
            failure_type,
            age,
            met,
        })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let policy = (
        prop::option::weighted(0.6, 0..3u8),
        any::<Option<bool>>(),
        prop::option::weighted(0.4, 0..3usize),
        0..4i64,
        0..4usize,
        prop::option::weighted(0.2, 0..2i64),
        prop::bool::weighted(0.8),
    );
    let policy = policy.prop_map(|(recipe, failure_type, status, max_age, keep, longer, enabled)| {
        let max_keep_age = longer.map(|days| max_age + days);
        Policy { recipe, failure_type, status, max_age, keep, max_keep_age, enabled }
    });
    prop::collection::vec(policy, 1..6)
}

/// The first as the default policy, and of those with the same names the first; a status out of scope is refused.
fn obeyed(mut policies: Vec<Policy>, statuses: &[usize]) -> Vec<Policy> {
    (policies[0].recipe, policies[0].failure_type, policies[0].status) = (None, None, None);
    let mut seen = BTreeSet::new();
    policies.retain(|policy| {
        policy.status.is_none_or(|status| statuses.contains(&status))
            && seen.insert((policy.recipe, policy.failure_type, policy.status))
    });
    policies
}

fn case() -> impl Strategy<Value = Case> {
    let kinds = (
        prop::sample::select(vec!["integer", "bigint", "uuid", "text"]),
        prop::sample::select(vec!["integer", "bigint", "uuid", "text", "varchar(40)"]),
        prop::sample::select(vec!["timestamp", "timestamptz"]),
        any::<bool>(),
        any::<bool>(),
        prop::sample::select(vec!["UTC", "America/New_York", "Pacific/Kiritimati"]),
        any::<bool>(),
        any::<bool>(),
    );
    let run = (
        (policies(), prop::sample::subsequence(vec![0, 1, 2], 1..=3), prop::bool::weighted(0.2)),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, 0..3u8),
        prop::option::weighted(0.2, any::<bool>()),
    );
    (prop::collection::vec(row(), 0..60), run, kinds).prop_map(
        |(
            rows,
            ((policies, statuses, without_account), include_held, emergency, only_recipe, only_type),
            (id_type, recipe_type, time_type, hostile, index, time_zone, partitioned, expressions),
        )| Case {
            rows,
            policies: obeyed(policies, &statuses),
            statuses,
            without_account,
            include_held,
            emergency,
            only_recipe,
            only_type,
            id_type,
            recipe_type,
            time_type,
            hostile,
            index,
            time_zone,
            partitioned,
            expressions,
        },
    )
}

/// The place of the policy that a row has.
fn policy_of(case: &Case, row: &Row) -> usize {
    let is_for = |policy: &Policy| {
        policy.recipe.is_none_or(|recipe| row.recipe == Some(recipe))
            && policy.failure_type.is_none_or(|kind| row.failure_type == Some(kind))
            && policy.status.is_none_or(|status| row.status == status)
    };
    let matching = (0..case.policies.len()).filter(|place| is_for(&case.policies[*place]));
    let names = |place: &usize| {
        let policy = &case.policies[*place];
        (policy.recipe.is_some(), policy.failure_type.is_some(), policy.status.is_some())
    };
    matching.max_by_key(names).expect("the default policy")
}

fn is_in_scope(case: &Case, row: &Row) -> bool {
    (row.ours || case.without_account)
        && case.statuses.contains(&row.status)
        && (!case.expressions || row.met == Some(true))
}

/// What becomes of a row, whatever a run selects.
fn verdict(case: &Case, place: usize) -> &'static str {
    let row = &case.rows[place];
    if !is_in_scope(case, row) {
        return "out of scope";
    }
    let number = policy_of(case, row);
    let policy = &case.policies[number];
    if !policy.enabled {
        let names_something = policy.recipe.is_some() || policy.failure_type.is_some() || policy.status.is_some();
        return if names_something { "held" } else { "kept" };
    }
    let is_expired = |row: &Row| row.age.is_some_and(|age| age > policy.max_age * DAY);
    if !is_expired(row) {
        return "young";
    }
    if policy.max_keep_age.is_some_and(|days| row.age > Some(days * DAY)) {
        return "removable";
    }
    let is_newer = |(other_place, other): &(usize, &Row)| {
        (other.age, std::cmp::Reverse(*other_place)) < (row.age, std::cmp::Reverse(place))
    };
    let of_group = case.rows.iter().enumerate().filter(|(_, other)| {
        is_in_scope(case, other) && other.recipe == row.recipe && policy_of(case, other) == number && is_expired(other)
    });
    if of_group.filter(is_newer).count() < policy.keep { "kept" } else { "removable" }
}

/// The places of the rows that stay.
fn oracle(case: &Case) -> BTreeSet<usize> {
    let selected = |row: &Row| {
        case.only_recipe.is_none_or(|recipe| row.recipe == Some(recipe))
            && case.only_type.is_none_or(|wanted| row.failure_type == Some(wanted))
    };
    let goes = |place: &usize| {
        selected(&case.rows[*place])
            && match verdict(case, *place) {
                "out of scope" => false,
                "held" => case.emergency && case.include_held,
                verdict => case.emergency || verdict == "removable",
            }
    };
    (0..case.rows.len()).filter(|place| !goes(place)).collect()
}

/// A value of one of the id types, in the order of its number.
fn literal_of(sql_type: &str, number: usize) -> String {
    match sql_type {
        "uuid" => literal(&format!("00000000-0000-0000-0000-{number:012}")),
        "integer" | "bigint" => literal(&number.to_string()),
        _ => literal(&format!("it's {number:05}")),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn or_null(literal: Option<String>) -> String {
    literal.unwrap_or_else(|| "NULL".into())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The table and its columns id, account, recipe, status, time and failure type.
fn names(case: &Case) -> (&'static str, [&'static str; 6]) {
    if case.hostile {
        (r#""My ""Schema"."Gen;erations"" x""#, [r#"i"d"#, "ac'count", "re;cipe", "Status", "updated at", "-- kind"])
    } else {
        ("public.plain", ["id", "account", "recipe", "status", "at", "kind"])
    }
}

/// The statements that make the table, its target and its rows.
fn setup(case: &Case) -> String {
    let (table, columns) = names(case);
    let [id, account, recipe, status, at, kind] = columns.map(quoted);
    let Case { id_type, recipe_type, time_type, time_zone, .. } = case;
    let partitioning = if case.partitioned { format!("PARTITION BY HASH ({id})") } else { String::new() };
    let expressions = if case.expressions {
        let [recipe, status, at, kind] = [
            format!("(coalesce({recipe}, NULL))"),
            format!("(lower({status}))"),
            format!("(greatest({at}, {at}))"),
            format!("({kind} || '')"),
        ]
        .map(|text| literal(&text));
        format!(
            "UPDATE backlog_cleanup.target SET recipe_column = {recipe}, status_column = {status}, failed_at_column = {at},
                 failure_type_column = {kind}, condition = '(met)' WHERE name = 'case'"
        )
    } else {
        String::new()
    };
    let mut listed = columns.map(literal);
    let account_and_ledger = if case.without_account {
        listed[1] = "NULL".into();
        "NULL, NULL"
    } else {
        "'system_backlog', 'public.credit_transactions'"
    };
    let mut sql = format!(
        "SET TimeZone = '{time_zone}';
         CREATE SCHEMA \"My \"\"Schema\";
         CREATE TABLE {table} ({id} {id_type}, {account} varchar, {recipe} {recipe_type}, {status} text, {at} {time_type},
                               {kind} text, met boolean) {partitioning};
         INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, id_column,
             account_column, recipe_column, status_column, failed_at_column, failure_type_column, account, ledger_table, statuses)
         VALUES ('case', {}, NULL, NULL, {}, {account_and_ledger}, '{{{}}}');
         {expressions};\n",
        literal(table),
        listed.join(", "),
        case.statuses.iter().map(|status| STATUSES[*status]).collect::<Vec<_>>().join(", "),
    );
    if case.partitioned {
        sql += &format!(
            "CREATE TABLE half PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE other PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST ({recipe});
             CREATE TABLE others PARTITION OF other DEFAULT;\n"
        );
    }
    let now = if *time_type == "timestamp" { "now() AT TIME ZONE 'UTC'" } else { "now()" };
    for (place, row) in case.rows.iter().enumerate() {
        sql += &format!(
            "INSERT INTO {table} VALUES ({}, '{}', {}, '{}', {}, {}, {});\n",
            literal_of(id_type, place),
            if row.ours { "system_backlog" } else { "somebody" },
            or_null(row.recipe.map(|recipe| literal_of(recipe_type, recipe.into()))),
            STATUSES[row.status],
            or_null(row.age.map(|age| format!("{now} - interval '{age} microseconds'"))),
            or_null(row.failure_type.map(|kind| literal(&kind.to_string()))),
            or_null(row.met.map(|met| met.to_string())),
        );
    }
    sql
}

/// The arguments that write a policy.
fn arguments(case: &Case, policy: &Policy) -> String {
    let days = |days: i64| format!("interval '{days} days'");
    format!(
        "recipe_id => {}, failure_type => {}, status => {}, max_age => {}, keep => {}, enabled => {}, max_keep_age => {}, target => 'case'",
        or_null(policy.recipe.map(|recipe| literal_of(case.recipe_type, recipe.into()))),
        or_null(policy.failure_type.map(|kind| literal(&kind.to_string()))),
        or_null(policy.status.map(|status| literal(STATUSES[status]))),
        days(policy.max_age),
        policy.keep,
        policy.enabled,
        or_null(policy.max_keep_age.map(days)),
    )
}

/// Checks what the extension says beforehand of each row, and of all.
fn foretold(client: &mut Client, case: &Case) -> Result<(), postgres::Error> {
    let removable = (0..case.rows.len()).filter(|place| verdict(case, *place) == "removable").count() as i64;
    let last = case.policies.last().expect("the default policy");
    let simulate = |what: &str| {
        format!("SELECT coalesce(sum({what}), 0)::bigint FROM backlog_cleanup_simulate({})", arguments(case, last))
    };
    for query in [
        "SELECT coalesce(sum(removable_count), 0)::bigint FROM backlog_cleanup_status('case')".to_owned(),
        simulate("removable_now"),
        simulate("removable_then"),
    ] {
        assert_eq!(client.query_one(&query, &[])?.get::<_, i64>(0), removable, "{query}: {case:?}");
    }
    for place in 0..case.rows.len() {
        let explain =
            format!("SELECT verdict FROM backlog_cleanup_explain({}, 'case')", literal_of(case.id_type, place));
        let said: String = client.query_one(&explain, &[])?.get(0);
        assert_eq!(said, verdict(case, place), "row {place}: {case:?}");
    }
    Ok(())
}

/// What a run has left and how many rows it says to have removed, as the ledger does.
struct Outcome {
    left: BTreeSet<usize>,
    removed: usize,
}

fn outcome(client: &mut Client, case: &Case, batches: Batches) -> Result<Outcome, postgres::Error> {
    client.batch_execute(&setup(case))?;
    if case.index {
        let create: String = client.query_one("SELECT backlog_cleanup_index_sql('case')", &[])?.get(0);
        client.batch_execute(&create.replace(" CONCURRENTLY", ""))?;
    }
    let (last, others) = case.policies.split_last().expect("the default policy");
    for policy in others {
        client.batch_execute(&format!("SELECT backlog_cleanup_set_policy({})", arguments(case, policy)))?;
    }
    let simulate = format!(
        "SELECT coalesce(sum(removable_then), 0)::bigint FROM backlog_cleanup_simulate({})",
        arguments(case, last)
    );
    let simulated: i64 = client.query_one(&simulate, &[])?.get(0);
    client.batch_execute(&format!("SELECT backlog_cleanup_set_policy({})", arguments(case, last)))?;
    if batches.is_none() {
        assert_eq!(
            simulated,
            number(client, "SELECT coalesce(sum(removable_count), 0)::bigint FROM backlog_cleanup_status('case')")
        );
        foretold(client, case)?;
    }
    let (function, mode) = if case.emergency { ("emergency", "emergency") } else { ("failed_generations", "regular") };
    let only_recipe = or_null(case.only_recipe.map(|recipe| literal_of(case.recipe_type, recipe.into())));
    let only_type = or_null(case.only_type.map(|kind| literal(&kind.to_string())));
    let include_held = if case.emergency && case.include_held { ", include_held => true" } else { "" };
    let run = |client: &mut Client, is_dry: bool| -> Result<i64, postgres::Error> {
        let run = format!(
            "SELECT coalesce(report ->> 'cleanedUpGenerations', report ->> 'removedCount')::bigint
             FROM backlog_cleanup_{function}('case', {only_recipe}, {only_type}, dry_run => {is_dry}{include_held}) AS report"
        );
        Ok(client.query_one(&run, &[])?.get(0))
    };
    let would_remove = run(client, true)?;
    let removed = match batches {
        None => run(client, false)?,
        Some((batch_size, workers)) => {
            client.batch_execute(&format!(
                "CALL backlog_cleanup_run('case', '{mode}', {batch_size}, workers => {workers},
                                          recipe_id => {only_recipe}, failure_type => {only_type}{include_held})"
            ))?;
            number(client, "SELECT removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1")
        }
    };
    assert_eq!(would_remove, removed, "a dry run reports what a real one does");
    assert_eq!(run(client, false)?, 0, "a second run removes nothing");
    if !case.without_account {
        assert_eq!(number(client, "SELECT sum(amount) FROM credit_transactions"), removed, "the ledger");
    }
    let (table, [id, ..]) = names(case);
    let left: Vec<String> = column(client, &format!("SELECT {}::text FROM {table}", quoted(id)));
    let place = |id: &String| id[id.len().saturating_sub(5)..].parse().expect("a number");
    Ok(Outcome { left: left.iter().map(place).collect(), removed: removed as usize })
}

fn must_be_exact(case: &Case, outcome: Result<Outcome, postgres::Error>) -> Result<(), TestCaseError> {
    let outcome = outcome.map_err(|failure| TestCaseError::fail(format!("{:?}", failure.as_db_error())))?;
    let expected = oracle(case);
    prop_assert_eq!(outcome.removed, case.rows.len() - expected.len());
    prop_assert_eq!(outcome.left, expected);
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn exactly_the_removable_rows_go() {
    let cluster = Cluster::start("");
    let client = RefCell::new(cluster.platform());
    let each = |case| {
        let client = &mut *client.borrow_mut();
        client.batch_execute("BEGIN").unwrap();
        let outcome = outcome(client, &case, None);
        client.batch_execute("ROLLBACK").unwrap();
        must_be_exact(&case, outcome)
    };
    runner(240).run(&case(), each).unwrap();
}

#[test]
fn exactly_the_removable_rows_go_in_batches() {
    const HOUR: i64 = DAY / 24;
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let client = RefCell::new(cluster.platform());
    let each = |(mut case, batch_size, workers): (Case, i32, i32)| {
        // Here time goes by between the rows and the run.
        for age in case.rows.iter_mut().filter_map(|row| row.age.as_mut()) {
            if let Some(days) = (0..5).find(|days| (*age - days * DAY).abs() < HOUR) {
                *age = if *age > days * DAY { days * DAY + HOUR } else { days * DAY - HOUR };
            }
        }
        let client = &mut *client.borrow_mut();
        let outcome = outcome(client, &case, Some((batch_size, workers)));
        client
            .batch_execute(
                "DELETE FROM backlog_cleanup.target WHERE name = 'case'; TRUNCATE credit_transactions;
                 DROP SCHEMA \"My \"\"Schema\" CASCADE; DROP TABLE IF EXISTS public.plain",
            )
            .unwrap();
        must_be_exact(&case, outcome)
    };
    runner(60).run(&(case(), 1..20i32, 1..=2i32), each).unwrap();
}
