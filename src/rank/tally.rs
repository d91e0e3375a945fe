use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::prelude::*;
use pgrx::varlena::varsize_any;

use crate::postgres::stream::Row;
use crate::rank::lost::Lost;
use crate::rank::position::Position;
use crate::rank::removable::Removable;
use crate::rules::matching::Policies;
use crate::spread::Spread;
use crate::target::Target;
use crate::target::parts::Parts;
use crate::target::recipes::bounded;

/// Longer values of several columns are looked up by their document, in bytes.
const LONGEST_PARTS: usize = 1_000;

/// Stands for the status of the first entry of a recipe and policy that is not the recipe's first.
const ANY_STATUS: usize = usize::MAX;

/// The rows in scope of a recipe under one policy and of one status: how many there are before a run, and how many it removes.
#[derive(Clone, Default)]
pub struct RecipeCount {
    /// As text, `bounded`; `None` for rows without a recipe.
    pub recipe_id: Option<String>,
    /// The policy's place in the list of the run's policies.
    pub policy: usize,
    /// The status's place in `names_of_statuses` of the target; 0 without a status.
    pub status: usize,
    pub failed: i64,
    pub removed: i64,
    pub kept_back: i64,
    /// The first entry of the same recipe and policy: the rows of all of these are ranked together.
    pub ranked_with: usize,
    /// The oldest expired row that stays; all older ones go. `None` if none go.
    pub cutoff: Option<Position>,
    /// How many rows a batched run may still remove; `None` where nothing limits it.
    pub left: Option<i64>,
    /// The first entry of the same recipe.
    pub first: usize,
}

/// How many rows in scope of a recipe there are before a run, and how many it removes.
pub struct OfRecipe<'a> {
    /// As in `RecipeCount`.
    pub recipe_id: Option<Cow<'a, str>>,
    pub failed: i64,
    pub removed: i64,
}

impl RecipeCount {
    /// Takes a row off those that are left; false if none is.
    pub fn take(&mut self) -> bool {
        let Some(left) = &mut self.left else { return true };
        *left -= 1;
        *left >= 0
    }
}

/// How many rows there are before a run, how many it removes, and how many of the others stay because of what their deletion met.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub in_scope: i64,
    pub removed: i64,
    pub kept_back: i64,
}

/// Counts per recipe, policy and status, while rows stream by.
pub struct Tally {
    pub list: Vec<RecipeCount>,
    policies: Rc<Policies>,
    /// Those that rows may have, as texts.
    statuses: Vec<String>,
    is_number: bool,
    /// Of a recipe of several columns.
    parts: Option<Parts>,
    /// Where a recipe is in the list first.
    by_number: HashMap<i64, usize, Spread>,
    /// The last recipe looked up: an index returns a recipe's rows one after the other.
    last: Option<(i64, usize)>,
    by_text: HashMap<String, usize, Spread>,
    /// The same by the values of several columns.
    by_parts: HashMap<Box<[u8]>, usize, Spread>,
    without: Option<usize>,
    /// The entries behind the first of each recipe, by its place, policy and status. A recipe may have as many as there are policies.
    others: HashMap<(usize, usize, usize), usize, Spread>,
    /// Whether a new recipe has no rows left.
    is_limited: bool,
    /// When the rows failed that are gone, and as what.
    pub lost: Lost,
}

/// The failure type of a row, if policies name any, and the place of its status.
type Kind<'a> = (Option<&'a str>, usize);

impl Tally {
    /// Recipes are told apart as bigints or as texts.
    pub fn of(target: &Target, policies: &Rc<Policies>) -> Tally {
        Tally {
            list: Vec::new(),
            policies: policies.clone(),
            statuses: target.names_of_statuses.clone(),
            is_number: target.recipe.is_integer(),
            parts: Parts::of(target),
            by_number: HashMap::default(),
            last: None,
            by_text: HashMap::default(),
            by_parts: HashMap::default(),
            without: None,
            others: HashMap::default(),
            is_limited: false,
            lost: Lost::default(),
        }
    }

