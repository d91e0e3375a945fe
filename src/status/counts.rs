use std::cmp::Ordering;

use backlog_cleanup_report::age_in_words;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::datum::instant_as_text;
use crate::postgres::error::{Result, spi};
use crate::postgres::expression::Expression;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::{Row, stream};
use crate::rank::tally::Tally;
use crate::rules::policy::Policy;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach};
use crate::target::recipes::RecipeNames;

/// The account's rows of one recipe.
pub struct RecipeStatus {
    pub id: Option<String>,
    pub name: String,
    pub total: i64,
    /// In the order of `statuses` of the target, the failed ones first.
    pub of_status: [i64; 4],
    pub removable: i64,
    pub oldest_failed_at: Option<TimestampWithTimeZone>,
    /// The same instant in ISO 8601, UTC.
    pub oldest_failed_iso: Option<String>,
    pub oldest_failed_age: Option<String>,
}

/// Counts the account's rows by recipe and status, in one pass; most failures first.
pub fn counts(target: &Target, leaves: &[Leaf]) -> Result<Vec<RecipeStatus>> {
    target.account_exists()?;
    let policy = Policy::of(target)?;
    let names = RecipeNames::of(target)?;
    let cutoff = policy.cutoff.as_failed_at(target)?;
    let mut recipes = Tally::of(target.recipe.is_integer());
    let mut counted: Vec<Counted> = Vec::new();
    for leaf in leaves {
        leaf.reading_as_owner(target, || {
            leaf.expect_most_rows();
            stream(&statement(target, leaf, cutoff), |row| {
                let recipe = recipes.of_row(row);
                counted.resize_with(recipes.list.len(), Counted::default);
                counted[recipe].add(&Rows::of(leaf, row, cutoff));
            })
        })?;
    }
    let mut counts = Vec::new();
    for ((recipe, counted), oldest) in recipes.list.into_iter().zip(&counted).zip(oldest(target, &counted)?) {
        counts.push(RecipeStatus {
            name: names.name(recipe.recipe_id.as_deref()),
            id: recipe.recipe_id,
            total: counted.total,
            of_status: counted.of_status,
            removable: (counted.expired - policy.keep as i64).max(0),
            oldest_failed_at: oldest.at,
            oldest_failed_iso: oldest.iso,
            oldest_failed_age: oldest.seconds.map(age_in_words),
        });
    }
    let number = |recipe: &RecipeStatus| recipe.id.as_ref().filter(|_| target.recipe.is_number())?.parse::<f64>().ok();
    counts.sort_by(|a, b| {
        let by_id = || number(a).partial_cmp(&number(b)).unwrap_or(Ordering::Equal).then_with(|| a.id.cmp(&b.id));
        b.of_status[0].cmp(&a.of_status[0]).then(a.id.is_none().cmp(&b.id.is_none())).then_with(by_id)
    });
    Ok(counts)
}

/// The rows of a recipe, over all leaves.
#[derive(Default)]
struct Counted {
    total: i64,
    /// In the order of `statuses` of the target.
    of_status: [i64; 4],
    /// Failed rows that are expired.
    expired: i64,
    /// The failed-at of the oldest failed row.
    oldest: Option<i64>,
}

impl Counted {
    fn add(&mut self, rows: &Rows) {
        self.total += rows.count;
        for (bit, count) in self.of_status.iter_mut().enumerate() {
            // One value may equal several statuses.
            if rows.statuses >> bit & 1 == 1 {
                *count += rows.count;
            }
        }
        if rows.statuses & 1 == 1 {
            self.expired += rows.expired;
            self.oldest = self.oldest.into_iter().chain(rows.oldest).min();
        }
    }
}

/// Rows of one recipe and status, as `statement` has them.
struct Rows {
    count: i64,
    /// A bit for each of `statuses` that the rows' status equals.
    statuses: i64,
    expired: i64,
    oldest: Option<i64>,
}

impl Rows {
    fn of(leaf: &Leaf, row: &Row, cutoff: i64) -> Rows {
        let number = |column| row.number(column).unwrap_or_default();
        let (statuses, oldest) = (number(1), row.number(2));
        match leaf.reach {
            Reach::Position => {
                Rows { count: 1, statuses, expired: oldest.is_some_and(|at| at < cutoff).into(), oldest }
            }
            Reach::Key => Rows { count: number(3), statuses, expired: number(4), oldest },
        }
    }
}

/// The account's rows of a leaf: recipe, statuses, failed-at. Counting them here costs less than an aggregate. Rows on another
/// server are counted there: recipe, statuses, the oldest failed-at, how many, and how many of those are expired.
fn statement(target: &Target, leaf: &Leaf, cutoff: i64) -> String {
    let statuses = statuses(target);
    let (key, failed_at) = (leaf.group_key(&target.recipe), target.failed_at.as_itself());
    let from = format!("FROM {} g WHERE {}", leaf.rows(), target.is_of_account());
    match leaf.reach {
        Reach::Position => format!("SELECT {key}, {statuses}, {failed_at} {from}"),
        Reach::Key => format!(
            "SELECT {key}, {statuses}, pg_catalog.min({failed_at}), pg_catalog.count(*),
                    pg_catalog.count(*) FILTER (WHERE {at} OPERATOR(pg_catalog.<) {cutoff}::{type_of_at})
             {from} GROUP BY 1, 2",
            at = target.failed_at.of_row(),
            cutoff = quote_literal(instant_as_text(cutoff, target.failed_at.type_oid)),
            type_of_at = target.failed_at.sql_type,
        ),
    }
}

/// The bits of the statuses that a row `g` has, as a bigint; a failed row that the target's condition leaves out counts as none.
fn statuses(target: &Target) -> String {
    let bits = bits(target);
    match &target.meets {
        None => format!("({bits})::bigint"),
        Some(Expression { of_row, .. }) => {
            format!("(({bits}) OPERATOR(pg_catalog.&) CASE WHEN {of_row} THEN -1 ELSE -2 END)::bigint")
        }
    }
}

fn bits(target: &Target) -> String {
    let Some(column) = &target.status else {
        return format!("CASE WHEN {} THEN 1 ELSE 0 END", target.has_failed());
    };
    // Under the column's collation one value may equal several statuses; its mask then has all their bits. The planner folds
    // these expressions to constants.
    let statuses =
        target.statuses().into_iter().zip(0..).filter_map(|((_, value), place)| Some((value?, 1_i64 << place)));
    let statuses: Vec<(&str, i64)> = statuses.collect();
    let bits = |value: &str| {
        let value = format!("CASE WHEN false THEN {} ELSE {} END", column.of_row(), column.literal(value));
        let bit = |(other, bit): &(&str, i64)| {
            format!("CASE WHEN ({value}) OPERATOR(pg_catalog.=) {} THEN {bit} ELSE 0 END", column.literal(other))
        };
        statuses.iter().map(bit).collect::<Vec<_>>().join(" OPERATOR(pg_catalog.|) ")
    };
    let cases = statuses.iter().map(|(value, _)| format!("WHEN {} THEN {}", column.is(value), bits(value)));
    format!("CASE {} ELSE 0 END", cases.collect::<Vec<_>>().join(" "))
}

/// An instant, the same in ISO 8601, and the seconds since then; an infinite time has none.
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
    reading_as_owner_of(&target.table, || {
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
    // SAFETY: a timestamp of either type is these 64 bits.
    let instant = |at: i64| unsafe { T::from_datum(pg_sys::Datum::from(at), false) };
    counted.iter().map(|counted| counted.oldest.and_then(instant)).collect::<Vec<Option<T>>>().into()
}
