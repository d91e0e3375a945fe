use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

use backlog_cleanup_report::{Mode, STATUSES, age_in_words};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::datum::instant_as_text;
use crate::postgres::error::{Result, spi};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::{Row, stream};
use crate::rank::index;
use crate::rank::one_pass::read;
use crate::rank::tally::Tally;
use crate::rules::Rules;
use crate::rules::matching::{Age, Policies};
use crate::status::others::{self, Others};
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
    /// The rows of every status that is there, by the places of `Counts::names`.
    pub of_each: Vec<i64>,
    pub removable: i64,
    pub oldest_failed_at: Option<TimestampWithTimeZone>,
    /// The same instant in ISO 8601, UTC.
    pub oldest_failed_iso: Option<String>,
    pub oldest_failed_age: Option<String>,
}

/// The account's rows.
pub struct Counts {
    /// Most failures first.
    pub recipes: Vec<RecipeStatus>,
    /// Every status that is there, as texts.
    pub names: Vec<String>,
}

/// Counts the account's rows by recipe and status, in one pass.
pub fn counts(target: &Target, leaves: &[Leaf]) -> Result<Counts> {
    let statuses = statuses(target)?;
    let mut all = Names::of(target)?;
    let recipes = by_recipe(target, |policies, ages, groups| {
        for leaf in leaves {
            leaf.reading_as_owner(target, || {
                leaf.expect_most_rows();
                stream(&statement(target, &statuses, leaf, policies, ages), |row| {
                    groups.add(row, |age| {
                        let rows = Rows::of(target, leaf, policies, row, age);
                        // SAFETY: the fifth column of the statement is a text.
                        let status = all.place(rows.status, unsafe { row.text(4) });
                        (rows, status)
                    });
                })
            })?;
        }
        Ok(())
    })?;
    Ok(Counts { recipes, names: all.names })
}

/// Counts the account's rows by status, and those in scope by recipe: the recipes of other rows are not asked. The sum of the others is
/// in the last of the recipes, which has no failures. Where an index has the statuses and nearly nothing has to be read of the table, this takes
/// two scans of indexes, and `counts` else.
pub fn totals(target: &Target, leaves: &[Leaf]) -> Result<Counts> {
    let Some(others) = others::count(target, leaves, &statuses(target)?)? else { return counts(target, leaves) };
    let mut all = Names::of(target)?;
    let rules = Rules::of_all(target)?;
    let through_index = index::serves(&rules, leaves)?;
    let mut recipes = by_recipe(target, |_, _, groups| {
        for leaf in leaves {
            read(&rules, leaf, through_index, |row| {
                groups.add(row, |age| {
                    // The place of its status, and the bit of those in scope.
                    let status = row.number(2).unwrap_or_default();
                    (Rows::one(Some(status as usize), 1, row.number(3), age), status as usize)
                });
            })?;
        }
        Ok(())
    })?;
    let mut rest = Counted::default();
    for Others { place, statuses, text, count } in others {
        let status = all.place(place, text.as_deref());
        rest.add(&Rows { count, statuses, ..Rows::default() }, status);
    }
    recipes.push(RecipeStatus::of(None, String::new(), rest, Oldest::default()));
    Ok(Counts { recipes, names: all.names })
}

/// Rows by recipe and policy.
struct Groups<'a> {
    ages: &'a [Age],
    tally: Tally,
    counted: Vec<Counted>,
}

impl Groups<'_> {
    /// Adds rows, which `count` returns for the age of their policy, with the place of their status. The row's first columns are
    /// `Policies::group_columns`.
    fn add(&mut self, row: &Row, count: impl FnOnce(Age) -> (Rows, usize)) {
        let group = self.tally.of_row(row);
        self.counted.resize_with(self.tally.list.len(), Counted::default);
        let (rows, status) = count(self.ages[self.tally.list[group].policy]);
        self.counted[group].add(&rows, status);
    }
}

