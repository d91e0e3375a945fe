use std::collections::{BTreeMap, BTreeSet};

/// A row of a scene, as the oracle knows it.
#[derive(Clone)]
pub struct Row {
    pub key: i32,
    pub leaf: &'static str,
    pub account: &'static str,
    pub status: &'static str,
    pub recipe: i32,
    /// In hours.
    pub age: i32,
}

/// What decides which rows may go.
#[derive(Clone)]
pub struct Rules {
    pub leaves: Vec<&'static str>,
    pub account: &'static str,
    pub status: &'static str,
    pub keep: usize,
    /// In hours.
    pub max_age: i32,
}

impl Rules {
    /// The rows that a run may remove of those that are there.
    pub fn may_go(&self, rows: &[Row], there: &BTreeSet<i32>, is_emergency: bool) -> BTreeSet<i32> {
        let in_scope = rows.iter().filter(|row| {
            there.contains(&row.key)
                && self.leaves.contains(&row.leaf)
                && (row.account, row.status) == (self.account, self.status)
        });
        if is_emergency {
            return in_scope.map(|row| row.key).collect();
        }
        let mut recipes: BTreeMap<i32, Vec<(i32, i32)>> = BTreeMap::new();
        in_scope
            .filter(|row| row.age > self.max_age)
            .for_each(|row| recipes.entry(row.recipe).or_default().push((row.age, row.key)));
        let beyond = |mut expired: Vec<(i32, i32)>| {
            expired.sort_unstable();
            expired.into_iter().skip(self.keep).map(|(_, key)| key)
        };
        recipes.into_values().flat_map(beyond).collect()
    }
}
