use crate::obstacles::problem::{Problem, Status, problems};
use crate::obstacles::replaced::replaced;
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::target::Target;
use crate::target::leaf::leaves;
use crate::target::passed_over::{PassedOver, passed_over};

/// Rows are removed from the partitions and children themselves. A DELETE of the target's table would not ask the tables in
/// between, either, for what is for each statement.
const TRIGGERS: &str = "
    SELECT 'warn', format(CASE WHEN is_above AND t.tgtype & 1 = 0 -- TRIGGER_TYPE_ROW
                               THEN 'trigger %I on %s fires for no removal from the tables below it: decide whether it is to be on each'
                               ELSE 'trigger %I on %s fires for every removal: decide whether it is to' END,
                          t.tgname, t.tgrelid::regclass), NULL
    FROM pg_trigger t JOIN parts ON t.tgrelid = parts.oid
    WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgparentid = 0
      AND t.tgtype & 8 <> 0 -- TRIGGER_TYPE_DELETE
      AND NOT (is_above AND is_target AND t.tgtype & 1 = 0)
    UNION ALL
    SELECT 'warn', format('rule %I on %s applies to no removal from the tables below it: decide whether it is to be on each',
                          r.rulename, r.ev_class::regclass), NULL
    FROM pg_rewrite r JOIN parts ON r.ev_class = parts.oid
    WHERE r.ev_type = '4' AND r.ev_enabled IN ('O', 'A') AND is_above AND NOT is_target
    UNION ALL
    SELECT 'warn', format('foreign key %I of %s to itself is ON DELETE CASCADE: a run keeps rows back that would take others along',
                          f.conname, f.conrelid::regclass), NULL
    FROM pg_constraint f JOIN used ON f.confrelid = used.oid
    WHERE f.contype = 'f' AND f.conrelid = f.confrelid AND f.confdeltype = 'c' AND f.conparentid = 0
    UNION ALL
    SELECT 'warn', format('rule %I on %s %s: decide whether it is to', r.rulename, r.ev_class::regclass,
                          CASE WHEN r.is_instead THEN 'replaces some removals' ELSE 'adds to a removal' END), NULL
    FROM pg_rewrite r JOIN parts ON r.ev_class = parts.oid
    WHERE r.ev_type = '4' AND r.ev_enabled IN ('O', 'A') AND NOT is_above AND NOT (r.is_instead AND r.ev_qual = '<>')
    UNION ALL
    SELECT 'ok', format('triggers, rules and foreign keys of the server behind %s are not seen: its ON DELETE CASCADE of the table to '
                        'itself removes rows that no run counts', parts.oid::regclass), NULL
    FROM parts JOIN pg_class c USING (oid) WHERE c.relkind = 'f'
    ORDER BY 2";

const PARTS: &str = ", parts AS (
        SELECT oid, oid = ANY ($1) AS is_target,
               relkind = 'p' OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = oid AND NOT inhdetachpending) AS is_above
        FROM used JOIN pg_class USING (oid)
    )";

/// Finds triggers and rules that fire for a removal, which cost time and may keep rows back, and those that runs pass over.
pub fn triggers(target: &Target) -> Result<Vec<Problem>> {
    let decide = |PassedOver { message, hint, .. }| Problem {
        status: Status::Fail,
        detail: format!("{message}; decide, and type {hint}"),
        fix: None,
    };
    let refused = passed_over(target)?.into_iter().filter(|found| !found.is_row_security);
    let mut found: Vec<Problem> = refused.map(decide).collect();
    found.extend(replaced(&leaves(target)?)?);
    found.extend(problems(&on_tables(&format!("{PARTS}{TRIGGERS}")), &[vec![target.table.oid].into()])?);
    Ok(found)
}

const DEFERRED_CONSTRAINTS: &str = "
    SELECT 'warn', format('constraint %I on %s is deferred, but a run checks it immediately%s', c.conname, c.conrelid::regclass,
                          CASE c.contype WHEN 't' THEN ': decide whether it is to be' END),
           CASE c.contype WHEN 'f' THEN format('ALTER TABLE %s ALTER CONSTRAINT %I NOT DEFERRABLE', c.conrelid::regclass,
                                               c.conname) END
    FROM pg_constraint c JOIN used ON CASE c.contype WHEN 'f' THEN c.confrelid WHEN 't' THEN c.conrelid END = used.oid
    WHERE c.condeferred AND c.conparentid = 0
    ORDER BY 2";

pub fn deferred_constraints(target: &Target) -> Result<Vec<Problem>> {
    problems(&on_tables(DEFERRED_CONSTRAINTS), &[vec![target.table.oid].into()])
}
