use std::rc::Rc;

use crate::postgres::error::Result;
use crate::rank::one_pass::read;
use crate::rank::tally::{RecipeCount, Tally};
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// The rows in scope of a target.
#[derive(Default)]
pub struct InScope {
    pub recipes: Vec<OfRecipe>,
    /// In the order of `names_of_statuses` of the target; of the only one without a status.
    pub of_status: Vec<i64>,
    pub removable: i64,
    /// The oldest failed-at.
    pub oldest: Option<i64>,
}

/// The rows in scope of a recipe, and those of them that failed in a span of time.
pub struct OfRecipe {
    pub recipe_id: Option<String>,
    pub in_scope: i64,
    pub failed: i64,
}

/// The rows of an entry of the tally.
#[derive(Clone, Default)]
struct Counted {
    expired: i64,
    /// Of these, rows that go even if they are among the newest.
    too_old: i64,
    failed: i64,
}

/// Counts the rows in scope, those that a regular run would remove, and those that failed in `span`, given as failed-at, in the pass that
/// `rank` does, but keeps none.
pub fn count(rules: &Rules, leaves: &[Leaf], through_index: bool, span: std::ops::Range<i64>) -> Result<InScope> {
    let ages = rules.policies.ages(rules.target)?;
    let mut tally = Tally::of(rules.target, &Rc::clone(&rules.policies));
    let mut counted: Vec<Counted> = Vec::new();
    let mut oldest = None;
    for leaf in leaves {
        read(rules, leaf, through_index, |row| {
            let place = tally.of_row(row);
            tally.list[place].failed += 1;
            counted.resize_with(counted.len().max(place + 1), Counted::default);
            let Some(at) = row.number(3) else { return };
            let (age, counted) = (ages[tally.list[place].policy], &mut counted[place]);
            counted.expired += i64::from(at < age.cutoff);
            counted.too_old += i64::from(at < age.keep_cutoff.min(age.cutoff));
            counted.failed += i64::from(span.contains(&at));
            oldest = oldest.map_or(Some(at), |oldest: i64| Some(oldest.min(at)));
        })?;
    }
    counted.resize_with(tally.list.len(), Counted::default);
    let of_status = tally.by_status().iter().map(|counts| counts.in_scope).collect();
    let mut recipes: Vec<OfRecipe> = Vec::new();
    for (recipe, (entry, counted)) in tally.recipe_of_each().into_iter().zip(tally.list.iter().zip(&counted)) {
        match recipes.get_mut(recipe) {
            Some(sum) => {
                sum.in_scope += entry.failed;
                sum.failed += counted.failed;
            }
            None => recipes.push(OfRecipe {
                recipe_id: entry.recipe_id.clone(),
                in_scope: entry.failed,
                failed: counted.failed,
            }),
        }
    }
    Ok(InScope { recipes, of_status, removable: removable(rules, &tally.list, counted), oldest })
}

/// How many rows go if of each recipe and policy the newest stay. Its entries are ranked together, whatever their status.
fn removable(rules: &Rules, entries: &[RecipeCount], mut counted: Vec<Counted>) -> i64 {
    for place in (0..entries.len()).rev() {
        let first = entries[place].ranked_with;
        if first < place {
            let Counted { expired, too_old, .. } = std::mem::take(&mut counted[place]);
            counted[first].expired += expired;
            counted[first].too_old += too_old;
        }
    }
    let of_entry = |(entry, counted): (&RecipeCount, &Counted)| {
        let keep = i64::from(rules.policies.list[entry.policy].keep);
        counted.expired - keep.min(counted.expired - counted.too_old)
    };
    entries.iter().zip(&counted).map(of_entry).sum()
}