    /// Whether a row's recipe says which entry it has.
    pub fn is_by_recipe(&self) -> bool {
        self.statuses.len() < 2 && self.policies.are_by_recipe()
    }

    /// The place of a row's recipe, policy and status in the list. Adds new ones. The row's first columns are `Policies::group_columns`
    /// with `Target::recipe_key`.
    pub fn of_row(&mut self, row: &Row) -> usize {
        // SAFETY: a key that is no bigint is a text, as is the column behind it.
        let (recipe_id, failure_type) = unsafe { (|| row.text(0), row.text(1)) };
        let kind = (failure_type, row.number(2).unwrap_or_default() as usize);
        match row.number(0) {
            None => self.without(kind),
            Some(number) if self.is_number => self.numbered(number, kind),
            // SAFETY: the key of a recipe of several columns is a record of their values.
            Some(_) if self.parts.is_some() => unsafe {
                self.made_of(row.datum(0).unwrap_or(pg_sys::Datum::null()), kind)
            },
            Some(_) => self.named(&bounded(recipe_id().unwrap_or_default()), kind),
        }
    }

    /// The place of a recipe, by its id as a tally has it, under a policy and with a status. Adds new ones.
    pub fn of_group(&mut self, recipe_id: Option<&str>, policy: usize, status: usize) -> usize {
        let next = self.list.len();
        let first = match recipe_id {
            None => *self.without.get_or_insert(next),
            Some(id) if self.is_number => *self.by_number.entry(id.parse().unwrap_or_default()).or_insert(next),
            Some(id) => match self.by_text.get(id) {
                Some(place) => *place,
                None => *self.by_text.entry(id.to_owned()).or_insert(next),
            },
        };
        if first == next {
            self.push(recipe_id.map(str::to_owned), policy, status, None);
        }
        self.under(first, policy, status)
    }

    fn without(&mut self, kind: Kind) -> usize {
        let next = self.list.len();
        let first = *self.without.get_or_insert(next);
        self.put(first, kind, || None)
    }

    fn numbered(&mut self, id: i64, kind: Kind) -> usize {
        let first = match self.last {
            Some((last, first)) if last == id => first,
            _ => *self.by_number.entry(id).or_insert(self.list.len()),
        };
        self.last = Some((id, first));
        self.put(first, kind, || Some(id.to_string()))
    }

    fn named(&mut self, id: &str, kind: Kind) -> usize {
        let first = match self.by_text.get(id) {
            Some(first) => *first,
            None => *self.by_text.entry(id.to_owned()).or_insert(self.list.len()),
        };
        self.put(first, kind, || Some(id.to_owned()))
    }

    /// # Safety
    ///
    /// `record` is a value of `Target::recipe_key`.
    unsafe fn made_of(&mut self, record: pg_sys::Datum, kind: Kind) -> usize {
        // SAFETY: the caller's; a record is a varlena with all of its bytes written.
        let bytes = unsafe {
            let start: *const u8 = record.cast_mut_ptr();
            std::slice::from_raw_parts(start, varsize_any(start.cast()))
        };
        if let Some(first) = self.by_parts.get(bytes) {
            return self.put(*first, kind, || None);
        }
        // SAFETY: the caller's.
        let document = self.parts.as_ref().map(|parts| unsafe { parts.document(record) });
        let id = bounded(document.as_deref().unwrap_or_default());
        let place = self.named(&id, kind);
        if bytes.len() <= LONGEST_PARTS {
            self.by_parts.insert(bytes.into(), self.by_text[&*id]);
        }
        place
    }

