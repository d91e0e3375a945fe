use crate::postgres::error::Result;
use crate::postgres::stream::stream;
use crate::rank::tally::Tally;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// Counts the held rows that a run passes over: in an emergency run those that are selected, in a regular run those that it has
/// ranked.
pub fn held(rules: &Rules, leaves: &[Leaf], tally: &Tally) -> Result<i64> {
    if rules.is_regular() {
        let holds = rules.policies.list.iter().zip(tally.by_policy()).filter(|(policy, _)| policy.is_hold());
        return Ok(holds.map(|(_, counts)| counts.in_scope).sum());
    }
    let Some(held) = rules.is_held() else { return Ok(0) };
    let mut rows = 0;
    for leaf in leaves {
        let count =
            format!("SELECT pg_catalog.count(*) FROM {} g WHERE {} AND ({held})", leaf.rows(), rules.is_selected());
        leaf.reading_as_owner(rules.target, || stream(&count, |row| rows += row.number(0).unwrap_or_default()))?;
    }
    Ok(rows)
}
