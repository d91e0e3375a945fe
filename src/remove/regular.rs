use crate::postgres::error::Result;
use crate::rank::one_pass::{Ranked, rank};
use crate::rank::tally::Tally;
use crate::remove::by_position::remove;
use crate::remove::find::{Place, find};
use crate::remove::keys;
use crate::rules::{Rules, breaker};
use crate::target::leaf::{Leaf, Reach};

/// Rows per statement: few enough to need little memory, many enough that starting a statement costs nothing.
const CHUNK: usize = 50_000;

/// Removes the removable rows, or only counts them in a dry run; one entry per recipe that has failed rows. Errors: those of
/// `breaker::check`, unless `force`.
pub fn regular(rules: &Rules, leaves: &[Leaf], keep: usize, dry_run: bool, force: bool) -> Result<Tally> {
    let Ranked { mut tally, mut positions, .. } = rank(rules, keep, leaves)?;
    if dry_run || tally.removed() == 0 {
        return Ok(tally);
    }
    breaker::check(rules.target, tally.removed(), tally.failed(), force)?;
    tally.list.iter_mut().for_each(|recipe| recipe.removed = 0);
    let places = 0..tally.list.len();
    for (leaf, place) in leaves.iter().zip(0..) {
        leaf.as_owner(rules.target, || match (leaf.reach, &mut positions) {
            (Reach::Key, _) => keys::remove(rules, leaf, places.clone(), usize::MAX, &mut tally).map(drop),
            (Reach::Position, Some(positions)) => std::mem::take(&mut positions[place])
                .chunks(CHUNK)
                .try_for_each(|chunk| remove(rules, leaf, chunk, &mut tally).map(drop)),
            (Reach::Position, None) => walk(rules, leaf, &mut tally),
        })?;
    }
    Ok(tally)
}

/// Removes the rows older than their recipe's cutoff, page by page. Used if there are too many positions to keep.
fn walk(rules: &Rules, leaf: &Leaf, tally: &mut Tally) -> Result<()> {
    let mut after = (0, 0);
    loop {
        let rows = find(rules, leaf, Place::Blocks { after, end: leaf.pages }, CHUNK, tally)?;
        remove(rules, leaf, &rows, tally)?;
        match rows.last() {
            Some(last) if rows.len() == CHUNK => after = (last.block(), last.offset()),
            _ => return Ok(()),
        }
    }
}
