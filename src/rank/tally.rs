use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::owner::as_owner_of;
use crate::postgres::stream::{Row, stream};
use crate::postgres::table::Column;
use crate::rank::position::Position;
use crate::target::Target;

/// The recipes' names by their ids as text.
pub fn names(target: &Target) -> Result<HashMap<String, String>> {
    let Some(recipes) = &target.recipes else {
        return Ok(HashMap::new());
    };
    let read = format!(
        "SELECT r.{}::pg_catalog.text, r.{}::pg_catalog.text FROM {} r",
        recipes.key, recipes.name, recipes.table.name
    );
    let mut names = HashMap::new();
    as_owner_of(&recipes.table, || {
        stream(&read, |row| {
            let text = |column| row.text(column).unwrap_or_default().to_owned();
            names.insert(text(0), text(1));
        })
    })?;
    Ok(names)
}

/// A recipe's name as reports have it.
pub fn name(names: &HashMap<String, String>, id: Option<&str>) -> String {
    match id {
        None => "No recipe".into(),
        Some(id) => names.get(id).cloned().unwrap_or_else(|| "Unknown Recipe".into()),
    }
}

/// A recipe that has failed rows: how many before the run, and how many the run removes.
#[derive(Default)]
pub struct Swept {
    /// As text; `None` for rows without a recipe.
    pub recipe_id: Option<String>,
    pub failed: i64,
    pub removed: i64,
    /// The oldest expired row that stays; all older ones go. `None` where nothing goes.
    pub cutoff: Option<Position>,
}

/// Counts per recipe, while rows stream by.
pub struct Recipes {
    pub list: Vec<Swept>,
    is_number: bool,
    by_number: HashMap<i64, usize, BuildHasherDefault<Spread>>,
    /// What was asked last: an index has a recipe's rows one after the other.
    last: Option<(i64, usize)>,
    by_text: HashMap<String, usize>,
    without: Option<usize>,
}

/// Spreads the numbers of recipes over a table in one multiplication (Knuth's, by the golden ratio): a million are looked up
/// in a run, where std's hash, which is safe against chosen keys, would cost more than the look.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_i64(i64::from(*byte)));
    }

    fn write_i64(&mut self, number: i64) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Recipes {
    pub fn of(recipe: &Column) -> Recipes {
        let (by_number, by_text) = (HashMap::default(), HashMap::new());
        Recipes { list: Vec::new(), is_number: recipe.is_integer(), by_number, last: None, by_text, without: None }
    }

    /// The recipe that a column made by `Column::as_key` has; a new one is put into the list.
    pub fn of_row(&mut self, row: &Row, column: usize) -> usize {
        match row.datum(column) {
            None => self.without(),
            Some(number) if self.is_number => self.numbered(number.value() as i64),
            Some(_) => self.named(row.text(column).unwrap_or_default()),
        }
    }

    /// The recipe of an id as text.
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
            self.list.push(Swept { recipe_id: recipe_id(), ..Swept::default() });
        }
        place
    }

    /// Counts rows that an emergency run removes: a recipe made by `Column::as_key`, and how many.
    pub fn count_removed(&mut self, row: &Row) {
        let count = row.datum(1).map_or(0, |count| count.value() as i64);
        let recipe = self.of_row(row, 0);
        self.list[recipe].failed += count;
        self.list[recipe].removed += count;
    }

    /// The same by the numbers of their recipes, one per row, of `bytes` bytes each: what is above them means nothing, since
    /// code that PostgreSQL has compiled does not extend a sign.
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

    /// How many rows a run removes, or has removed, of all of them.
    pub fn removed(&self) -> i64 {
        self.list.iter().map(|recipe| recipe.removed).sum()
    }

    /// Most removed first, then most failed.
    pub fn into_sorted(self) -> Vec<Swept> {
        let mut list = self.list;
        list.sort_by(|a, b| (b.removed, b.failed, &a.recipe_id).cmp(&(a.removed, a.failed, &b.recipe_id)));
        list
    }
}
