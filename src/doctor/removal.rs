use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::target::Target;

/// Rows are removed from the partitions and children themselves: what is for each statement on a table above fires for none.
const TRIGGERS: &str = "
    SELECT CASE WHEN is_passed_over THEN 'fail' ELSE 'warn' END,
           format(CASE WHEN is_passed_over THEN 'trigger %I on %s fires for no removal from the tables below it: decide whether it '
                                                'is to be on each of them'
                       ELSE 'trigger %I on %s fires for every removal: decide whether it is to' END,
                  t.tgname, t.tgrelid::regclass),
           NULL
    FROM pg_trigger t JOIN used ON t.tgrelid = used.oid
    JOIN pg_class c ON c.oid = t.tgrelid
    CROSS JOIN LATERAL (SELECT c.relhassubclass AND t.tgtype & 1 = 0) above (is_passed_over) -- TRIGGER_TYPE_ROW
    WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgparentid = 0
      AND t.tgtype & 8 <> 0 -- TRIGGER_TYPE_DELETE
    UNION ALL
    SELECT 'fail', format('rule %I on %s applies to no removal from the tables below it: decide whether it is to be on each of them',
                          r.rulename, r.ev_class::regclass), NULL
    FROM pg_rewrite r JOIN used ON r.ev_class = used.oid JOIN pg_class c ON c.oid = r.ev_class
    WHERE r.ev_type = '4' AND r.ev_enabled <> 'D' AND c.relhassubclass
    UNION ALL
    SELECT 'warn', format('foreign key %I of %s to itself is ON DELETE CASCADE: a run keeps rows back that would take others along',
                          f.conname, f.conrelid::regclass), NULL
    FROM pg_constraint f JOIN used ON f.confrelid = used.oid
    WHERE f.contype = 'f' AND f.conrelid = f.confrelid AND f.confdeltype = 'c' AND f.conparentid = 0
    UNION ALL
    SELECT CASE WHEN r.is_instead THEN 'fail' ELSE 'warn' END,
           format('rule %I on %s %s a removal', r.rulename, r.ev_class::regclass,
                  CASE WHEN r.is_instead THEN 'replaces' ELSE 'adds to' END),
           CASE WHEN r.is_instead THEN format('DROP RULE %I ON %s', r.rulename, r.ev_class::regclass) END
    FROM pg_rewrite r JOIN used ON r.ev_class = used.oid JOIN pg_class c ON c.oid = r.ev_class
    WHERE r.ev_type = '4' AND r.ev_enabled <> 'D' AND NOT c.relhassubclass
    ORDER BY 2";

/// Finds triggers and rules that fire for a removal. They cost time, and may keep rows back.
pub fn triggers(target: &Target) -> Result<Vec<Problem>> {
    problems(&on_tables(TRIGGERS), &[vec![target.table.oid].into()])
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
