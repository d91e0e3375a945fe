use std::collections::{BTreeMap, HashMap, HashSet};

use pgrx::datum::Interval;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::read::read_one;
use crate::target::Target;
use crate::target::leaf::Leaf;
use crate::target::steady::glance_leaves;

/// Failed rows of one hour and one failure type.
type Failures = (Option<TimestampWithTimeZone>, String, i64);

/// Returns the failed rows by hour of failed-at (UTC; NULL if it is NULL) and failure type, oldest hour first. `since` limits
/// them to rows that failed less than so long ago; NULL is all. The `types` failure types with most failures have rows of
/// their own: the first line, of a JSON document that of its message, at most 100 characters. A selection takes them so. The
/// others are summed as `(other)`, rows without a failure type as `(none)`.
/// Reads only: works on a standby. Errors: 22004, 22023 (`types` below 0), those of `Target::load`.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_failures(
    target: default!(Option<&str>, "'generations'"),
    since: default!(Option<Interval>, "'2 days'"),
    types: default!(Option<i32>, "8"),
) -> Result<
    TableIterator<
        'static,
        (name!(hour, Option<TimestampWithTimeZone>), name!(failure_type, String), name!(failed_count, i64)),
    >,
> {
    let hint =
        format!("SELECT * FROM backlog_cleanup_failures({}, types => 8)", quote_literal(target.unwrap_or_default()));
    let types = required(types, "types", &hint)?;
    let types = usize::try_from(types).map_err(|_| {
        let message = "argument \"types\" must not be negative".into();
        error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint)
    })?;
    let counted = glance_leaves(target, |target, leaves| count(target, leaves, since))?;
    Ok(TableIterator::new(bounded(counted, types)))
}

/// Failed rows per hour and failure type.
type Counted = HashMap<(Option<TimestampWithTimeZone>, String), i64>;

fn count(target: &Target, leaves: &[Leaf], since: Option<Interval>) -> Result<Counted> {
    target.account_exists()?;
    let since = match since {
        None => None,
        // In a DateStyle that reads the same everywhere.
        Some(since) => extension::as_owner(|| read_one::<String>("SELECT (now() - $1)::text", &[since.into()]))?,
    };
    let mut counted = Counted::new();
    for leaf in leaves {
        let statement = statement(target, leaf, since.as_deref());
        leaf.reading_as_owner(target, || {
            Spi::connect(|client| {
                client.select(statement.as_str(), None, &[])?.try_for_each(|row| {
                    let hour = (row.get(1)?, row.get(2)?.unwrap_or_default());
                    *counted.entry(hour).or_default() += row.get::<i64>(3)?.unwrap_or_default();
                    Ok(())
                })
            })
            .map_err(spi)
        })?;
    }
    Ok(counted)
}

/// The failed rows of a leaf by hour and failure type. An hour is whole in UTC.
fn statement(target: &Target, leaf: &Leaf, since: Option<&str>) -> String {
    let failed_at = target.failed_at.of_row();
    let since = since
        .map_or("true".into(), |since| format!("{failed_at} OPERATOR(pg_catalog.>=) ({})", target.as_failed_at(since)));
    format!(
        "SELECT pg_catalog.date_trunc('hour', {hour}, 'UTC'),
                COALESCE({failure_type}, '(none)'),
                pg_catalog.count(*)
         FROM {table} g
         WHERE {is_failed} AND {since}
         GROUP BY 1, 2",
        hour = target.instant(&failed_at),
        failure_type = target.failure_type_of_row(),
        table = leaf.rows(),
        is_failed = target.is_failed(),
    )
}

/// Sums up the failure types that have no rows of their own.
fn bounded(counted: Counted, types: usize) -> Vec<Failures> {
    let mut totals: HashMap<&str, i64> = HashMap::new();
    for ((_, failure_type), failed) in &counted {
        *totals.entry(failure_type).or_default() += failed;
    }
    let mut most: Vec<(&str, i64)> = totals.into_iter().collect();
    most.sort_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
    let own: HashSet<String> = most.into_iter().take(types).map(|(failure_type, _)| failure_type.to_owned()).collect();
    let mut failures: BTreeMap<(Option<TimestampWithTimeZone>, String), i64> = BTreeMap::new();
    for ((hour, failure_type), failed) in counted {
        let failure_type = if own.contains(&failure_type) { failure_type } else { "(other)".into() };
        *failures.entry((hour, failure_type)).or_default() += failed;
    }
    failures.into_iter().map(|((hour, failure_type), failed)| (hour, failure_type, failed)).collect()
}
