use std::collections::BTreeMap;

use pgrx::JsonB;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::one_now;
use crate::postgres::prepared;

/// How many recipes and failure types a fine sample names.
pub const NAMED: usize = 50;

/// A sample of now, as a row of `backlog_cleanup.sample`; the comments on its columns explain them.
#[derive(Serialize)]
pub struct Sample {
    #[serde(flatten)]
    pub counted: Option<Counted>,
    pub not_counted: Option<String>,
    pub milliseconds: f64,
    #[serde(flatten)]
    pub size: Size,
    pub counters: Counters,
}

/// What a pass over the rows in scope has counted.
#[derive(Default, Serialize)]
pub struct Counted {
    pub in_scope: i64,
    pub statuses: Option<BTreeMap<String, i64>>,
    pub removable: Option<i64>,
    pub oldest_at: Option<String>,
    pub failed: Option<i64>,
    pub failed_seconds: Option<f64>,
    pub recipes: Option<Value>,
    pub failure_types: Option<Value>,
}

/// How large a table is.
#[derive(Default, Serialize, Deserialize)]
pub struct Size {
    table_bytes: Option<i64>,
    index_bytes: Option<i64>,
    live_rows: Option<i64>,
    dead_rows: Option<i64>,
}

/// Numbers that only grow.
#[derive(Default, Serialize, Deserialize)]
pub struct Counters {
    /// Names the tables, and when their statistics were reset: other counters are those of something else.
    source: Option<String>,
    inserted: Option<i64>,
    updated: Option<i64>,
    deleted: Option<i64>,
    transactions: Option<i64>,
    removed: Option<i64>,
}

/// What the next sample has to know of those before.
#[derive(Default, Deserialize)]
pub struct Before {
    /// Since the last sample.
    seconds: Option<f64>,
    counters: Option<Counters>,
    /// Of the last sample that was counted: when it was, in ISO 8601, how long that is ago, and what it took.
    pub counted_at: Option<String>,
    pub counted_seconds: Option<f64>,
    pub counted_milliseconds: Option<f64>,
    pub counted_rows: Option<i64>,
    /// What runs had removed until then.
    counted_removed: Option<i64>,
}

impl Before {
    /// Whether a run has removed rows since they were counted.
    pub fn is_outdated_by_a_run(&self, now: &Counters) -> bool {
        self.counted_removed.is_some_and(|before| now.removed.is_some_and(|removed| removed > before))
    }
}

