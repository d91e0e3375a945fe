use crate::doctor::problem::{Problem, problems};
use crate::doctor::used::{on_tables, tables};
use crate::postgres::error::Result;
use crate::target::Target;

const VIEWS: &str = ", below (view, oid) AS (
        SELECT c.oid, c.oid FROM used JOIN pg_class c ON c.oid = used.oid WHERE c.relkind = 'v'
        UNION
        SELECT below.view, d.refobjid
        FROM below
        JOIN pg_rewrite r ON r.ev_class = below.oid
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    )
    SELECT 'warn', format('%s, which is below view %s, belongs to %I, whose code there runs as %I',
                          c.oid::regclass, v.oid::regclass, c.relowner::regrole::name, v.relowner::regrole::name),
           format('ALTER VIEW %s OWNER TO %I', v.oid::regclass, c.relowner::regrole::name)
    FROM below JOIN pg_class v ON v.oid = below.view JOIN pg_class c ON c.oid = below.oid
    WHERE NOT pg_has_role(c.relowner, v.relowner, 'USAGE')
    ORDER BY 2";

const CASCADES: &str = "
    SELECT 'warn', format('a removal changes rows of %s, which belongs to %I, whose triggers there run as %I',
                          c.oid::regclass, c.relowner::regrole::name, t.relowner::regrole::name),
           format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, t.relowner::regrole::name)
    FROM pg_constraint f
    JOIN used ON used.oid = f.confrelid
    JOIN pg_class t ON t.oid = used.oid
    JOIN pg_class c ON c.oid = f.conrelid
    WHERE f.contype = 'f' AND f.confdeltype IN ('c', 'n', 'd') AND f.conparentid = 0
      AND NOT pg_has_role(c.relowner, t.relowner, 'USAGE')
    ORDER BY 2";

/// Where PostgreSQL itself runs code of one role as another: below a view, and after a foreign key's action.
pub fn code(target: &Target) -> Result<Vec<Problem>> {
    let mut found = problems(&on_tables(VIEWS), &[tables(target).into()])?;
    found.extend(problems(&on_tables(CASCADES), &[vec![target.table.oid].into()])?);
    Ok(found)
}
