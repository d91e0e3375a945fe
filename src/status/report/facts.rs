use backlog_cleanup_report::Nouns;
use pgrx::datum::Interval;
use pgrx::prelude::PgSqlErrorCode;
use serde::Deserialize;

use crate::history::samples::NAMED;
use crate::obstacles::problem::rows_of;
use crate::postgres::error::{Result, error};
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::target::Target;
use crate::target::recipes::RecipeNames;

/// What a report tells.
pub struct Facts {
    pub span: Span,
    pub spells: Vec<Spell>,
    pub runs: Runs,
    pub alerts: Vec<Alert>,
    pub ranking: Vec<Ranked>,
}

/// The target and how it is now. Times are texts, UTC.
#[derive(Deserialize)]
pub struct Span {
    pub target: String,
    pub from: String,
    pub to: String,
    #[serde(flatten)]
    pub nouns: Nouns,
    pub in_scope: Option<i64>,
    pub removable: Option<i64>,
    /// Seconds since the last sample.
    pub sampled_ago: Option<i64>,
    /// Seconds since the rows were counted last.
    pub counted_ago: Option<i64>,
    /// What runs have removed that have started since then.
    pub removed_since: i64,
    /// Whether a run was at work then.
    pub ran_then: bool,
    /// The rules of alerts that are enabled.
    pub rules: i64,
    /// Those that take too long, or whose turn has not come for three ticks.
    pub unmeasured: i64,
    /// Why they were not counted.
    pub not_counted: Option<String>,
    /// Seconds.
    pub oldest_age: Option<i64>,
    pub rows_in_per_hour: Option<f64>,
    pub rows_out_per_hour: Option<f64>,
    pub seconds_to_clear: Option<f64>,
    pub bytes: Option<i64>,
    pub bytes_per_day: Option<f64>,
    pub bytes_in_30_days: Option<f64>,
    /// Part of the time of which samples know what came in, from 0 to 1.
    pub covered: f64,
    pub adaptive_runs: i64,
    pub open_alerts: i64,
    /// Those that have resolved.
    pub over_alerts: i64,
    /// The day since which the history has runs, if that is later than the report begins.
    pub runs_since: Option<String>,
    /// Of the table with its indexes, by the last sample.
    pub bytes_per_row: Option<f64>,
    /// Whether a sample of the ranking has named as many as it may, and left others out.
    pub names_some: bool,
}

/// A day, or an hour of a short report.
#[derive(Deserialize)]
pub struct Spell {
    pub name: String,
    pub rows_in: Option<i64>,
    pub rows_out: i64,
    pub in_scope: Option<i64>,
}

#[derive(Deserialize)]
pub struct Runs {
    pub runs: i64,
    pub completed: i64,
    pub stopped: i64,
    pub failed: i64,
    pub removed: i64,
    pub kept_back: i64,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub max: Option<f64>,
    pub wal_bytes: Option<i64>,
    pub last: Option<String>,
}

#[derive(Deserialize)]
pub struct Alert {
    pub id: i64,
    /// How often it has opened and resolved.
    pub times: i64,
    pub opened: String,
    pub resolved: Option<String>,
    pub sentence: String,
    pub fix: Option<String>,
    /// Who has acknowledged it, and until when it is snoozed.
    pub hands: Option<String>,
}

#[derive(Deserialize)]
pub struct Ranked {
    pub what: String,
    pub name: Option<String>,
    pub rows_in: i64,
    /// `None` if samples do not cover that day.
    pub rows_in_before: Option<i64>,
}

/// The grain of the samples that tell of so long: fine ones and hours while they are kept, then there are only days.
const GRAIN: &str = "
    CASE WHEN $2 <= least(interval '2 days', (SELECT max_age FROM backlog_cleanup.retention WHERE what = 'sample fine')) THEN 'fine'
         WHEN $2 <= least(interval '90 days', (SELECT max_age FROM backlog_cleanup.retention WHERE what = 'sample hour')) THEN 'hour' ELSE 'day' END";

