use crate::postgres::error::Result;
use crate::postgres::owner::as_owner_of;
use crate::rank::tally::{Recipes, Swept};
use crate::rank::{Ranked, rank};
use crate::remove::find::{Place, condition, find};
use crate::remove::keys;
use crate::remove::remove;
use crate::rules::breaker;
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach, leaves};

/// Rows per statement: few enough that what a statement keeps is small, many enough that its start costs nothing.
const CHUNK: usize = 50_000;

/// Removes what a policy lets go, or only counts it in a dry run; one entry per recipe that has failed rows. Errors: those
/// of `breaker::check`, unless `force`.
pub fn regular(
    target: &Target,
    policy: &Policy,
    selection: &Selection,
    dry_run: bool,
    force: bool,
) -> Result<Vec<Swept>> {
    let leaves = leaves(target)?;
    let Ranked { mut recipes, mut positions, .. } = rank(target, policy, selection, &leaves)?;
    if dry_run || recipes.removed() == 0 {
        return Ok(recipes.into_sorted());
    }
    breaker::check(target, &recipes.list, force)?;
    recipes.list.iter_mut().for_each(|recipe| recipe.removed = 0);
    let condition = condition(target, Some(policy), selection);
    let places = 0..recipes.list.len();
    for (leaf, place) in leaves.iter().zip(0..) {
        as_owner_of(&leaf.table, || match (leaf.reach, &mut positions) {
            (Reach::Key, _) => {
                keys::remove(target, leaf, policy, selection, places.clone(), usize::MAX, &mut recipes).map(drop)
            }
            (Reach::Position, Some(positions)) => std::mem::take(&mut positions[place])
                .chunks(CHUNK)
                .try_for_each(|chunk| remove(target, leaf, &condition, chunk, &mut recipes).map(drop)),
            (Reach::Position, None) => walk(target, leaf, policy, selection, &condition, &mut recipes),
        })?;
    }
    Ok(recipes.into_sorted())
}

/// Removes what is behind the cutoffs, page by page, where there is more than positions are kept of.
fn walk(
    target: &Target,
    leaf: &Leaf,
    policy: &Policy,
    selection: &Selection,
    condition: &str,
    recipes: &mut Recipes,
) -> Result<()> {
    let mut after = (0, 0);
    loop {
        let place = Place::Blocks { after, end: leaf.pages };
        let rows = find(target, leaf, Some(policy), selection, place, CHUNK, recipes)?;
        remove(target, leaf, condition, &rows, recipes)?;
        match rows.last() {
            Some(last) if rows.len() == CHUNK => after = (last.block(), last.offset()),
            _ => return Ok(()),
        }
    }
}