/// Sums up by recipe what `read` adds, most failures first.
fn by_recipe(
    target: &Target,
    read: impl FnOnce(&Policies, &[Age], &mut Groups) -> Result<()>,
) -> Result<Vec<RecipeStatus>> {
    target.account_exists()?;
    let policies = Rc::new(Policies::of(target, Mode::Regular)?);
    let names = RecipeNames::of(target)?;
    let ages = policies.ages(target)?;
    let mut groups = Groups { ages: &ages, tally: Tally::of(target, &policies), counted: Vec::new() };
    read(&policies, &ages, &mut groups)?;
    let Groups { tally: groups, counted: mut of_group, .. } = groups;
    // The entries of a recipe and policy are ranked together, whatever their status.
    for place in (0..of_group.len()).rev() {
        let first = groups.list[place].ranked_with;
        if first < place {
            let counted = std::mem::take(&mut of_group[place]);
            of_group[first].merge(&counted);
        }
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
        let name = names.name(id.as_deref());
        counts.push(RecipeStatus::of(id, name, counted, oldest));
    }
    let number = |recipe: &RecipeStatus| recipe.id.as_ref().filter(|_| target.recipe.is_number())?.parse::<f64>().ok();
    counts.sort_by(|a, b| {
        let by_id = || number(a).partial_cmp(&number(b)).unwrap_or(Ordering::Equal).then_with(|| a.id.cmp(&b.id));
        b.of_status[0].cmp(&a.of_status[0]).then(a.id.is_none().cmp(&b.id.is_none())).then_with(by_id)
    });
    Ok(counts)
}

impl RecipeStatus {
    fn of(id: Option<String>, name: String, counted: Counted, oldest: Oldest) -> RecipeStatus {
        RecipeStatus {
            id,
            name,
            total: counted.total,
            of_status: counted.of_status,
            of_each: counted.of_each,
            removable: counted.removable,
            oldest_failed_at: oldest.at,
            oldest_failed_iso: oldest.iso,
            oldest_failed_age: oldest.seconds.map(age_in_words),
        }
    }
}

/// So many statuses that the target does not name have names of their own.
const NAMED: usize = 100;

/// Every status that is there.
struct Names {
    /// First those that `Target::counted` names, in its order.
    names: Vec<String>,
    others: HashMap<String, usize>,
    most: usize,
}

impl Names {
    fn of(target: &Target) -> Result<Names> {
        let counted = target.status.as_ref().map_or(Ok(Vec::new()), |column| target.counted(column))?;
        let removed = target.names_of_statuses.iter().map(String::as_str);
        let others = counted.iter().filter(|status| status.place > 0).map(|status| status.value);
        let names: Vec<String> = removed.chain(others).map(str::to_owned).collect();
        let most = names.len() + NAMED;
        Ok(Names { names, others: HashMap::new(), most })
    }

    /// The place of a row's status, by its own place or its text. Adds new ones.
    fn place(&mut self, known: Option<usize>, text: Option<&str>) -> usize {
        if let Some(known) = known {
            return known;
        }
        let text = text.unwrap_or("(none)");
        if let Some(place) = self.others.get(text) {
            return *place;
        }
        if self.names.len() == self.most {
            self.names.push("(other)".into());
        }
        if self.names.len() > self.most {
            return self.most;
        }
        self.names.push(text.to_owned());
        self.others.insert(text.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }
}

/// The rows of a recipe under one policy, over all leaves.
#[derive(Default)]
struct Counted {
    total: i64,
    /// In the order of `lists` of the target.
    of_status: [i64; 4],
    of_each: Vec<i64>,
    /// Failed rows that are expired.
    expired: i64,
    /// Of these, rows that go even if they are among the newest.
    too_old: i64,
    removable: i64,
    /// The failed-at of the oldest failed row.
    oldest: Option<i64>,
}

impl Counted {
    fn add(&mut self, rows: &Rows, status: usize) {
        self.total += rows.count;
        self.of_each.resize(self.of_each.len().max(status + 1), 0);
        self.of_each[status] += rows.count;
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
        self.of_each.resize(self.of_each.len().max(other.of_each.len()), 0);
        self.of_each.iter_mut().zip(&other.of_each).for_each(|(sum, count)| *sum += count);
        self.expired += other.expired;
        self.too_old += other.too_old;
        self.removable += other.removable;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
    }
}

/// Rows of one recipe, policy and status.
#[derive(Default)]
struct Rows {
    count: i64,
    /// The place of their status among those that the target names.
    status: Option<usize>,
    /// A bit for each of `lists` that has the rows' status.
    statuses: i64,
    expired: i64,
    too_old: i64,
    oldest: Option<i64>,
}

impl Rows {
    fn of(target: &Target, leaf: &Leaf, policies: &Policies, row: &Row, age: Age) -> Rows {
        let number = |column| row.number(column).unwrap_or_default();
        let (kind, oldest) = (number(3), row.number(5));
        let (status, statuses) = (usize::try_from(kind >> STATUSES.len()).ok(), kind);
        if is_counted_there(target, leaf, policies) {
            return Rows { count: number(6), status, statuses, expired: number(7), too_old: number(8), oldest };
        }
        Rows::one(status, statuses, oldest, age)
    }