/// What the samples of a target say that the next has to know.
pub fn before(target: &str) -> Result<Before> {
    const BEFORE: &str = r#"
        SELECT jsonb_build_object(
                   'seconds', extract(epoch FROM now() - last.sampled_at), 'counters', last.counters,
                   'counted_at', to_char(counted.sampled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'counted_seconds', extract(epoch FROM now() - counted.sampled_at),
                   'counted_milliseconds', counted.milliseconds, 'counted_rows', counted.in_scope,
                   'counted_removed', counted.counters -> 'removed')
        FROM (SELECT * FROM backlog_cleanup.sample WHERE target = $1 AND grain = 'fine'
              ORDER BY sampled_at DESC LIMIT 1) last
        LEFT JOIN (SELECT * FROM backlog_cleanup.sample WHERE target = $1 AND grain = 'fine' AND in_scope IS NOT NULL
                   ORDER BY sampled_at DESC LIMIT 1) counted ON true"#;
    let before = extension::as_owner(|| one_now::<JsonB>(BEFORE, &[target.into()]))?;
    Ok(before.and_then(|JsonB(before)| serde_json::from_value(before).ok()).unwrap_or_default())
}

/// The size and the counters of the leaves of a target.
pub fn figures(target: &str, leaves: &[pg_sys::Oid]) -> Result<(Size, Counters)> {
    const FIGURES: &str = "
        SELECT jsonb_build_object(
                   'table_bytes', sum(pg_table_size(leaf)), 'index_bytes', sum(pg_indexes_size(leaf)),
                   'live_rows', sum(pg_stat_get_live_tuples(leaf)), 'dead_rows', sum(pg_stat_get_dead_tuples(leaf)),
                   'inserted', sum(pg_stat_get_tuples_inserted(leaf)), 'updated', sum(pg_stat_get_tuples_updated(leaf)),
                   'deleted', sum(pg_stat_get_tuples_deleted(leaf)),
                   'transactions', (SELECT xact_commit + xact_rollback FROM pg_stat_database
                                    WHERE datname = current_database()),
                   'source', hashtextextended(concat_ws(' ',
                       (SELECT string_agg(oid::text, ' ' ORDER BY oid) FROM unnest($1) AS oid),
                       (SELECT extract(epoch FROM stats_reset) FROM pg_stat_database WHERE datname = current_database()),
                       -- A crash.
                       (SELECT extract(epoch FROM stats_reset) FROM pg_stat_bgwriter)), 0)::text,
                   'removed', (SELECT coalesce(sum(removed), 0) FROM backlog_cleanup.run WHERE target = $2)
                              + (SELECT coalesce(sum(removed), 0) FROM backlog_cleanup.forgotten WHERE target = $2))
        FROM unnest($1) AS leaf JOIN pg_class c ON c.oid = leaf AND c.relkind <> 'f'";
    let arguments = [leaves.to_vec().into(), target.into()];
    let figures =
        extension::as_owner(|| one_now::<JsonB>(FIGURES, &arguments))?.map_or(Value::Null, |JsonB(json)| json);
    let read =
        || (Size::deserialize(&figures).unwrap_or_default(), Counters::deserialize(&figures).unwrap_or_default());
    Ok(read())
}

/// What has happened in `seconds`, by the counters before and now.
#[derive(Serialize)]
struct Since {
    seconds: Option<f64>,
    #[serde(flatten)]
    happened: Counters,
}

impl Since {
    fn of(before: &Before, now: &Counters) -> Since {
        let Some(then) = &before.counters else { return Since { seconds: None, happened: Counters::default() } };
        let grown = |then: Option<i64>, now: Option<i64>| Some(now? - then?).filter(|grown| *grown >= 0);
        let is_of_the_same = then.source == now.source;
        let counted = |then, now| grown(then, now).filter(|_| is_of_the_same);
        let happened = Counters {
            source: None,
            inserted: counted(then.inserted, now.inserted),
            updated: counted(then.updated, now.updated),
            deleted: counted(then.deleted, now.deleted),
            transactions: counted(then.transactions, now.transactions),
            removed: grown(then.removed, now.removed),
        };
        Since { seconds: before.seconds, happened }
    }
}

/// Writes a fine sample.
pub fn write(target: &str, before: &Before, sample: &Sample) -> Result<()> {
    const WRITE: &str = "
        INSERT INTO backlog_cleanup.sample
        SELECT (jsonb_populate_record(NULL::backlog_cleanup.sample,
                                      $2 || $3 || jsonb_build_object('target', $1, 'grain', 'fine', 'sampled_at', now()))).*";
    let json = |value: serde_json::Result<Value>| JsonB(value.unwrap_or_default());
    let since = json(serde_json::to_value(Since::of(before, &sample.counters)));
    let sample = json(serde_json::to_value(sample));
    extension::as_owner(|| Spi::run_with_args(WRITE, &[target.into(), since.into(), sample.into()]).map_err(spi))
}

/// Removes the samples of a clock that was ahead, which the next would be told apart from. Returns why, if there were any. Hours and days of
/// the future are passed over until they are over.
pub fn of_the_future() -> Result<Option<String>> {
    const OF_THE_FUTURE: &str = "
        WITH ahead AS (
            DELETE FROM backlog_cleanup.sample s USING backlog_cleanup.target t
            WHERE s.target = t.name AND s.grain = 'fine' AND s.sampled_at > now()
            RETURNING s.sampled_at
        )
        SELECT format('the clock was ahead: %s samples, up to one of %s, have been removed', count(*),
                      to_char(max(sampled_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'))
        FROM ahead HAVING count(*) > 0";
    extension::as_owner(|| prepared::get_one::<String>(OF_THE_FUTURE, &[]))
}

/// Makes hours of the fine samples, and days of the hours, as soon as they are over. Where there is a gap, of what there is.
pub fn roll_up() -> Result<()> {
    let steps = [("hour", "fine"), ("day", "hour")].map(|(grain, of)| rolling_up(grain, of));
    extension::as_owner(|| steps.iter().try_for_each(|step| Spi::run(step).map_err(spi)))
}

fn rolling_up(grain: &str, of: &str) -> String {
    let last =
        |column: &str| format!("(array_agg({column} ORDER BY sampled_at DESC) FILTER (WHERE {column} IS NOT NULL))[1]");
    let counted =
        |column: &str| format!("(array_agg({column} ORDER BY sampled_at DESC) FILTER (WHERE in_scope IS NOT NULL))[1]");
    // A reset in between leaves a part of it unknown.
    let sum = |column: &str| {
        format!("CASE WHEN bool_and(seconds IS NULL OR {column} IS NOT NULL) THEN sum({column})::bigint END")
    };
    let most = |list: &str, name: &str, others: &str| {
        format!(
            "(SELECT jsonb_agg(jsonb_build_object('{name}', most.name, 'change', most.change{others}) ORDER BY most.change DESC)
              FROM (SELECT entry -> '{name}' AS name, sum((entry ->> 'change')::bigint) AS change,
                           (array_agg(entry -> 'inScope' ORDER BY part.sampled_at DESC))[1] AS in_scope
                    FROM backlog_cleanup.sample part CROSS JOIN LATERAL jsonb_array_elements(part.{list}) AS entry
                    WHERE part.target = over.target AND part.grain = '{of}' AND part.sampled_at >= over.starts
                      AND part.sampled_at < over.starts + interval '1 {grain}'
                    GROUP BY 1 ORDER BY 2 DESC LIMIT 5) most)"
        )
    };
    format!(
        "INSERT INTO backlog_cleanup.sample
             (target, grain, sampled_at, in_scope, statuses, removable, oldest_at, failed, failed_seconds, recipes, failure_types,
              not_counted, milliseconds, table_bytes, index_bytes, live_rows, dead_rows, seconds, inserted, updated, deleted,
              transactions, removed)
         SELECT target, '{grain}', starts, in_scope, statuses, removable, oldest_at, failed, failed_seconds, {recipes},
                {failure_types}, not_counted, milliseconds, table_bytes, index_bytes, live_rows, dead_rows, seconds, inserted,
                updated, deleted, transactions, removed
         FROM (SELECT target, starts, {in_scope} AS in_scope, {statuses} AS statuses, {removable} AS removable,
                      {oldest_at} AS oldest_at, sum(failed)::bigint AS failed,
                      sum(failed_seconds) AS failed_seconds,
                      CASE WHEN count(in_scope) = 0 THEN {not_counted} END AS not_counted, sum(milliseconds) AS milliseconds,
                      {table_bytes} AS table_bytes, {index_bytes} AS index_bytes, {live_rows} AS live_rows,
                      {dead_rows} AS dead_rows, sum(seconds) AS seconds, {inserted} AS inserted, {updated} AS updated,
                      {deleted} AS deleted, {transactions} AS transactions, {removed} AS removed
               FROM (SELECT part.*, date_trunc('{grain}', part.sampled_at, 'UTC') AS starts
                     FROM backlog_cleanup.target t
                     CROSS JOIN LATERAL (SELECT coalesce(max(made.sampled_at) + interval '1 {grain}', '-infinity') AS up_to
                                         FROM backlog_cleanup.sample made
                                         WHERE made.target = t.name AND made.grain = '{grain}'
                                           AND made.sampled_at < date_trunc('{grain}', now(), 'UTC')) done
                     JOIN backlog_cleanup.sample part
                       ON part.target = t.name AND part.grain = '{of}' AND part.sampled_at >= done.up_to
                      AND part.sampled_at < date_trunc('{grain}', now(), 'UTC')) part
               GROUP BY target, starts) over",
        in_scope = counted("in_scope"),
        statuses = counted("statuses"),
        removable = counted("removable"),
        oldest_at = counted("oldest_at"),
        not_counted = last("not_counted"),
        table_bytes = last("table_bytes"),
        index_bytes = last("index_bytes"),
        live_rows = last("live_rows"),
        dead_rows = last("dead_rows"),
        inserted = sum("inserted"),
        updated = sum("updated"),
        deleted = sum("deleted"),
        transactions = sum("transactions"),
        removed = sum("removed"),
        recipes = most("recipes", "recipeId", ", 'inScope', most.in_scope"),
        failure_types = most("failure_types", "failureType", ""),
    )
}
