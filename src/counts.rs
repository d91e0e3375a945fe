use std::cmp::Ordering;

use backlog_cleanup_report::age_in_words;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::error::{Result, spi};
use crate::keys::text_of;
use crate::leaf::{Leaf, leaves};
use crate::owner::as_owner_of;
use crate::policy::Policy;
use crate::recipe::{self, Recipes};
use crate::stream::{Row, stream};
use crate::target::Target;

/// The account's rows of one recipe.
pub struct RecipeStatus {
    pub id: Option<String>,
    pub name: String,
    pub total: i64,
    pub completed: i64,
    pub failed: i64,
    pub pending: i64,
    pub processing: i64,
    pub removable: i64,
    pub oldest_failed_at: Option<TimestampWithTimeZone>,
    /// The same instant in ISO 8601, UTC.
    pub oldest_failed_iso: Option<String>,
    pub oldest_failed_age: Option<String>,
}

/// Counts the account's rows by recipe and status, in one pass; most failures first.
pub fn counts(target: &Target) -> Result<Vec<RecipeStatus>> {
    target.account_exists()?;
    let policy = Policy::of(target)?;
    let names = recipe::names(target)?;
    let cutoff = policy.cutoff_of(target)?;
    let mut recipes = Recipes::of(&target.recipe);
    let mut counted: Vec<Counted> = Vec::new();
    for leaf in leaves(target)? {
        as_owner_of(&leaf.table, || {
            leaf.expect_most_rows();
            stream(&statement(target, &leaf, cutoff), |row| {
                let recipe = recipes.of_row(row, 0);
                counted.resize_with(recipes.list.len(), Counted::default);
                counted[recipe].add(row);
            })
        })?;
    }
    let mut counts = Vec::new();
    for ((recipe, counted), oldest) in recipes.list.into_iter().zip(&counted).zip(oldest(target, &counted)?) {
        let [total, completed, failed, pending, processing, expired] = counted.rows;
        counts.push(RecipeStatus {
            name: recipe::name(&names, recipe.recipe_id.as_deref()),
            id: recipe.recipe_id,
            total,
            completed,
            failed,
            pending,
            processing,
            removable: (expired - i64::from(policy.keep)).max(0),
            oldest_failed_at: oldest.at,
            oldest_failed_iso: oldest.iso,
            oldest_failed_age: oldest.seconds.map(age_in_words),
        });
    }
    let number = |recipe: &RecipeStatus| recipe.id.as_ref().filter(|_| target.recipe.is_number())?.parse::<f64>().ok();
    counts.sort_by(|a, b| {
        let by_id = || number(a).partial_cmp(&number(b)).unwrap_or(Ordering::Equal).then_with(|| a.id.cmp(&b.id));
        b.failed.cmp(&a.failed).then(a.id.is_none().cmp(&b.id.is_none())).then_with(by_id)
    });
    Ok(counts)
}

/// The rows of a recipe, over all leaves.
#[derive(Default)]
struct Counted {
    /// All, completed, failed, pending, processing, and failed ones that are old enough to go.
    rows: [i64; 6],
    /// The failed-at of the oldest failed row.
    oldest: Option<i64>,
}

impl Counted {
    /// Adds a row of `statement`.
    fn add(&mut self, row: &Row) {
        for (column, rows) in (1..).zip(&mut self.rows) {
            *rows += row.datum(column).map_or(0, |count| count.value() as i64);
        }
        self.oldest = self.oldest.into_iter().chain(row.instant(7)).min();
    }
}

/// The account's rows of a leaf by recipe, in the order of `Counted`.
fn statement(target: &Target, leaf: &Leaf, cutoff: i64) -> String {
    let Target { completed_status, failed_status, pending_status, processing_status, failed_at, .. } = target;
    let rows_of = |status: &String| format!("pg_catalog.count(*) FILTER (WHERE {})", target.status.is(status));
    format!(
        "SELECT {recipe}, pg_catalog.count(*), {completed}, {failed}, {pending}, {processing},
                pg_catalog.count(*) FILTER (WHERE {is_failed} AND g.{at} OPERATOR(pg_catalog.<) {cutoff}::{type_of_at}),
                pg_catalog.min({failed_at}) FILTER (WHERE {is_failed})
         FROM {table} g WHERE {is_accounts} GROUP BY 1",
        recipe = leaf.group_key(&target.recipe),
        completed = rows_of(completed_status),
        failed = rows_of(failed_status),
        pending = rows_of(pending_status),
        processing = rows_of(processing_status),
        is_failed = target.status.is(failed_status),
        at = failed_at.name,
        cutoff = quote_literal(text_of(pg_sys::Datum::from(cutoff), failed_at.type_oid)),
        type_of_at = failed_at.sql_type,
        failed_at = failed_at.as_itself(),
        table = leaf.rows(),
        is_accounts = target.account_column.is(&target.account),
    )
}

/// An instant, the same in ISO 8601, and the seconds since then, which a time that is infinite has none of.
struct Oldest {
    at: Option<TimestampWithTimeZone>,
    iso: Option<String>,
    seconds: Option<i64>,
}

/// When the oldest failed row of each recipe failed, in the same order.
fn oldest(target: &Target, counted: &[Counted]) -> Result<Vec<Oldest>> {
    let oldest = match target.failed_at.type_oid {
        pg_sys::TIMESTAMPTZOID => array::<TimestampWithTimeZone>(counted),
        _ => array::<Timestamp>(counted),
    };
    as_owner_of(&target.table, || {
        Spi::connect(|client| {
            client
                .select(
                    &format!(
                        r#"SELECT at, pg_catalog.to_char(pg_catalog.timezone('UTC', at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                                CASE WHEN pg_catalog.isfinite(at)
                                     THEN EXTRACT(epoch FROM pg_catalog.now() OPERATOR(pg_catalog.-) at)::bigint END
                         FROM (SELECT n, {} AS at
                               FROM ROWS FROM (pg_catalog.unnest($1)) WITH ORDINALITY AS oldest (failed_at, n)) oldest
                         ORDER BY n"#,
                        target.instant("failed_at")
                    ),
                    None,
                    &[oldest],
                )?
                .map(|row| Ok(Oldest { at: row.get(1)?, iso: row.get(2)?, seconds: row.get(3)? }))
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}

fn array<T: FromDatum + IntoDatum>(counted: &[Counted]) -> DatumWithOid<'static> {
    let instant = |at: i64| unsafe { T::from_datum(pg_sys::Datum::from(at), false) };
    counted.iter().map(|counted| counted.oldest.and_then(instant)).collect::<Vec<Option<T>>>().into()
}