    /// The place of a recipe, which is in the list first at `first`, under the policy of a row of this kind.
    fn put(&mut self, first: usize, (failure_type, status): Kind, recipe_id: impl FnOnce() -> Option<String>) -> usize {
        if first == self.list.len() {
            let recipe_id = recipe_id();
            let policy = self.policy(recipe_id.as_deref(), failure_type, status);
            self.push(recipe_id, policy, status, None);
            return first;
        }
        if self.is_by_recipe() {
            return first;
        }
        let policy = match self.policies.are_by_recipe() {
            true => self.list[first].policy,
            false => self.policy(self.list[first].recipe_id.as_deref(), failure_type, status),
        };
        self.under(first, policy, status)
    }

    fn policy(&self, recipe_id: Option<&str>, failure_type: Option<&str>, status: usize) -> usize {
        self.policies.of_row(recipe_id, failure_type, self.statuses.get(status).map(String::as_str))
    }

    fn under(&mut self, first: usize, policy: usize, status: usize) -> usize {
        let entry = &self.list[first];
        if entry.policy == policy && entry.status == status {
            return first;
        }
        let next = self.list.len();
        let place = *self.others.entry((first, policy, status)).or_insert(next);
        if place == next {
            let is_of_policy = entry.policy == policy;
            let any_status = *self.others.entry((first, policy, ANY_STATUS)).or_insert(next);
            let ranked_with = if is_of_policy { first } else { any_status };
            self.push(entry.recipe_id.clone(), policy, status, Some((first, ranked_with)));
        }
        place
    }

    fn push(&mut self, recipe_id: Option<String>, policy: usize, status: usize, others: Option<(usize, usize)>) {
        let place = self.list.len();
        let (first, ranked_with) = others.unwrap_or((place, place));
        let left = self.is_limited.then_some(0);
        self.list.push(RecipeCount { recipe_id, policy, status, left, first, ranked_with, ..RecipeCount::default() });
    }

    /// Counts rows that an emergency run removes: `Policies::group_columns`, and how many.
    pub fn count_removed(&mut self, row: &Row) {
        let count = row.number(3).unwrap_or_default();
        let recipe = self.of_row(row);
        self.list[recipe].failed += count;
        self.list[recipe].removed += count;
    }

    /// Counts a row that a run has removed: `Policies::group_columns`, or its recipe if that says which entry it has.
    pub fn count_one(&mut self, row: &Row) {
        let recipe = self.of_row(row);
        self.list[recipe].failed += 1;
        self.list[recipe].removed += 1;
    }

    /// The same as `count_removed` for one row per number: its recipe, an integer of `bytes` bytes. No policy names anything else. The upper bytes of
    /// the Datum mean nothing: code compiled by JIT does not extend the sign.
    pub fn count_numbers(&mut self, numbers: &[Option<pg_sys::Datum>], bytes: u32) {
        let unused = 64 - 8 * bytes;
        for number in numbers {
            let recipe = match number {
                None => self.without((None, 0)),
                Some(number) => self.numbered((number.value() as i64) << unused >> unused, (None, 0)),
            };
            self.list[recipe].failed += 1;
            self.list[recipe].removed += 1;
        }
    }

    /// Adds the rows of another tally to those that were there.
    pub fn add_failed(&mut self, counted: &Tally) {
        for counted in &counted.list {
            let recipe = self.of_group(counted.recipe_id.as_deref(), counted.policy, counted.status);
            self.list[recipe].failed += counted.failed;
        }
    }

    /// Lets so many times the rows that another tally has as removed go, and no others.
    pub fn allow(&mut self, counted: &Tally, times: i64) {
        self.is_limited = true;
        self.list.iter_mut().for_each(|recipe| _ = recipe.left.get_or_insert(0));
        for counted in &counted.list {
            let recipe = self.of_group(counted.recipe_id.as_deref(), counted.policy, counted.status);
            *self.list[recipe].left.get_or_insert(0) += times * counted.removed;
        }
    }

    /// Adds the rows that another tally has as removed.
    pub fn add(&mut self, counted: Tally) {
        for counted in counted.list {
            let recipe = self.of_group(counted.recipe_id.as_deref(), counted.policy, counted.status);
            self.list[recipe].removed += counted.removed;
        }
    }

