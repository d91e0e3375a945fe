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

/// The bit of failed rows in their kind.
const FAILED: i64 = 1;

/// The account's rows of one recipe.
pub struct RecipeStatus {
    pub id: Option<String>,
    pub name: String,
    pub total: i64,
    /// In the order of `lists` of the target, the failed ones first.
    pub of_status: [i64; 4],
    /// The rows of every status that is there, by the places of `Counts::names`; none of those behind.
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
    by_recipe(target, |policies, groups| {
        for leaf in leaves {
            let is_counted_there = is_counted_there(target, leaf, policies);
            leaf.reading_as_owner(target, || {
                leaf.expect_most_rows();
                stream(&statement(target, &statuses, leaf, policies, groups.ages), |row| {
                    let number = |column| row.number(column).unwrap_or_default();
                    let (kind, at) = (number(3), row.number(5));
                    // SAFETY: the fifth column of the statement is a text.
                    let status = groups.statuses.place(kind, || unsafe { row.text(4) });
                    let counted = groups.of_row(row);
                    match (is_counted_there, kind & FAILED == FAILED) {
                        (false, is_failed) => counted.add_row(status, is_failed, at),
                        (true, false) => counted.add(status, number(6)),
                        (true, true) => {
                            counted.add(status, number(6));
                            counted.add_failed([number(6), number(7), number(8)], at);
                        }
                    }
                })
            })?;
        }
        Ok(())
    })
}

/// Counts the account's rows by status, and those in scope by recipe: the recipes of other rows are not asked. The sum of the others is
/// in the last of the recipes, which has no failures. Where an index has the statuses and nearly nothing has to be read of the table, this takes
/// two scans of indexes, and `counts` else.
pub fn totals(target: &Target, leaves: &[Leaf]) -> Result<Counts> {
    let Some(others) = others::count(target, leaves, &statuses(target)?)? else { return counts(target, leaves) };
    let rules = Rules::of_all(target)?;
    let through_index = index::serves(&rules, leaves)?;
    by_recipe(target, |_, groups| {
        for leaf in leaves {
            read(&rules, leaf, through_index, |row| {
                // The place of its status.
                let status = row.number(2).unwrap_or_default() as usize;
                groups.of_row(row).add_row(status, true, row.number(3));
            })?;
        }
        for Others { kind, text, count } in others {
            let status = groups.statuses.place(kind, || text.as_deref());
            groups.rest.get_or_insert_default().add(status, count);
        }
        Ok(())
    })
}

/// Rows by recipe and policy.
struct Groups<'a> {
    /// Of the rows under each policy.
    ages: &'a [Age],
    statuses: Statuses,
    tally: Tally,
    counted: Vec<Counted>,
    /// Rows whose recipe is not asked.
    rest: Option<Counted>,
}

impl Groups<'_> {
    /// Those of a row's recipe and policy. The row's first columns are `Policies::group_columns`.
    fn of_row(&mut self, row: &Row) -> &mut Counted {
        let group = self.tally.of_row(row);
        for new in &self.tally.list[self.counted.len()..] {
            self.counted.push(Counted { age: self.ages[new.policy], ..Counted::default() });
        }
        &mut self.counted[group]
    }
}

/// Sums up by recipe what `read` adds, most failures first.
fn by_recipe(target: &Target, read: impl FnOnce(&Policies, &mut Groups) -> Result<()>) -> Result<Counts> {
    target.account_exists()?;
    let policies = Rc::new(Policies::of(target, Mode::Regular)?);
    let ages = policies.ages(target)?;
    let (statuses, tally) = (Statuses::of(target)?, Tally::of(target, &policies));
    let mut groups = Groups { ages: &ages, statuses, tally, counted: Vec::new(), rest: None };
    read(&policies, &mut groups)?;
    let Groups { statuses, tally: groups, counted: mut of_group, rest, .. } = groups;
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
    let names = RecipeNames::of(target, recipes.iter().map(|(id, _)| id.as_deref()))?;
    let oldest = oldest(target, recipes.iter().map(|(_, counted)| counted.oldest))?;
    for ((id, counted), oldest) in recipes.into_iter().zip(oldest) {
        let name = names.name(id.as_deref());
        counts.push(RecipeStatus::of(id, name, counted, &statuses, oldest));
    }
    let number = |recipe: &RecipeStatus| recipe.id.as_ref().filter(|_| target.recipe.is_number())?.parse::<f64>().ok();
    counts.sort_by(|a, b| {
        let by_id = || number(a).partial_cmp(&number(b)).unwrap_or(Ordering::Equal).then_with(|| a.id.cmp(&b.id));
        b.of_status[0].cmp(&a.of_status[0]).then(a.id.is_none().cmp(&b.id.is_none())).then_with(by_id)
    });
    counts.extend(rest.map(|rest| RecipeStatus::of(None, String::new(), rest, &statuses, Oldest::default())));
    Ok(Counts { recipes: counts, names: statuses.names })
}