fn span() -> String {
    format!(
        "SELECT to_jsonb(t) || to_jsonb(p) || jsonb_build_object(
        'target', t.name, 'from', to_char((now() - $2) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
        'to', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
        'not_counted', (SELECT not_counted FROM backlog_cleanup.sample WHERE target = t.name AND grain = 'fine'
                        ORDER BY sampled_at DESC LIMIT 1),
        'oldest_age', (SELECT CASE WHEN isfinite(oldest_at) THEN extract(epoch FROM now() - oldest_at)::bigint END FROM backlog_cleanup.sample
                       WHERE target = t.name AND grain = 'fine' AND in_scope IS NOT NULL ORDER BY sampled_at DESC LIMIT 1),
        'seconds_to_clear', extract(epoch FROM p.time_to_clear),
        'bytes', s.bytes, 'bytes_per_day', s.bytes_per_day, 'bytes_in_30_days', s.bytes_in_30_days,
        'sampled_ago', (SELECT extract(epoch FROM now() - max(sampled_at))::bigint FROM backlog_cleanup.sample
                        WHERE target = t.name AND grain = 'fine' AND sampled_at <= now()),
        'counted_ago', extract(epoch FROM now() - counted.at)::bigint,
        'removed_since', (SELECT coalesce(sum(removed), 0) FROM backlog_cleanup.run r WHERE r.target = t.name AND r.started_at >= counted.until),
        'ran_then', EXISTS (SELECT FROM backlog_cleanup.run r LEFT JOIN backlog_cleanup.progress p ON p.run_id = r.id
                            WHERE r.target = t.name AND r.started_at < counted.until
                              AND coalesce(r.finished_at > counted.at, p.state = 'running')),
        'unmeasured', (SELECT count(*) FROM backlog_cleanup.alert_measured m
                       WHERE m.target = t.name
                         AND (missed_since < now() - interval '15 minutes' OR was_ended AND measured_at BETWEEN now() - interval '1 hour' AND now())),
        'rules', (SELECT count(*) FROM backlog_cleanup.alert_rule r WHERE enabled AND (r.target = t.name OR r.target IS NULL)),
        'covered', least(coalesce((SELECT sum(failed_seconds) FROM backlog_cleanup.sample
                                   WHERE target = t.name AND sampled_at > now() - $2 AND sampled_at <= now() AND grain = {GRAIN}), 0)
                         / extract(epoch FROM $2), 1),
        'open_alerts', (SELECT count(*) FROM backlog_cleanup.alert a
                        WHERE (a.target = t.name OR a.target IS NULL) AND resolved_at IS NULL),
        'over_alerts', (SELECT count(*) FROM backlog_cleanup.alert a
                        WHERE (a.target = t.name OR a.target IS NULL) AND resolved_at > now() - $2),
        'runs_since', (SELECT to_char((now() - max_age) AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM backlog_cleanup.retention
                       WHERE what = 'run' AND max_age < $2),
        'bytes_per_row', (SELECT (table_bytes + index_bytes)::float8 / nullif(live_rows + dead_rows, 0) FROM backlog_cleanup.sample
                          WHERE target = t.name AND grain = 'fine' AND table_bytes IS NOT NULL ORDER BY sampled_at DESC LIMIT 1),
        'names_some', EXISTS (SELECT FROM backlog_cleanup.sample
                              WHERE target = t.name AND grain = 'fine' AND sampled_at > now() - interval '1 day'
                                AND greatest(jsonb_array_length(recipes), jsonb_array_length(failure_types)) >= {NAMED}),
        'adaptive_runs', (SELECT count(*) FROM backlog_cleanup.decision
                          WHERE target = t.name AND action = 'run' AND decided_at > now() - $2))
    FROM backlog_cleanup.target t JOIN backlog_cleanup.pace p ON p.target = t.name
    LEFT JOIN backlog_cleanup.size s ON s.target = t.name
    CROSS JOIN LATERAL (SELECT max(sampled_at) FROM backlog_cleanup.sample
                        WHERE target = t.name AND grain = 'fine' AND in_scope IS NOT NULL AND sampled_at <= now()) sampled (at)
    -- A sample is of the tick's beginning, and its rows are counted in its course.
    CROSS JOIN LATERAL (SELECT at, at + coalesce((SELECT milliseconds FROM backlog_cleanup.tick WHERE started_at = at LIMIT 1), 0) * interval '1 ms'
                       ) counted (at, until)
    WHERE t.name = $1"
    )
}

/// Of the hours or days that are over, and of the samples since.
fn spells() -> String {
    format!(
        "WITH grain AS (
        SELECT {GRAIN} AS name,
               CASE WHEN $2 <= interval '2 days' THEN 'hour' WHEN $2 <= interval '31 days' THEN 'day'
                    WHEN $2 <= interval '180 days' THEN 'week' ELSE 'month' END AS spell
    ), piece AS (
        SELECT sampled_at, failed, removed, in_scope FROM backlog_cleanup.sample, grain
        WHERE target = $1 AND grain = grain.name AND sampled_at > now() - $2 AND sampled_at <= now()
        UNION ALL
        SELECT sampled_at, failed, removed, in_scope FROM backlog_cleanup.sample, grain
        WHERE target = $1 AND grain.name <> 'fine' AND grain = 'fine' AND sampled_at > now() - $2
          AND sampled_at >= coalesce((SELECT max(sampled_at) + ('1 ' || grain.name)::interval FROM backlog_cleanup.sample s
                                      WHERE s.target = $1 AND s.grain = grain.name AND s.sampled_at <= now()), '-infinity')
    )
    SELECT jsonb_build_object(
        'name', to_char(date_trunc(spell, sampled_at AT TIME ZONE 'UTC'),
                        CASE spell WHEN 'hour' THEN 'MM-DD HH24:00' WHEN 'month' THEN 'YYYY-MM' ELSE 'Dy MM-DD' END),
        'rows_in', sum(failed), 'rows_out', coalesce(sum(removed), 0),
        'in_scope', (array_agg(in_scope ORDER BY sampled_at DESC) FILTER (WHERE in_scope IS NOT NULL))[1])
    FROM piece, grain
    GROUP BY spell, date_trunc(spell, sampled_at AT TIME ZONE 'UTC')
    ORDER BY date_trunc(spell, sampled_at AT TIME ZONE 'UTC')"
    )
}

