use crate::obstacles::problem::{Problem, problems};
use crate::postgres::error::Result;
use crate::target::leaf::Leaf;

const REPLACED: &str = "
    SELECT 'fail', format('rule %I on %s replaces every removal: decide whether it is to', r.rulename, r.ev_class::regclass), NULL
    FROM pg_rewrite r
    WHERE r.ev_class = ANY ($1) AND r.ev_type = '4' AND r.is_instead AND r.ev_qual = '<>' AND r.ev_enabled IN ('O', 'A')
    ORDER BY 2";

/// Finds rules without a condition that do something else instead of a DELETE: all rows of their table stay.
pub fn replaced(leaves: &[Leaf]) -> Result<Vec<Problem>> {
    let tables: Vec<_> = leaves.iter().map(|leaf| leaf.table.oid).collect();
    problems(REPLACED, &[tables.into()])
}
