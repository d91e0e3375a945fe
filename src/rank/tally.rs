use std::collections::HashMap;

use pgrx::prelude::*;

use crate::postgres::stream::Row;
use crate::rank::position::Position;
use crate::rank::spread::Spread;
use crate::target::recipes::bounded;

/// The failed rows of a recipe: how many there are before a run, and how many it removes.
#[derive(Default)]
pub struct RecipeCount {
    /// As text, `bounded`; `None` for rows without a recipe.
    pub recipe_id: Option<String>,
    pub failed: i64,
    pub removed: i64,
    /// The oldest expired row that stays; all older ones go. `None` if none go.
    pub cutoff: Option<Position>,
    /// How many rows a batched run may still remove; `None` where nothing limits it.
    pub left: Option<i64>,
}

impl RecipeCount {
    /// Takes a row off those that are left; false if none is.
    pub fn take(&mut self) -> bool {
        let Some(left) = &mut self.left else { return true };
        *left -= 1;
        *left >= 0
    }
}

/// Counts per recipe, while rows stream by.
pub struct Tally {
    pub list: Vec<RecipeCount>,
    is_number: bool,
    by_number: HashMap<i64, usize, Spread>,
    /// The last recipe looked up: an index returns a recipe's rows one after the other.
    last: Option<(i64, usize)>,
    by_text: HashMap<String, usize>,
    without: Option<usize>,
    /// Whether a new recipe has no rows left.
    is_limited: bool,
}

impl Tally {
    /// Recipes are told apart as bigints or as texts.
    pub fn of(are_integers: bool) -> Tally {
        let (by_number, by_text) = (HashMap::default(), HashMap::new());
        Tally {
            list: Vec::new(),
            is_number: are_integers,
            by_number,
            last: None,
            by_text,
            without: None,
            is_limited: false,
        }
    }

    /// The index of a row's recipe in the list. Adds a new recipe. The row's first column is made by `Column::as_key`.
    pub fn of_row(&mut self, row: &Row) -> usize {
        match row.number(0) {
            None => self.without(),
            Some(number) if self.is_number => self.numbered(number),
            // SAFETY: a key that is no bigint is a text.
            Some(_) => self.named(&bounded(unsafe { row.text(0) }.unwrap_or_default())),
        }
    }

    /// The index of the recipe with this id as a tally has it. Adds a new recipe.
    pub fn of_id(&mut self, id: Option<&str>) -> usize {
        match id {
            None => self.without(),
            Some(id) if self.is_number => self.numbered(id.parse().unwrap_or_default()),
            Some(id) => self.named(id),
        }
    }

    fn without(&mut self) -> usize {
        let next = self.list.len();
        let place = *self.without.get_or_insert(next);
        self.put(place, || None)
    }

    fn numbered(&mut self, id: i64) -> usize {
        match self.last {
            Some((last, place)) if last == id => place,
            _ => {
                let next = self.list.len();
                let place = *self.by_number.entry(id).or_insert(next);
                self.last = Some((id, place));
                self.put(place, || Some(id.to_string()))
            }
        }
    }

    fn named(&mut self, id: &str) -> usize {
        let place = match self.by_text.get(id) {
            Some(place) => *place,
            None => *self.by_text.entry(id.to_owned()).or_insert(self.list.len()),
        };
        self.put(place, || Some(id.to_owned()))
    }

    fn put(&mut self, place: usize, recipe_id: impl FnOnce() -> Option<String>) -> usize {
        if place == self.list.len() {
            let left = self.is_limited.then_some(0);
            self.list.push(RecipeCount { recipe_id: recipe_id(), left, ..RecipeCount::default() });
        }
        place
    }

    /// Counts rows that an emergency run removes: their recipe, and how many.
    pub fn count_removed(&mut self, row: &Row) {
        let count = row.number(1).unwrap_or_default();
        let recipe = self.of_row(row);
        self.list[recipe].failed += count;
        self.list[recipe].removed += count;
    }

    /// The same for one row per number: its recipe, an integer of `bytes` bytes. The upper bytes of the Datum mean nothing:
    /// code compiled by JIT does not extend the sign.
    pub fn count_numbers(&mut self, numbers: &[Option<pg_sys::Datum>], bytes: u32) {
        let unused = 64 - 8 * bytes;
        for number in numbers {
            let recipe = match number {
                None => self.without(),
                Some(number) => self.numbered((number.value() as i64) << unused >> unused),
            };
            self.list[recipe].failed += 1;
            self.list[recipe].removed += 1;
        }
    }

    /// Adds the rows of another tally to those that were there.
    pub fn add_failed(&mut self, counted: &Tally) {
        for counted in &counted.list {
            let recipe = self.of_id(counted.recipe_id.as_deref());
            self.list[recipe].failed += counted.failed;
        }
    }

    /// Lets so many times the rows that another tally has as removed go, and no others.
    pub fn allow(&mut self, counted: &Tally, times: i64) {
        self.is_limited = true;
        self.list.iter_mut().for_each(|recipe| _ = recipe.left.get_or_insert(0));
        for counted in &counted.list {
            let recipe = self.of_id(counted.recipe_id.as_deref());
            *self.list[recipe].left.get_or_insert(0) += times * counted.removed;
        }
    }

    /// Adds the rows that another tally has as removed.
    pub fn add(&mut self, counted: Tally) {
        for counted in counted.list {
            let recipe = self.of_id(counted.recipe_id.as_deref());
            self.list[recipe].removed += counted.removed;
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

    /// Most removed first, then most failed.
    pub fn into_sorted(self) -> Vec<RecipeCount> {
        let mut list = self.list;
        list.sort_by(|a, b| (b.removed, b.failed, &a.recipe_id).cmp(&(a.removed, a.failed, &b.recipe_id)));
        list
    }
}
