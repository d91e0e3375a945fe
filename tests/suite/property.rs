//! Random tables of every kind, cleaned up, and compared with an oracle that knows nothing of SQL.

mod cluster;

use std::cell::RefCell;
use std::collections::BTreeSet;

use cluster::Cluster;
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
    )
        .prop_map(|(ours, failed, recipe, failure_type, age)| Row { ours, failed, recipe, failure_type, age })
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
            (id_type, recipe_type, time_type, hostile, index, time_zone, partitioned),
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
        },
    )
}

/// The places of the rows that stay.
fn oracle(case: &Case) -> BTreeSet<usize> {
    let failed = |place: &usize| case.rows[*place].ours && case.rows[*place].failed;
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
fn value(sql_type: &str, number: usize) -> String {
    match sql_type {
        "uuid" => format!("00000000-0000-0000-0000-{number:012}"),
        "integer" | "bigint" => number.to_string(),
        _ => format!("'it''s {number:05}'").trim_matches('\'').replace("''", "'"),
    }
}

fn literal(text: Option<String>) -> String {
    text.map_or("NULL".into(), |text| format!("'{}'", text.replace('\'', "''")))
}

fn survivors(
    client: &mut Client,
    case: &Case,
    batches: Batches,
) -> Result<(BTreeSet<usize>, i64, i64), postgres::Error> {
    let (table, [id, account, recipe, status, at, kind]) = if case.hostile {
        (r#""My ""Schema"."Gen;erations"" x""#, [r#"i"d"#, "ac'count", "re;cipe", "Status", "updated at", "-- kind"])
    } else {
        ("public.plain", ["id", "account", "recipe", "status", "at", "kind"])
    };
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns = [id, account, recipe, status, at, kind];
    let [id_q, account_q, recipe_q, status_q, at_q, kind_q] = columns.map(quote);
    let mut sql = format!(
        "SET TimeZone = '{}';
         CREATE SCHEMA \"My \"\"Schema\";
         CREATE TABLE {table} ({id_q} {}, {account_q} varchar, {recipe_q} {}, {status_q} text, {at_q} {}, {kind_q} text) {};
         INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, id_column,
             account_column, recipe_column, status_column, failed_at_column, failure_type_column)
         VALUES ('case', {}, NULL, NULL, 'public.credit_transactions', {});
         UPDATE backlog_cleanup.policy SET keep = {} WHERE target = 'case';\n",
        case.time_zone,
        case.id_type,
        case.recipe_type,
        case.time_type,
        if case.partitioned { format!("PARTITION BY HASH ({id_q})") } else { String::new() },
        literal(Some(table.into())),
        columns.map(|column| literal(Some(column.into()))).join(", "),
        case.keep,
    );
    if case.partitioned {
        sql += &format!(
            "CREATE TABLE half PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE other PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST ({recipe_q});
             CREATE TABLE others PARTITION OF other DEFAULT;\n"
        );
    }
    for (place, row) in case.rows.iter().enumerate() {
        let now = if case.time_type == "timestamp" { "now() AT TIME ZONE 'UTC'" } else { "now()" };
        sql += &format!(
            "INSERT INTO {table} VALUES ({}, '{}', {}, '{}', {}, {});\n",
            literal(Some(value(case.id_type, place))),
            if row.ours { "system_backlog" } else { "somebody" },
            literal(row.recipe.map(|recipe| value(case.recipe_type, recipe.into()))),
            if row.failed { "failed" } else { "pending" },
            row.age.map_or("NULL".into(), |age| format!("{now} - interval '{age} microseconds'")),
            literal(row.failure_type.map(|kind| kind.to_string())),
        );
    }
    if case.index {
        let create: String = {
            client.batch_execute(&std::mem::take(&mut sql))?;
            client.query_one("SELECT backlog_cleanup_index_sql('case')", &[])?.get(0)
        };
        sql += &create.replace(" CONCURRENTLY", "");
    }
    client.batch_execute(&sql)?;

    let run = format!(
        "SELECT coalesce(report ->> 'cleanedUpGenerations', report ->> 'removedCount')::bigint FROM backlog_cleanup_{}(
             'case', {}, {}, dry_run => $1) AS report",
        if case.emergency { "emergency" } else { "failed_generations" },
        literal(case.only_recipe.map(|recipe| value(case.recipe_type, recipe.into()))),
        literal(case.only_type.map(|kind| kind.to_string())),
    );
    let dry: i64 = client.query_one(&run, &[&true])?.get(0);
    let removed: i64 = match batches {
        None => client.query_one(&run, &[&false])?.get(0),
        Some((batch_size, workers)) => {
            client.batch_execute(&format!(
                "CALL backlog_cleanup_run('case', '{}', {batch_size}, workers => {workers}, recipe_id => {}, failure_type => {})",
                if case.emergency { "emergency" } else { "regular" },
                literal(case.only_recipe.map(|recipe| value(case.recipe_type, recipe.into()))),
                literal(case.only_type.map(|kind| kind.to_string())),
            ))?;
            client.query_one("SELECT removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1", &[])?.get(0)
        }
    };
    assert_eq!(dry, removed, "a dry run reports what a real one does");
    let again: i64 = client.query_one(&run, &[&false])?.get(0);
    assert_eq!(again, 0, "a second run removes nothing");
    let ledger = "SELECT sum(amount)::bigint FROM credit_transactions";
    let ledger: i64 = client.query_one(ledger, &[])?.get(0);
    let left = client.query(&format!("SELECT {id_q}::text FROM {table}"), &[])?;
    let left = left.iter().map(|row| {
        let text: String = row.get(0);
        text[text.len().saturating_sub(5)..].parse::<usize>().expect("a number")
    });
    Ok((left.collect(), removed, ledger))
}