impl RecipeStatus {
    fn of(id: Option<String>, name: String, counted: Counted, statuses: &Statuses, oldest: Oldest) -> RecipeStatus {
        let of_each = || counted.near.iter().chain(&counted.far);
        let mut of_status = [counted.failed, 0, 0, 0];
        for (bit, of_status) in of_status.iter_mut().enumerate().skip(1) {
            // One value may equal several statuses.
            let in_list = of_each().zip(&statuses.lists).filter(|(_, lists)| *lists >> bit & 1 == 1);
            *of_status = in_list.map(|(count, _)| count).sum();
        }
        RecipeStatus {
            id,
            name,
            total: of_each().sum(),
            of_status,
            of_each: of_each().copied().collect(),
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
struct Statuses {
    /// First those that `Target::counted` names, in its order.
    names: Vec<String>,
    /// A bit for each of `lists` of the target that has the status.
    lists: Vec<i64>,
    others: HashMap<String, usize>,
    most: usize,
}

impl Statuses {
    fn of(target: &Target) -> Result<Statuses> {
        let counted = target.status.as_ref().map_or(Ok(Vec::new()), |column| target.counted(column, &target.table))?;
        let removed = target.names_of_statuses.iter().map(String::as_str);
        let others = counted.iter().filter(|status| status.place > 0).map(|status| status.value);
        let names: Vec<String> = removed.chain(others).map(str::to_owned).collect();
        let (lists, most) = (vec![0; names.len()], names.len() + NAMED);
        Ok(Statuses { names, lists, others: HashMap::new(), most })
    }

    /// The place of a row's status, by its kind as `statuses` has it, or its text. Adds new ones.
    fn place<'a>(&mut self, kind: i64, text: impl FnOnce() -> Option<&'a str>) -> usize {
        if let Ok(place) = usize::try_from(kind >> STATUSES.len()) {
            self.lists[place] |= kind;
            return place;
        }
        let text = text().unwrap_or("(none)");
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

/// So many statuses are counted in the same cache lines as the rest: a row of another recipe than the last reads two.
const NEAR: usize = 8;

/// The rows of a recipe under one policy, over all leaves.
#[derive(Default)]
struct Counted {
    /// The rows of each status, by the places of `Statuses`: the first of them, and the others.
    near: [i64; NEAR],
    far: Vec<i64>,
    failed: i64,
    /// Failed rows that are expired.
    expired: i64,
    /// Of these, rows that go even if they are among the newest.
    too_old: i64,
    removable: i64,
    /// The failed-at of the oldest failed row.
    oldest: Option<i64>,
    age: Age,
}

impl Counted {
    fn add_row(&mut self, status: usize, is_failed: bool, at: Option<i64>) {
        self.add(status, 1);
        if is_failed {
            let is_before = |cutoff: i64| i64::from(at.is_some_and(|at| at < cutoff));
            self.add_failed([1, is_before(self.age.cutoff), is_before(self.age.keep_cutoff)], at);
        }
    }

    fn add(&mut self, status: usize, count: i64) {
        if let Some(near) = self.near.get_mut(status) {
            *near += count;
            return;
        }
        let far = status - NEAR;
        self.far.resize(self.far.len().max(far + 1), 0);
        self.far[far] += count;
    }

    fn add_failed(&mut self, [failed, expired, too_old]: [i64; 3], oldest: Option<i64>) {
        self.failed += failed;
        self.expired += expired;
        self.too_old += too_old;
        self.oldest = self.oldest.into_iter().chain(oldest).min();
    }

    /// How many rows go if so many of the newest stay.
    fn removable(&self, keep: i64) -> i64 {
        self.expired - keep.min(self.expired - self.too_old)
    }

    fn merge(&mut self, other: &Counted) {
        for (status, count) in other.near.iter().chain(&other.far).enumerate() {
            self.add(status, *count);
        }
        self.add_failed([other.failed, other.expired, other.too_old], other.oldest);
        self.removable += other.removable;
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
    let statuses = target.counted(column, &target.table)?;
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
