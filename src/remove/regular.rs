use crate::postgres::error::Result;
use crate::rank::one_pass::{Ranked, rank};
use crate::rank::tally::Tally;
use crate::remove::by_position::remove_around;
use crate::remove::find::{Place, find};
use crate::remove::keys;
use crate::remove::left::Left;
use crate::rules::{Rules, breaker};
use crate::target::leaf::{Leaf, Reach};

/// Rows per statement: few enough to need little memory, many enough that starting a statement costs nothing.
pub const CHUNK: usize = 50_000;

/// Removes the removable rows, or only counts them in a dry run; one entry per recipe that has failed rows. Errors: those of
/// `breaker::check`, unless `force`.
pub fn regular(rules: &Rules, leaves: &[Leaf], keep: usize, dry_run: bool, force: bool) -> Result<(Tally, Left)> {
    let Ranked { mut tally, mut positions, .. } = rank(rules, keep, leaves)?;
    let mut left = Left::default();
    if dry_run || tally.removed() == 0 {
        return Ok((tally, left));
    }
    breaker::check(rules.target, tally.removed(), tally.failed(), force)?;
    tally.list.iter_mut().for_each(|recipe| recipe.left = Some(std::mem::take(&mut recipe.removed)));
    let places = 0..tally.list.len();
    for (leaf, place) in leaves.iter().zip(0..) {
        leaf.as_owner(rules.target, || match (leaf.reach, &mut positions) {
            (Reach::Key, _) => keys::remove(rules, leaf, places.clone(), usize::MAX, &mut tally, &mut left).map(drop),
            (Reach::Position, Some(positions)) => std::mem::take(&mut positions[place])
                .chunks(CHUNK)
                .try_for_each(|chunk| remove_around(rules, leaf, chunk, &mut tally, &mut left)),
            (Reach::Position, None) => walk(rules, leaf, &mut tally, &mut left),
        })?;
    }
    Ok((tally, left))
}

/// Removes the rows older than their recipe's cutoff, page by page. Used if there are too many positions to keep.
pub fn walk(rules: &Rules, leaf: &Leaf, tally: &mut Tally, left: &mut Left) -> Result<()> {
    let mut after = (0, 0);
    loop {
        let rows = find(rules, leaf, Place::Blocks { after, end: leaf.pages }, CHUNK, tally)?;
        remove_around(rules, leaf, &rows, tally, left)?;
        match rows.last() {
            Some(last) if rows.len() == CHUNK => after = (last.block(), last.offset()),
            _ => return Ok(()),
        }
    }
}
