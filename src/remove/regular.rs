use crate::postgres::error::Result;
use crate::rank::one_pass::{Ranked, rank};
use crate::rank::tally::Tally;
use crate::remove::left::Left;
use crate::remove::order::in_order;
use crate::remove::pieces::CHUNK;
use crate::remove::steps::{Rows, ordered, remove_steps};
use crate::rules::{Rules, breaker};
use crate::target::leaf::{Leaf, Reach};

/// Removes the removable rows, or only counts them in a dry run; one entry per recipe that has failed rows. Errors: those of
/// `breaker::check`, unless `force`.
pub fn regular(rules: &Rules, leaves: &[Leaf], dry_run: bool, force: bool) -> Result<(Tally, Left)> {
    let Ranked { mut tally, positions, .. } = rank(rules, leaves)?;
    let mut left = Left::default();
    if dry_run || tally.removed() == 0 {
        return Ok((tally, left));
    }
    breaker::check(rules.target, tally.removed(), tally.failed(), force)?;
    tally.list.iter_mut().for_each(|recipe| recipe.left = Some(std::mem::take(&mut recipe.removed)));
    let all = |(place, _)| (place, Rows::all());
    let (steps, held) = match positions {
        Some(positions) => {
            let (mut steps, held) = ordered(in_order(leaves, positions, CHUNK)?);
            steps.extend(leaves.iter().enumerate().filter(|(_, leaf)| leaf.reach == Reach::Key).map(all));
            (steps, held)
        }
        None => (leaves.iter().enumerate().map(all).collect(), Vec::new()),
    };
    remove_steps(rules, leaves, steps, held, &mut tally, &mut left)?;
    Ok((tally, left))
}
