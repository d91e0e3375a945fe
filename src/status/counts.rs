use std::cmp::Ordering;
use std::rc::Rc;

use backlog_cleanup_report::{Mode, age_in_words};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::datum::instant_as_text;
use crate::postgres::error::{Result, spi};
use crate::postgres::expression::Expression;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::{Row, stream};
use crate::rank::tally::Tally;
use crate::rules::matching::{Age, Policies};
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach};
use crate::target::recipes::RecipeNames;
use crate::target::statuses::Status;

/// The account's rows of one recipe.
pub struct RecipeStatus {
    pub id: Option<String>,
    pub name: String,
    pub total: i64,
    /// In the order of `lists` of the target, the failed ones first.
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
    let policies = Rc::new(Policies::of(target, Mode::Regular)?);
    let names = RecipeNames::of(target)?;
    let statuses = statuses(target)?;
    let ages = policies.ages(target)?;
    let mut groups = Tally::of(target, &policies);
    let mut of_group: Vec<Counted> = Vec::new();
    for leaf in leaves {
        leaf.reading_as_owner(target, || {
            leaf.expect_most_rows();
            stream(&statement(target, &statuses, leaf, &policies, &ages), |row| {
                let group = groups.of_row(row);
                of_group.resize_with(groups.list.len(), Counted::default);
                of_group[group].add(&Rows::of(target, leaf, &policies, row, ages[groups.list[group].policy]));
            })
        })?;
    }
    let mut recipes: Vec<(Option<String>, Counted)> = Vec::new();
    for (recipe, (group, mut counted)) in groups.recipe_of_each().into_iter().zip(groups.list.into_iter().zip(of_group))
    {
        counted.removable = counted.removable(policies.list[group.policy].keep.into());
        match recipes.get_mut(recipe) {
            Some((_, sum)) => sum.merge(&counted),
            None => recipes.push((group.recipe_id, counted)),
        }
    }
    let mut counts = Vec::new();
    let oldest = oldest(target, recipes.iter().map(|(_, counted)| counted.oldest))?;
    for ((id, counted), oldest) in recipes.into_iter().zip(oldest) {
        counts.push(RecipeStatus {
            name: names.name(id.as_deref()),
            id,
            total: counted.total,
            of_status: counted.of_status,
            removable: counted.removable,
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

/// The rows of a recipe under one policy, over all leaves.
#[derive(Default)]
struct Counted {
    total: i64,
    /// In the order of `lists` of the target.
    of_status: [i64; 4],
    /// Failed rows that are expired.
    expired: i64,
    /// Of these, rows that go even if they are among the newest.
    too_old: i64,
    removable: i64,
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
            self.too_old += rows.too_old;
            self.oldest = self.oldest.into_iter().chain(rows.oldest).min();
        }
    }

    /// How many rows go if so many of the newest stay.
    fn removable(&self, keep: i64) -> i64 {
        self.expired - keep.min(self.expired - self.too_old)
    }

    fn merge(&mut self, other: &Counted) {
        self.total += other.total;
        self.of_status.iter_mut().zip(other.of_status).for_each(|(sum, count)| *sum += count);
        self.removable += other.removable;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
    }
}

/// Rows of one recipe, policy and status, as `statement` has them.
struct Rows {
    count: i64,
    /// A bit for each of `lists` that has the rows' status.
    statuses: i64,
    expired: i64,
    too_old: i64,
    oldest: Option<i64>,
}

impl Rows {
    fn of(target: &Target, leaf: &Leaf, policies: &Policies, row: &Row, age: Age) -> Rows {
        let number = |column| row.number(column).unwrap_or_default();
        let (statuses, oldest) = (number(3), row.number(4));
        if is_counted_there(target, leaf, policies) {
            return Rows { count: number(5), statuses, expired: number(6), too_old: number(7), oldest };
        }
        let is_before = |cutoff: i64| i64::from(oldest.is_some_and(|at| at < cutoff));
        Rows { count: 1, statuses, expired: is_before(age.cutoff), too_old: is_before(age.keep_cutoff), oldest }
    }
}

/// Whether rows on another server are counted there.
fn is_counted_there(target: &Target, leaf: &Leaf, policies: &Policies) -> bool {
    leaf.reach == Reach::Key && policies.list.len() == 1 && target.recipe_columns.is_none()
}

/// The account's rows of a leaf: `Policies::group_columns`, statuses, failed-at. Counting them here costs less than an aggregate. Rows
/// counted on another server: the same, with the oldest failed-at, how many rows, how many of those are expired, and too old.
fn statement(target: &Target, statuses: &str, leaf: &Leaf, policies: &Policies, ages: &[Age]) -> String {
    let failed_at = target.failed_at.as_itself();
    let from = format!("FROM {} g WHERE {}", leaf.rows(), target.is_of_account());
    if !is_counted_there(target, leaf, policies) {
        let group = policies.group_columns(target, &target.recipe_key());
        return format!("SELECT {group}, {statuses}, {failed_at} {from}");
    }
    let group = policies.group_columns(target, &leaf.group_key(&target.recipe));
    let before = |cutoff: i64| {
        let cutoff = quote_literal(instant_as_text(cutoff, target.failed_at.type_oid));
        format!("{} OPERATOR(pg_catalog.<) {cutoff}::{}", target.failed_at.of_row(), target.failed_at.sql_type)
    };
    format!(
        "SELECT {group}, {statuses}, pg_catalog.min({failed_at}), pg_catalog.count(*),
                pg_catalog.count(*) FILTER (WHERE {}), pg_catalog.count(*) FILTER (WHERE {})
         {from} GROUP BY 1, 2, 3, 4",
        before(ages[0].cutoff),
        before(ages[0].keep_cutoff),
    )
}

/// The bits of the lists that have the status of a row `g`, as a bigint; a failed row that the target's condition leaves out counts as
/// none.
fn statuses(target: &Target) -> Result<String> {
    let bits = bits(target)?;
    Ok(match &target.meets {
        None => format!("({bits})::bigint"),
        Some(Expression { of_row, .. }) => {
            format!("(({bits}) OPERATOR(pg_catalog.&) CASE WHEN {of_row} THEN -1 ELSE -2 END)::bigint")
        }
    })
}

fn bits(target: &Target) -> Result<String> {
    let Some(column) = &target.status else {
        return Ok(format!("CASE WHEN {} THEN 1 ELSE 0 END", target.has_failed()));
    };
    // Under the column's collation one value may equal several statuses; its mask then has all their bits. The planner folds
    // these expressions to constants.
    let statuses = target.counted(column)?;
    let bits = |value: &str| {
        let value = format!("CASE WHEN false THEN {} ELSE {} END", column.of_row(), column.literal(value));
        let bit = |other: &Status| {
            let (other, bit) = (column.literal(other.value), 1_i64 << other.place);
            format!("CASE WHEN ({value}) OPERATOR(pg_catalog.=) {other} THEN {bit} ELSE 0 END")
        };
        statuses.iter().map(bit).collect::<Vec<_>>().join(" OPERATOR(pg_catalog.|) ")
    };
    let cases = statuses.iter().map(|status| format!("WHEN {} THEN {}", column.is(status.value), bits(status.value)));
    Ok(format!("CASE {} ELSE 0 END", cases.collect::<Vec<_>>().join(" ")))
}

/// An instant, the same in ISO 8601, and the seconds since then; an infinite time has none.
struct Oldest {
    at: Option<TimestampWithTimeZone>,
    iso: Option<String>,
    seconds: Option<i64>,
}

/// When the oldest failed row of each recipe failed, from the failed-at of each, in the same order.
fn oldest(target: &Target, failed_at: impl Iterator<Item = Option<i64>>) -> Result<Vec<Oldest>> {
    let oldest = match target.failed_at.type_oid {
        pg_sys::TIMESTAMPTZOID => array::<TimestampWithTimeZone>(failed_at),
        _ => array::<Timestamp>(failed_at),
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

fn array<T: FromDatum + IntoDatum>(failed_at: impl Iterator<Item = Option<i64>>) -> DatumWithOid<'static> {
    // SAFETY: a timestamp of either type is these 64 bits.
    let instant = |at: i64| unsafe { T::from_datum(pg_sys::Datum::from(at), false) };
    failed_at.map(|at| at.and_then(instant)).collect::<Vec<Option<T>>>().into()
}