    /// Where code of the run has given rows other recipes, as which they went: counts them among the failed rows of these, and no longer
    /// among those of the recipes that they had. So many rows have stayed.
    pub fn settle(&mut self, stayed: i64) {
        let gap = |recipe: &RecipeCount| recipe.failed - recipe.removed;
        let (lacking, over): (Vec<i64>, Vec<i64>) = self.list.iter().map(gap).partition(|gap| *gap > 0);
        let mut moved = (-over.iter().sum::<i64>()).min((lacking.iter().sum::<i64>() - stayed).max(0));
        for recipe in &mut self.list {
            let of_recipe = gap(recipe).min(moved);
            recipe.failed -= of_recipe;
            moved -= of_recipe.max(0);
        }
    }

    /// Rows that were there before the run, of all recipes.
    pub fn failed(&self) -> i64 {
        self.list.iter().map(|recipe| recipe.failed).sum()
    }

    /// Rows that the run removes, or has removed, of all recipes.
    pub fn removed(&self) -> i64 {
        self.list.iter().map(|recipe| recipe.removed).sum()
    }

    /// Which recipe each entry of the list is of: counts recipes from 0, in the order of their first entries.
    pub fn recipe_of_each(&self) -> Vec<usize> {
        let mut recipes = 0;
        let mut of_each: Vec<usize> = Vec::with_capacity(self.list.len());
        for (place, counted) in self.list.iter().enumerate() {
            of_each.push(if counted.first == place { recipes } else { of_each[counted.first] });
            recipes += usize::from(counted.first == place);
        }
        of_each
    }

    /// How many recipes have rows.
    pub fn recipes(&self) -> usize {
        self.list.iter().enumerate().filter(|(place, entry)| entry.first == *place).count()
    }

    /// The sums of each recipe over all policies and statuses.
    pub fn by_recipe(&self) -> Vec<OfRecipe<'_>> {
        let mut sums: Vec<OfRecipe> = Vec::new();
        for (recipe, counted) in self.recipe_of_each().into_iter().zip(&self.list) {
            let RecipeCount { failed, removed, .. } = *counted;
            match sums.get_mut(recipe) {
                Some(sum) => {
                    sum.failed += failed;
                    sum.removed += removed;
                }
                None => sums.push(OfRecipe { recipe_id: counted.recipe_id.as_deref().map(Cow::from), failed, removed }),
            }
        }
        sums
    }

    /// Counts rows that have stayed because of what their deletion met: those of them whose entries are known, and how many there are. The
    /// others, such as those that code of the run has changed, count in entries of which rows have stayed.
    pub fn keep_back(&mut self, known: &[Removable], all: i64) {
        known.iter().filter_map(Removable::recipe).for_each(|recipe| self.list[recipe].kept_back += 1);
        let mut rest = all - self.list.iter().map(|entry| entry.kept_back).sum::<i64>();
        for entry in &mut self.list {
            let others = (entry.failed - entry.removed - entry.kept_back).min(rest).max(0);
            entry.kept_back += others;
            rest -= others;
        }
        self.list.first_mut().into_iter().for_each(|entry| entry.kept_back += rest);
    }

    /// The rows of each policy.
    pub fn by_policy(&self) -> Vec<Counts> {
        self.sums(self.policies.list.len(), |entry| entry.policy)
    }

    /// The rows of each status; of the only one without a status.
    pub fn by_status(&self) -> Vec<Counts> {
        self.sums(self.statuses.len().max(1), |entry| entry.status)
    }

    fn sums(&self, length: usize, place: fn(&RecipeCount) -> usize) -> Vec<Counts> {
        let mut sums = vec![Counts::default(); length];
        for entry in &self.list {
            let sum = &mut sums[place(entry)];
            sum.in_scope += entry.failed;
            sum.removed += entry.removed;
            sum.kept_back += entry.kept_back;
        }
        sums
    }
}
