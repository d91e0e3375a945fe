use std::cmp::Ordering;
use std::collections::HashMap;

use backlog_cleanup_report::{RecipeFailures, StatusReport, Warning, age_in_words};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::error::{Result, spi};
use crate::leaf::{Leaf, leaves};
use crate::owner::as_owner_of;
use crate::policy::Policy;
use crate::report::{Report, as_json};
use crate::selection::Selection;
use crate::target::Target;
use crate::{books, doctor, index, recipe, schedule};

/// The account's rows by recipe and status, most failures first. Reads only: works on a standby.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_status(
    target: default!(Option<&str>, "'generations'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(recipe_id, Option<String>),
            name!(recipe_name, String),
            name!(total_count, i64),
            name!(completed_count, i64),
            name!(failed_count, i64),
            name!(pending_count, i64),
            name!(processing_count, i64),
            name!(removable_count, i64),
            name!(oldest_failed_at, Option<TimestampWithTimeZone>),
            name!(oldest_failed_age, Option<String>),
        ),
    >,
> {
    let rows = counts(&Target::load(target)?)?.into_iter().map(|recipe| {
        (
            recipe.id,
            recipe.name,
            recipe.total,
            recipe.completed,
            recipe.failed,
            recipe.pending,
            recipe.processing,
            recipe.removable,
            recipe.oldest_failed_at,
            recipe.oldest_failed_age,
        )
    });
    Ok(TableIterator::new(rows))
}

/// The same as one `StatusReport`, with the job that runs the target and its last run.
#[pg_extern(stable)]
fn backlog_cleanup_status_json(target: default!(Option<&str>, "'generations'")) -> Result<Report> {
    let target = Target::load(target)?;
    let counts = counts(&target)?;
    let sum = |count: fn(&RecipeStatus) -> i64| counts.iter().map(count).sum();
    as_json(&StatusReport {
        success: true,
        total_generations: sum(|recipe| recipe.total),
        completed_generations: sum(|recipe| recipe.completed),
        failed_generations: sum(|recipe| recipe.failed),
        pending_generations: sum(|recipe| recipe.pending),
        processing_generations: sum(|recipe| recipe.processing),
        removable_generations: sum(|recipe| recipe.removable),
        recipes_with_failed_generations: counts
            .into_iter()
            .filter(|recipe| recipe.failed > 0)
            .map(|recipe| RecipeFailures {
                recipe_id: target.json_recipe_id(recipe.id.as_deref()),
                recipe_name: recipe.name,
                failed_count: recipe.failed,
                removable_count: recipe.removable,
                oldest_failed_at: recipe.oldest_failed_iso,
                oldest_failed_age: recipe.oldest_failed_age,
            })
            .collect(),
        schedule: schedule::job_of(&target.name)?,
        last_run: books::last_run(&target.name)?,
        warnings: doctor::references(&target)?
            .into_iter()
            .map(|problem| Warning { message: problem.detail, hint: problem.fix.unwrap_or_default() })
            .collect(),
    })
}

/// The account's rows of one recipe.
#[derive(Default)]
struct RecipeStatus {
    id: Option<String>,
    name: String,
    total: i64,
    completed: i64,
    failed: i64,
    pending: i64,
    processing: i64,
    removable: i64,
    oldest_failed_at: Option<TimestampWithTimeZone>,
    /// The same instant in ISO 8601, UTC.
    oldest_failed_iso: Option<String>,
    oldest_failed_age: Option<String>,
}

fn counts(target: &Target) -> Result<Vec<RecipeStatus>> {
    target.account_exists()?;
    let policy = Policy::of(target)?;
    let names = recipe::names(target)?;
    let everything = Selection { recipe_id: None, failure_type: None };
    let leaves = leaves(target)?;
    let through_index = index::serves(target, &everything, &leaves)?;
    let mut counts: HashMap<Option<String>, RecipeStatus> = HashMap::new();
    for leaf in &leaves {
        let statement = statement(target, &policy, leaf, through_index);
        as_owner_of(&leaf.table, || {
            if !through_index {
                leaf.read_whole_if_stale();
            }
            Spi::connect(|client| {
                client.select(statement.as_str(), None, &[])?.try_for_each(|row| {
                    let id: Option<String> = row.get(1)?;
                    counts.entry(id).or_default().add(&row)
                })
            })
            .map_err(spi)
        })?;
    }
    let keep = i64::from(policy.keep);
    let finished = |(id, counted): (Option<String>, RecipeStatus)| RecipeStatus {
        name: recipe::name(&names, id.as_deref()),
        removable: (counted.removable - keep).max(0),
        id,
        ..counted
    };
    let mut counts: Vec<RecipeStatus> = counts.into_iter().map(finished).collect();
    let number = |recipe: &RecipeStatus| recipe.id.as_ref().filter(|_| target.recipe.is_number())?.parse::<f64>().ok();
    counts.sort_by(|a, b| {
        let by_id = || number(a).partial_cmp(&number(b)).unwrap_or(Ordering::Equal).then_with(|| a.id.cmp(&b.id));
        b.failed.cmp(&a.failed).then(a.id.is_none().cmp(&b.id.is_none())).then_with(by_id)
    });
    Ok(counts)
}