#[test]
fn exactly_the_removable_rows_go() {
    let cluster = Cluster::start("");
    let client = RefCell::new(cluster.platform());
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    runner
        .run(&case(), |case| {
            let client = &mut *client.borrow_mut();
            client.batch_execute("BEGIN").unwrap();
            let result = survivors(client, &case, None);
            client.batch_execute("ROLLBACK").unwrap();
            let (left, removed, ledger) =
                result.map_err(|failure| TestCaseError::fail(format!("{:?}", failure.as_db_error())))?;
            let expected = oracle(&case);
            prop_assert_eq!(removed as usize, case.rows.len() - expected.len());
            prop_assert_eq!(ledger, removed);
            prop_assert_eq!(left, expected);
            Ok(())
        })
        .unwrap();
}

#[test]
fn exactly_the_removable_rows_go_in_batches() {
    const HOUR: i64 = DAY / 24;
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let client = RefCell::new(cluster.platform());
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    runner
        .run(&(case(), 1..20i32, 1..=2i32), |(mut case, batch_size, workers)| {
            // Here time goes by between the rows and the run.
            for age in case.rows.iter_mut().filter_map(|row| row.age.as_mut()) {
                if (*age - DAY).abs() < HOUR {
                    *age = if *age > DAY { DAY + HOUR } else { DAY - HOUR };
                }
            }
            let client = &mut *client.borrow_mut();
            let result = survivors(client, &case, Some((batch_size, workers)));
            client
                .batch_execute(
                    "DELETE FROM backlog_cleanup.target WHERE name = 'case'; TRUNCATE credit_transactions;
                     DROP SCHEMA \"My \"\"Schema\" CASCADE; DROP TABLE IF EXISTS public.plain",
                )
                .unwrap();
            let (left, removed, ledger) =
                result.map_err(|failure| TestCaseError::fail(format!("{:?}", failure.as_db_error())))?;
            let expected = oracle(&case);
            prop_assert_eq!(removed as usize, case.rows.len() - expected.len());
            prop_assert_eq!(ledger, removed);
            prop_assert_eq!(left, expected);
            Ok(())
        })
        .unwrap();
}