    fn one(status: Option<usize>, statuses: i64, at: Option<i64>, age: Age) -> Rows {
        let is_before = |cutoff: i64| i64::from(at.is_some_and(|at| at < cutoff));
        let (expired, too_old) = (is_before(age.cutoff), is_before(age.keep_cutoff));
        Rows { count: 1, status, statuses, expired, too_old, oldest: at }
    }
}

/// Whether rows on another server are counted there.
fn is_counted_there(target: &Target, leaf: &Leaf, policies: &Policies) -> bool {
    leaf.reach == Reach::Key && policies.list.len() == 1 && target.recipe_columns.is_none()
}

/// The account's rows of a leaf: `Policies::group_columns`, `statuses`, failed-at. Counting them here costs less than an aggregate. Rows
/// counted on another server: the same, with the oldest failed-at, how many rows, how many of those are expired, and too old.
fn statement(
    target: &Target,
    (kind, text): &(String, String),
    leaf: &Leaf,
    policies: &Policies,
    ages: &[Age],
) -> String {
    let failed_at = target.failed_at.as_itself();
    let from = format!("FROM {} g WHERE {}", leaf.rows(), target.is_of_account());
    if !is_counted_there(target, leaf, policies) {
        let group = policies.group_columns(target, &target.recipe_key());
        return format!("SELECT {group}, {kind}, {text}, {failed_at} {from}");
    }
    let group = policies.group_columns(target, &leaf.group_key(&target.recipe));
    let before = |cutoff: i64| {
        let cutoff = quote_literal(instant_as_text(cutoff, target.failed_at.type_oid));
        format!("{} OPERATOR(pg_catalog.<) {cutoff}::{}", target.failed_at.of_row(), target.failed_at.sql_type)
    };
    format!(
        "SELECT {group}, {kind}, {text}, pg_catalog.min({failed_at}), pg_catalog.count(*),
                pg_catalog.count(*) FILTER (WHERE {}), pg_catalog.count(*) FILTER (WHERE {})
         {from} GROUP BY 1, 2, 3, 4, 5",
        before(ages[0].cutoff),
        before(ages[0].keep_cutoff),
    )
}

/// Of a row `g` the bits of the lists that have its status, and above them its status's place among those that the target names, -1 for
/// others, as a bigint; and the text of such another one. A failed row that the target's condition leaves out has not the bit of failed
/// ones.
fn statuses(target: &Target) -> Result<(String, String)> {
    let (kind, text) = kinds(target)?;
    let kind = match target.is_met() {
        None => format!("({kind})::bigint"),
        Some(meets) => {
            format!("(({kind}) OPERATOR(pg_catalog.&) CASE WHEN {meets} THEN -1::bigint ELSE -2::bigint END)::bigint")
        }
    };
    Ok((kind, text))
}

fn kinds(target: &Target) -> Result<(String, String)> {
    let other = -1_i64 << STATUSES.len();
    let Some(column) = &target.status else {
        return Ok((
            format!("CASE WHEN {} THEN {} ELSE {other} END", target.has_failed(), other | 1),
            "NULL::pg_catalog.text".into(),
        ));
    };
    // Under the column's collation one value may equal several statuses; its mask then has all their bits. The planner folds
    // these expressions to constants.
    let statuses = target.counted(column)?;
    let kind = |(place, value): (usize, &str)| {
        let value = format!("CASE WHEN false THEN {} ELSE {} END", column.of_row(), column.literal(value));
        let bit = |other: &Status| {
            let (other, bit) = (column.literal(other.value), 1_i64 << other.place);
            format!("CASE WHEN ({value}) OPERATOR(pg_catalog.=) {other} THEN {bit}::bigint ELSE 0::bigint END")
        };
        let bits: Vec<String> = statuses.iter().map(bit).collect();
        format!("{}::bigint OPERATOR(pg_catalog.|) {}", place << STATUSES.len(), bits.join(" OPERATOR(pg_catalog.|) "))
    };
    let each = || statuses.iter().map(|status| status.value).enumerate();
    let cases: Vec<String> =
        each().map(|(place, value)| format!("WHEN {} THEN {}", column.is(value), kind((place, value)))).collect();
    let known: Vec<String> = each().map(|(_, value)| format!("WHEN {} THEN NULL", column.is(value))).collect();
    Ok((
        format!("CASE {} ELSE {other} END", cases.join(" ")),
        format!("CASE {} ELSE pg_catalog.left({}, 100) END", known.join(" "), column.as_text()),
    ))
}

/// An instant, the same in ISO 8601, and the seconds since then; an infinite time has none.
#[derive(Default)]
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