impl RecipeStatus {
    /// Adds what a leaf has; until all have been added, `removable` counts what is expired.
    fn add(&mut self, row: &spi::SpiHeapTupleData) -> spi::Result<()> {
        let count = |column| Ok::<_, spi::Error>(row.get::<i64>(column)?.unwrap_or(0));
        self.total += count(2)?;
        self.completed += count(3)?;
        self.failed += count(4)?;
        self.pending += count(5)?;
        self.processing += count(6)?;
        self.removable += count(7)?;
        let oldest = row.get::<TimestampWithTimeZone>(8)?;
        if oldest.is_some_and(|oldest| self.oldest_failed_at.is_none_or(|before| oldest < before)) {
            self.oldest_failed_at = oldest;
            self.oldest_failed_iso = row.get(9)?;
            self.oldest_failed_age = row.get::<i64>(10)?.map(age_in_words);
        }
        Ok(())
    }
}

/// The account's rows of a leaf, counted per recipe and status, and only then put side by side.
fn statement(target: &Target, policy: &Policy, leaf: &Leaf, through_index: bool) -> String {
    let status = &target.status;
    let sum = |column: &str, value: &str| {
        let is_status = status.is(value);
        format!("COALESCE(pg_catalog.sum(g.{column}) FILTER (WHERE {is_status}), 0)::bigint")
    };
    format!(
        r#"SELECT recipe::pg_catalog.text, total, completed, failed, pending, processing, expired, oldest,
                pg_catalog.to_char(pg_catalog.timezone('UTC', oldest), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                CASE WHEN pg_catalog.isfinite(oldest)
                     THEN EXTRACT(epoch FROM pg_catalog.now() OPERATOR(pg_catalog.-) oldest)::bigint END
         FROM (SELECT g.recipe, pg_catalog.sum(g.rows)::bigint AS total, {completed} AS completed, {failed} AS failed,
                      {pending} AS pending, {processing} AS processing, {expired} AS expired,
                      {oldest} AS oldest
               FROM ({counted}) g
               GROUP BY g.recipe) counts"#,
        completed = sum("rows", &target.completed_status),
        failed = sum("rows", &target.failed_status),
        pending = sum("rows", &target.pending_status),
        processing = sum("rows", &target.processing_status),
        expired = sum("old", &target.failed_status),
        oldest =
            target.instant(&format!("pg_catalog.min(g.oldest) FILTER (WHERE {})", status.is(&target.failed_status))),
        counted = counted(target, policy, leaf, through_index),
    )
}

/// Rows per recipe and status: in one pass over the table, or the failed ones from the partial index alone and only the
/// others from the table.
fn counted(target: &Target, policy: &Policy, leaf: &Leaf, through_index: bool) -> String {
    let Target { recipe, failed_at, account_column, status, .. } = target;
    let (recipe, at, table) = (&recipe.name, &failed_at.name, leaf.rows());
    let is_accounts = account_column.is(&target.account);
    let is_old = target.failed_before(&policy.cutoff);
    let figures = format!(
        "pg_catalog.count(*) AS rows, pg_catalog.count(*) FILTER (WHERE {is_old}) AS old, pg_catalog.min(g.{at}) AS oldest"
    );
    if !through_index {
        return format!(
            "SELECT g.{recipe} AS recipe, g.{status}, {figures} FROM {table} g
             WHERE {is_accounts} GROUP BY g.{recipe}, g.{status}",
            status = status.name
        );
    }
    let failed = format!("{}::{}", quote_literal(&target.failed_status), status.sql_type);
    format!(
        "SELECT g.{recipe} AS recipe, {failed} AS {status}, {figures} FROM {table} g
         WHERE {is_failed} GROUP BY g.{recipe}
         UNION ALL
         SELECT g.{recipe}, g.{status}, pg_catalog.count(*), 0, NULL FROM {table} g
         WHERE {is_accounts}
           AND (g.{status} OPERATOR(pg_catalog.<) {failed} OR g.{status} OPERATOR(pg_catalog.>) {failed}
                OR g.{status} IS NULL)
         GROUP BY g.{recipe}, g.{status}",
        status = status.name,
        is_failed = target.is_failed(),
    )
}
