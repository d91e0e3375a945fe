use crate::postgres::error::Result;
use crate::rank::grouped::count_where;
use crate::rank::tally::Tally;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// Counts the held rows that a run passes over: in an emergency run, which has not counted them yet, those that are selected, which the
/// tally then has too; in a regular run those that it has ranked.
pub fn held(rules: &Rules, leaves: &[Leaf], tally: &mut Tally) -> Result<i64> {
    if rules.is_regular() {
        let holds = rules.policies.list.iter().zip(tally.by_policy()).filter(|(policy, _)| policy.is_hold());
        return Ok(holds.map(|(_, counts)| counts.in_scope).sum());
    }
    let Some(is_held) = rules.is_held() else { return Ok(0) };
    let condition = format!("{} AND ({is_held})", rules.is_selected());
    let mut counted = Tally::of(rules.target, &rules.policies);
    for leaf in leaves {
        leaf.reading_as_owner(rules.target, || count_where(rules, leaf, &condition, &mut counted))?;
    }
    tally.add_failed(&counted);
    Ok(counted.failed())
}
