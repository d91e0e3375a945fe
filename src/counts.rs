use std::cmp::Ordering;

use backlog_cleanup_report::age_in_words;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use crate::error::{Result, spi};
use crate::leaf::{Leaf, Reach, leaves};
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

/// Counts the account's rows by recipe and status, in one pass and without a sort; most failures first.
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
            stream(&statement(target, &policy, &leaf), |row| {
                let recipe = recipes.of_row(row, 0);
                counted.resize_with(recipes.list.len(), Counted::default);
                counted[recipe].add(row, cutoff);
            })
        })?;
    }
    let mut counts = Vec::new();
    for ((recipe, counted), oldest) in recipes.list.into_iter().zip(&counted).zip(oldest(target, &counted)?) {
        let [failed, completed, pending, processing, _] = counted.rows;
        counts.push(RecipeStatus {
            name: recipe::name(&names, recipe.recipe_id.as_deref()),
            id: recipe.recipe_id,
            total: counted.rows.iter().sum(),
            completed,
            failed,
            pending,
            processing,
            removable: (counted.expired - i64::from(policy.keep)).max(0),
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

/// The rows of a recipe, counted while they stream by.
#[derive(Default)]
struct Counted {
    /// Failed, completed, pending, processing, any other status.
    rows: [i64; 5],
    /// Failed rows that are old enough to go.
    expired: i64,
    /// The failed-at of the oldest failed row.
    oldest: Option<i64>,
}

impl Counted {
    /// Adds what `statement` has found: rows of one status, failed ones with the oldest failed-at of theirs, and either all
    /// of them expired or none.
    fn add(&mut self, row: &Row, cutoff: i64) {
        let status = row.datum(1).map_or(0, |status| status.value());
        let count = row.datum(3).map_or(0, |count| count.value() as i64);
        self.rows[status] += count;
        if let Some(at) = row.instant(2) {
            self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
            self.expired += if at < cutoff { count } else { 0 };
        }
    }
}

/// The account's rows of a leaf: recipe, place of the status in `Counted::rows`, failed-at of a failed one, how many. One by
/// one where they are here, since PostgreSQL takes longer to group them than to pass them on; grouped where they come from
/// afar.
fn statement(target: &Target, policy: &Policy, leaf: &Leaf) -> String {
    let Target { failed_status, completed_status, pending_status, processing_status, .. } = target;
    let statuses = [failed_status, completed_status, pending_status, processing_status];
    let status: String =
        (0..).zip(statuses).map(|(place, status)| format!(" WHEN {} THEN {place}", target.status.is(status))).collect();
    let rows = format!(
        "SELECT {recipe} AS recipe, CASE{status} ELSE 4 END AS status,
                CASE WHEN {is_failed} THEN {failed_at} END AS failed_at, 1::bigint AS rows
         FROM {table} g WHERE {is_accounts}",
        recipe = target.recipe.as_key(),
        is_failed = target.status.is(failed_status),
        failed_at = target.failed_at.as_itself(),
        table = leaf.rows(),
        is_accounts = target.account_column.is(&target.account),
    );
    match leaf.reach {
        Reach::Position => rows,
        Reach::Key => format!(
            "SELECT recipe, status, pg_catalog.min(failed_at), pg_catalog.count(*)
             FROM ({rows}) g
             GROUP BY recipe, status, failed_at OPERATOR(pg_catalog.<) ({})",
            target.as_failed_at(&policy.cutoff)
        ),
    }
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
