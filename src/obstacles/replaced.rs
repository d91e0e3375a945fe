use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_keys;
use crate::postgres::error::Result;
use crate::target::Target;
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

/// Rules apply to what a foreign key does, too. Without a condition, PostgreSQL takes it for an error that nothing of the kind is done, also
/// where no row references the one that goes; otherwise it does not see that the reference stays.
const ACTIONS: &str = "
    SELECT CASE WHEN refuses THEN 'fail' ELSE 'warn' END,
           format(CASE WHEN refuses THEN 'rule %I on %s replaces what foreign key %I does there: no row goes that it could reference; '
                                         'decide whether it is to'
                       ELSE 'rule %I on %s replaces some of what foreign key %I does there, so that rows can stay whose reference is gone: '
                            'decide whether it is to' END,
                  r.rulename, r.ev_class::regclass, key.conname), NULL
    FROM key JOIN pg_rewrite r ON r.ev_class = key.conrelid
    -- The numbers of commands are those of ev_type.
    CROSS JOIN LATERAL (SELECT r.ev_qual = '<>' AND strpos(r.ev_action::text, format('{QUERY :commandType %s ', r.ev_type)) = 0)
        rule (refuses)
    WHERE r.ev_type = CASE WHEN key.confdeltype = 'c' THEN '4' WHEN key.confdeltype IN ('n', 'd') THEN '2' END
      AND r.is_instead AND r.ev_enabled IN ('O', 'A')
    ORDER BY 2";

/// Finds rules that do something else instead of what a foreign key does to the rows that reference a removed one.
pub fn actions_replaced(target: &Target) -> Result<Vec<Problem>> {
    problems(&on_keys(ACTIONS), &[vec![target.table.oid].into()])
}
