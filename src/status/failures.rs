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

/// Failed rows of one hour and one failure type that are there, and that runs have removed.
type Failures = (Option<TimestampWithTimeZone>, String, i64, i64);

/// Returns the failed rows by hour of failed-at (UTC; NULL if it is NULL) and failure type, oldest hour first: those that are there, and
/// those that runs have removed, so that the past does not look better after a run. `since` limits
/// them to rows that failed less than so long ago; NULL is all. The `types` failure types with most failures have rows of
/// their own: the first line, of a JSON document that of its message, at most 100 characters. A selection takes them so. The
/// others are summed as `(other)`, rows without a failure type as `(none)`, removed rows of which it is not known as `(not known)`.
/// Reads only: works on a standby. Errors: 22004, 22023 (`types` below 0), those of `Target::load`.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable, name = "backlog_cleanup_failures")]
fn failures_by_hour(
    target: default!(Option<&str>, "'generations'"),
    since: default!(Option<Interval>, "'2 days'"),
    types: default!(Option<i32>, "8"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(hour, Option<TimestampWithTimeZone>),
            name!(failure_type, String),
            name!(failed_count, i64),
            name!(removed_count, i64),
        ),
    >,
> {
    extension::is_of_this_version()?;
    let mut counted = there(target, since, types)?;
    add_removed(target, since, &mut counted)?;
    Ok(TableIterator::new(bounded(counted, types.unwrap_or_default() as usize)))
}

/// The same for the SQL of a version before 0.3.0, without what runs have removed.
#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn backlog_cleanup_failures(
    target: Option<&str>,
    since: Option<Interval>,
    types: Option<i32>,
) -> Result<
    TableIterator<
        'static,
        (name!(hour, Option<TimestampWithTimeZone>), name!(failure_type, String), name!(failed_count, i64)),
    >,
> {
    let counted = bounded(there(target, since, types)?, types.unwrap_or_default() as usize);
    Ok(TableIterator::new(counted.into_iter().map(|(hour, failure_type, failed, _)| (hour, failure_type, failed))))
}

/// Failed rows per hour and failure type: those that are there, and those that runs have removed.
type Counted = HashMap<(Option<TimestampWithTimeZone>, String), [i64; 2]>;

fn there(target: Option<&str>, since: Option<Interval>, types: Option<i32>) -> Result<Counted> {
    let hint =
        format!("SELECT * FROM backlog_cleanup_failures({}, types => 8)", quote_literal(target.unwrap_or_default()));
    if required(types, "types", &hint)? < 0 {
        let message = "argument \"types\" must not be negative".into();
        return Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint));
    }
    glance_leaves(target, |target, leaves| count(target, leaves, since))
}

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
                    let there: String = row.get(2)?.unwrap_or_default();
                    counted.entry((row.get(1)?, target.failure_type_here(leaf, &there))).or_default()[0] +=
                        row.get::<i64>(3)?.unwrap_or_default();
                    Ok(())
                })
            })
            .map_err(spi)
        })?;
    }
    Ok(counted)
}

/// What runs have removed, also those that are at work.
fn add_removed(target: Option<&str>, since: Option<Interval>, counted: &mut Counted) -> Result<()> {
    const REMOVED: &str = "
        WITH lost AS (
            SELECT run_id, hour, failure_type, removed FROM backlog_cleanup.run_failure
            UNION ALL
            SELECT b.run_id, to_timestamp(lost.hour), lost.failure_type, lost.removed
            FROM backlog_cleanup.run_batch b,
                 LATERAL ROWS FROM (unnest(b.hours), unnest(b.failure_types), unnest(b.of_failures)) lost (hour, failure_type, removed)
        )
        SELECT lost.hour, coalesce(lost.failure_type, '(not known)'), sum(lost.removed)::bigint
        FROM backlog_cleanup.run r JOIN lost ON lost.run_id = r.id
        WHERE r.target = $1
          AND ($2::interval IS NULL
               OR coalesce(r.finished_at, now()) >= now() - $2 AND coalesce(lost.hour, r.started_at) >= date_trunc('hour', now() - $2, 'UTC'))
        GROUP BY 1, 2";
    extension::as_owner(|| {
        Spi::connect(|client| {
            client.select(REMOVED, None, &[target.into(), since.into()])?.try_for_each(|row| {
                let hour = (row.get(1)?, row.get(2)?.unwrap_or_default());
                counted.entry(hour).or_default()[1] += row.get::<i64>(3)?.unwrap_or_default();
                Ok(())
            })
        })
        .map_err(spi)
    })
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
        failure_type = target.failure_type_there(leaf),
        table = leaf.rows(),
        is_failed = target.is_failed(),
    )
}

/// Sums up the failure types that have no rows of their own.
fn bounded(counted: Counted, types: usize) -> Vec<Failures> {
    let mut totals: HashMap<&str, i64> = HashMap::new();
    for ((_, failure_type), [there, removed]) in &counted {
        *totals.entry(failure_type).or_default() += there + removed;
    }
    let mut most: Vec<(&str, i64)> = totals.into_iter().collect();
    most.sort_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
    let own: HashSet<String> = most.into_iter().take(types).map(|(failure_type, _)| failure_type.to_owned()).collect();
    let mut failures: BTreeMap<(Option<TimestampWithTimeZone>, String), [i64; 2]> = BTreeMap::new();
    for ((hour, failure_type), [there, removed]) in counted {
        let failure_type = if own.contains(&failure_type) { failure_type } else { "(other)".into() };
        let sums = failures.entry((hour, failure_type)).or_default();
        sums[0] += there;
        sums[1] += removed;
    }
    failures.into_iter().map(|((hour, failure_type), [there, removed])| (hour, failure_type, there, removed)).collect()
}
