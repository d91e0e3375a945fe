use crate::obstacles::problem::{Problem, Status, problems};
use crate::obstacles::used::{on_changed, on_tables};
use crate::postgres::error::Result;
use crate::target::Target;

const VIEWS: &str = ", below (view, oid) AS (
        SELECT c.oid, c.oid FROM used JOIN pg_class c ON c.oid = used.oid WHERE c.relhasrules AND c.relkind <> 'm'
        UNION
        SELECT below.view, next.oid
        FROM below CROSS JOIN LATERAL (
            SELECT d.refobjid
            FROM pg_rewrite r
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
            WHERE r.ev_class = below.oid
            UNION ALL
            SELECT inhrelid FROM pg_inherits WHERE inhparent = below.oid AND below.oid <> below.view
        ) next (oid)
    )
    SELECT 'warn', format('%s %s reads %s of role %s, whose code there runs as role %s: one role should own both',
                          CASE v.relkind WHEN 'v' THEN 'view' ELSE 'a rule of' END,
                          v.oid::regclass, c.oid::regclass, c.relowner::regrole, v.relowner::regrole), NULL
    FROM below JOIN pg_class v ON v.oid = below.view JOIN pg_class c ON c.oid = below.oid
    WHERE NOT pg_has_role(c.relowner, v.relowner, 'USAGE')
    ORDER BY 2";

const CASCADES: &str = "
    SELECT DISTINCT 'warn', format('a removal changes %s of role %s, whose triggers there run as role %s: one role should own both',
                                   c.oid::regclass, c.relowner::regrole, t.relowner::regrole), NULL
    FROM changed
    JOIN pg_constraint f ON f.confrelid = changed.oid AND changed.is_removed
    JOIN pg_class t ON t.oid = ANY ($1)
    JOIN pg_class c ON c.oid = f.conrelid
    WHERE f.contype = 'f' AND f.confdeltype IN ('c', 'n', 'd') AND f.conparentid = 0
      AND NOT pg_has_role(c.relowner, t.relowner, 'USAGE')
    ORDER BY 2";

/// A partition's copy of a trigger goes with the one that it is a copy of. One of a table above the target can be switched off only.
const TRIGGERS: &str = ", found AS (
    SELECT t.oid, t.tgparentid, format('trigger %I on %s calls %s, which belongs to %I and runs as %I', t.tgname, c.oid::regclass,
                          p.oid::regprocedure, p.proowner::regrole::name, c.relowner::regrole::name) AS detail,
           format(CASE t.tgparentid WHEN 0 THEN 'DROP TRIGGER %1$I ON %2$s' ELSE 'ALTER TABLE %2$s DISABLE TRIGGER %1$I' END,
                  t.tgname, c.oid::regclass) AS without
    FROM pg_trigger t
    JOIN used ON used.oid = t.tgrelid
    JOIN pg_class c ON c.oid = t.tgrelid
    JOIN pg_depend d ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_proc'::regclass
    JOIN pg_proc p ON p.oid = d.refobjid
    WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
      AND t.tgtype & (4 | 8) <> 0 -- TRIGGER_TYPE_INSERT, as into a ledger, and TRIGGER_TYPE_DELETE
      AND NOT pg_has_role(p.proowner, c.relowner, 'USAGE')
    )
    SELECT 'warn', format('%s; decide, and type %s', detail, without), NULL FROM found WHERE tgparentid NOT IN (SELECT oid FROM found)
    ORDER BY 2";

/// Where PostgreSQL itself runs code of one role as another: below a view or a rule, where it checks a foreign key, after a foreign
/// key's action, and in a trigger, which the TRIGGER privilege is enough to make.
pub fn code(target: &Target) -> Result<Vec<Problem>> {
    target.keys_are_trusted()?;
    let mut found = problems(&on_tables(VIEWS), &[target.tables().into()])?;
    found.extend(target.strange_keys()?.map(|detail| Problem { status: Status::Warn, detail, fix: None }));
    found.extend(problems(&on_changed(CASCADES), &[vec![target.table.oid].into()])?);
    found.extend(problems(&on_tables(TRIGGERS), &[target.tables().into()])?);
    Ok(found)
}
