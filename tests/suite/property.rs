//! Random tables of every kind, cleaned up, and compared with an oracle that knows nothing of SQL.

use std::cell::RefCell;
use std::collections::BTreeSet;

use cluster::{Cluster, column, number};
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const DAY: i64 = 86_400_000_000;

/// One row; its id is its place in the table.
#[derive(Debug, Clone)]
struct Row {
    ours: bool,
    failed: bool,
    recipe: Option<u8>,
    failure_type: Option<bool>,
    /// Microseconds before now; negative is the future.
    age: Option<i64>,
    /// Whether it meets the condition, if the target has one.
    met: Option<bool>,
}

#[derive(Debug, Clone)]
struct Case {
    rows: Vec<Row>,
    keep: usize,
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
        prop::bool::weighted(0.8),
        prop::option::weighted(0.8, 0..3u8),
        any::<Option<bool>>(),
        age,
        prop::option::weighted(0.9, prop::bool::weighted(0.8)),
    )
        .prop_map(|(ours, failed, recipe, failure_type, age, met)| Row {
            ours,
            failed,
            recipe,
            failure_type,
            age,
            met,
        })
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
        0..4usize,
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, 0..3u8),
        prop::option::weighted(0.2, any::<bool>()),
    );
    (prop::collection::vec(row(), 0..60), run, kinds).prop_map(
        |(
            rows,
            (keep, emergency, only_recipe, only_type),
            (id_type, recipe_type, time_type, hostile, index, time_zone, partitioned, expressions),
        )| Case {
            rows,
            keep,
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

/// The places of the rows that stay.
fn oracle(case: &Case) -> BTreeSet<usize> {
    let failed = |place: &usize| {
        let row = &case.rows[*place];
        row.ours && row.failed && (!case.expressions || row.met == Some(true))
    };
    let selected = |place: &usize| {
        let row = &case.rows[*place];
        case.only_recipe.is_none_or(|recipe| row.recipe == Some(recipe))
            && case.only_type.is_none_or(|wanted| row.failure_type == Some(wanted))
    };
    let mut gone: Vec<usize> = Vec::new();
    if case.emergency {
        gone.extend((0..case.rows.len()).filter(failed));
    } else {
        for recipe in [None, Some(0), Some(1), Some(2)] {
            let mut expired: Vec<usize> = (0..case.rows.len())
                .filter(|place| failed(place) && case.rows[*place].recipe == recipe)
                .filter(|place| case.rows[*place].age.is_some_and(|age| age > DAY))
                .collect();
            expired.sort_by_key(|place| (case.rows[*place].age, std::cmp::Reverse(*place)));
            gone.extend(expired.into_iter().skip(case.keep));
        }
    }
    let gone: BTreeSet<usize> = gone.into_iter().filter(selected).collect();
    (0..case.rows.len()).filter(|place| !gone.contains(place)).collect()
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
    let Case { id_type, recipe_type, time_type, time_zone, keep, .. } = case;
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
    let mut sql = format!(
        "SET TimeZone = '{time_zone}';
         CREATE SCHEMA \"My \"\"Schema\";
         CREATE TABLE {table} ({id} {id_type}, {account} varchar, {recipe} {recipe_type}, {status} text, {at} {time_type},
                               {kind} text, met boolean) {partitioning};
         INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, id_column,
             account_column, recipe_column, status_column, failed_at_column, failure_type_column)
         VALUES ('case', {}, NULL, NULL, 'public.credit_transactions', {});
         {expressions};
         UPDATE backlog_cleanup.policy SET keep = {keep} WHERE target = 'case';\n",
        literal(table),
        columns.map(literal).join(", "),
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
            if row.failed { "failed" } else { "pending" },
            or_null(row.age.map(|age| format!("{now} - interval '{age} microseconds'"))),
            or_null(row.failure_type.map(|kind| literal(&kind.to_string()))),
            or_null(row.met.map(|met| met.to_string())),
        );
    }
    sql
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
    let (function, mode) = if case.emergency { ("emergency", "emergency") } else { ("failed_generations", "regular") };
    let only_recipe = or_null(case.only_recipe.map(|recipe| literal_of(case.recipe_type, recipe.into())));
    let only_type = or_null(case.only_type.map(|kind| literal(&kind.to_string())));
    let run = |client: &mut Client, is_dry: bool| -> Result<i64, postgres::Error> {
        let run = format!(
            "SELECT coalesce(report ->> 'cleanedUpGenerations', report ->> 'removedCount')::bigint
             FROM backlog_cleanup_{function}('case', {only_recipe}, {only_type}, dry_run => {is_dry}) AS report"
        );
        Ok(client.query_one(&run, &[])?.get(0))
    };
    let would_remove = run(client, true)?;
    let removed = match batches {
        None => run(client, false)?,
        Some((batch_size, workers)) => {
            client.batch_execute(&format!(
                "CALL backlog_cleanup_run('case', '{mode}', {batch_size}, workers => {workers},
                                          recipe_id => {only_recipe}, failure_type => {only_type})"
            ))?;
            number(client, "SELECT removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1")
        }
    };
    assert_eq!(would_remove, removed, "a dry run reports what a real one does");
    assert_eq!(run(client, false)?, 0, "a second run removes nothing");
    assert_eq!(number(client, "SELECT sum(amount) FROM credit_transactions"), removed, "the ledger");
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
    runner(150).run(&case(), each).unwrap();
}

#[test]
fn exactly_the_removable_rows_go_in_batches() {
    const HOUR: i64 = DAY / 24;
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let client = RefCell::new(cluster.platform());
    let each = |(mut case, batch_size, workers): (Case, i32, i32)| {
        // Here time goes by between the rows and the run.
        for age in case.rows.iter_mut().filter_map(|row| row.age.as_mut()) {
            if (*age - DAY).abs() < HOUR {
                *age = if *age > DAY { DAY + HOUR } else { DAY - HOUR };
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
    runner(40).run(&(case(), 1..20i32, 1..=2i32), each).unwrap();
}