const RUNS: &str = "
    SELECT jsonb_build_object(
        'runs', count(*), 'completed', count(*) FILTER (WHERE state = 'completed'), 'stopped', count(*) FILTER (WHERE state = 'stopped'),
        'failed', count(*) FILTER (WHERE state IN ('failed', 'interrupted')),
        'removed', coalesce(sum(removed), 0), 'kept_back', coalesce(max(kept_back) FILTER (WHERE is_last), 0),
        'p50', percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds), 'p95', percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds),
        'max', max(seconds), 'wal_bytes', sum(wal_bytes),
        'last', max(format('%s on %s UTC: %s, %s removed%s', coalesce('run ' || run_id, 'a job of pg_cron'),
                           to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), state,
                           to_char(removed, 'FM999,999,999,999,990'), '; ' || left(error_message, 300))) FILTER (WHERE is_last))
    FROM (SELECT *, extract(epoch FROM finished_at - started_at)::float8 AS seconds,
                 row_number() OVER (ORDER BY started_at DESC) = 1 AS is_last
          FROM backlog_cleanup.history
          WHERE target = $1 AND started_at > now() - $2) r";

/// Open ones first, and each that has opened again once: a page has room for so many.
const ALERTS: &str = "
    SELECT jsonb_build_object(
        'id', id, 'times', times, 'opened', to_char(opened_at AT TIME ZONE 'UTC', 'MM-DD HH24:MI'),
        'resolved', to_char(resolved_at AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), 'fix', fix,
        'sentence', regexp_replace(left(sentence, 600), '[[:cntrl:]]+', ' ', 'g'),
        'hands', nullif(concat_ws(', ', 'acknowledged by ' || acknowledged_by,
                                  CASE WHEN snoozed_until > now() THEN 'snoozed until ' || to_char(snoozed_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') END, left(note, 200)), ''))
    FROM (SELECT *, row_number() OVER (PARTITION BY resolved_at IS NULL ORDER BY opened_at DESC) AS line
          FROM (SELECT *, count(*) OVER same AS times, row_number() OVER (same ORDER BY id DESC) AS place
                FROM backlog_cleanup.alert
                WHERE (target = $1 OR target IS NULL) AND (resolved_at IS NULL OR resolved_at > now() - $2)
                WINDOW same AS (PARTITION BY rule, target, subject, resolved_at IS NULL)) a
          WHERE place = 1) lines
    WHERE line <= CASE WHEN resolved_at IS NULL THEN 20 ELSE 10 END
    ORDER BY resolved_at IS NOT NULL, opened_at DESC";

const RANKING: &str = "
    SELECT to_jsonb(r) FROM backlog_cleanup.ranking r WHERE target = $1 AND place <= 5 AND rows_in > 0 ORDER BY what DESC, place, name";

pub fn facts(target: &str, since: Interval) -> Result<Facts> {
    let both = || [target.into(), since.into()];
    let mut ranking: Vec<Ranked> = rows_of(RANKING, &[target.into()])?;
    let recipes = || ranking.iter().filter(|ranked| ranked.what == "recipe").map(|ranked| ranked.name.as_deref());
    let named = briefly(|| Target::load(Some(target)).and_then(|target| RecipeNames::of(&target, recipes())));
    match named {
        Ok(names) => {
            for recipe in ranking.iter_mut().filter(|ranked| ranked.what == "recipe") {
                let name = names.name(recipe.name.as_deref());
                recipe.name = match recipe.name.take() {
                    Some(id) if id != name => Some(format!("{id} {name}")),
                    id => id,
                };
            }
        }
        Err(failure) if is_cancel(&failure) => failure.rethrow(),
        // A target whose table is gone has a history, too.
        Err(_) => {}
    }
    let mut one: Vec<Span> = rows_of(&span(), &both())?;
    let mut runs: Vec<Runs> = rows_of(RUNS, &both())?;
    let (Some(span), Some(runs)) = (one.pop(), runs.pop()) else {
        return Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the samples of target \"{target}\" cannot be read"),
            "ALTER EXTENSION backlog_cleanup UPDATE".into(),
        ));
    };
    Ok(Facts { span, spells: rows_of(&spells(), &both())?, runs, alerts: rows_of(ALERTS, &both())?, ranking })
}
