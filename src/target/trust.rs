use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::now::one_now;
use crate::postgres::settings::{set_local, with_settings};

/// Whether a role has code in this database, and an owner of the tables (`$1`), their partitions and children does not trust it.
/// In most databases there is none, and the walk would cost a new session some milliseconds of planning.
const STRANGERS: &str = "
    WITH RECURSIVE used (oid) AS (
        SELECT unnest($1)
        UNION
        SELECT i.inhrelid FROM used JOIN pg_inherits i ON i.inhparent = used.oid
    )
    SELECT EXISTS (
        SELECT FROM (SELECT DISTINCT relowner FROM used JOIN pg_class USING (oid)) seen (owner)
        WHERE EXISTS (SELECT FROM pg_shdepend d LEFT JOIN pg_class v ON d.classid = 'pg_class'::regclass AND v.oid = d.objid
                      WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND d.deptype = 'o'
                        AND (d.classid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass,
                                           'pg_opclass'::regclass) OR v.relkind = 'v')
                        AND NOT pg_has_role(d.refobjid, seen.owner, 'USAGE')))";

/// Walks from tables (`$1`), their partitions, children and ancestors down to all code that a statement on them may run: of
/// types, domains, casts, defaults, generated columns, CHECKs, rules, views, partition keys, expressions of indexes and statistics,
/// operator classes. An owner trusts a role that could act as the owner anyway. Returns the first object of another role: its
/// description, its owner, the role that its code would run as, and that role's table.
///
/// What PostgreSQL itself comes with has no dependencies recorded. What a function's body calls is not recorded, either.
const STRANGER: &str = "
    WITH RECURSIVE used (oid) AS (
        SELECT unnest($1)
        UNION
        SELECT i.inhrelid FROM used JOIN pg_inherits i ON i.inhparent = used.oid
    ), above (oid, ancestor) AS (
        SELECT unnest(tables), unnest(tables) FROM (SELECT array_agg(oid) FROM used) seen (tables)
        UNION
        SELECT above.oid, i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.ancestor
    ), code (owner, class, object) AS (
        SELECT owner, 'pg_class'::regclass::oid, unnest(tables)
        FROM (SELECT relowner, array_agg(ancestor) FROM above JOIN pg_class USING (oid) GROUP BY 1) seen (owner, tables)
        UNION
        SELECT code.owner, below.class, below.object
        FROM code CROSS JOIN LATERAL (
            SELECT refclassid, refobjid FROM pg_depend
            WHERE classid = code.class AND objid = code.object
              AND (refclassid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass)
                   OR refclassid = 'pg_class'::regclass AND code.class = 'pg_rewrite'::regclass)
            UNION ALL
            SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef
            WHERE code.class = 'pg_class'::regclass AND adrelid = code.object
            UNION ALL
            SELECT 'pg_constraint'::regclass, oid FROM pg_constraint
            WHERE code.class = 'pg_class'::regclass AND conrelid = code.object AND contypid = 0
            UNION ALL
            SELECT 'pg_constraint'::regclass, oid FROM pg_constraint
            WHERE code.class = 'pg_type'::regclass AND conrelid = 0 AND contypid = code.object
            UNION ALL
            SELECT 'pg_class'::regclass, indexrelid FROM pg_index
            WHERE code.class = 'pg_class'::regclass AND indrelid = code.object
            UNION ALL
            SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext
            WHERE code.class = 'pg_class'::regclass AND stxrelid = code.object
            UNION ALL
            SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite
            WHERE code.class = 'pg_class'::regclass AND ev_class = code.object
            UNION ALL
            SELECT 'pg_class'::regclass, typrelid FROM pg_type
            WHERE code.class = 'pg_type'::regclass AND oid = code.object AND typrelid <> 0
            UNION ALL
            SELECT 'pg_proc'::regclass, castfunc FROM pg_cast
            WHERE code.class = 'pg_type'::regclass AND code.object IN (castsource, casttarget) AND castfunc <> 0
            UNION ALL
            -- What the planner may use in its place.
            SELECT 'pg_operator'::regclass, unnest(ARRAY[oprcom, oprnegate]) FROM pg_operator
            WHERE code.class = 'pg_operator'::regclass AND oid = code.object
            UNION ALL
            SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
            WHERE code.class = 'pg_type'::regclass AND opcintype = code.object AND opcdefault
            UNION ALL
            SELECT 'pg_proc'::regclass, amproc FROM pg_opclass o
            JOIN pg_amproc ON amprocfamily = opcfamily AND amproclefttype = opcintype
            WHERE code.class = 'pg_opclass'::regclass AND o.oid = code.object
            UNION ALL
            SELECT 'pg_operator'::regclass, amopopr FROM pg_opclass o
            JOIN pg_amop ON amopfamily = opcfamily AND amoplefttype = opcintype
            WHERE code.class = 'pg_opclass'::regclass AND o.oid = code.object
        ) below (class, object)
    )
    SELECT ARRAY[pg_describe_object(class, object, 0), owner::regrole::text, victim::regrole::text,
           (SELECT min(c.oid)::regclass::text FROM used JOIN pg_class c USING (oid) WHERE c.relowner = victim)]
    FROM (
        SELECT code.class, code.object, o.owner, code.owner
        FROM code CROSS JOIN LATERAL (
            -- An array and a multirange have the owner of their elements, and a row type that of its table.
            SELECT typowner FROM pg_type t
            WHERE code.class = 'pg_type'::regclass AND oid = code.object AND typtype <> 'm'
              AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
              AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
            UNION ALL
            SELECT proowner FROM pg_proc WHERE code.class = 'pg_proc'::regclass AND oid = code.object
            UNION ALL
            SELECT oprowner FROM pg_operator WHERE code.class = 'pg_operator'::regclass AND oid = code.object
            UNION ALL
            SELECT opcowner FROM pg_opclass WHERE code.class = 'pg_opclass'::regclass AND oid = code.object
            UNION ALL
            SELECT relowner FROM pg_class WHERE code.class = 'pg_class'::regclass AND oid = code.object AND relkind = 'v'
        ) o (owner)
        WHERE NOT pg_has_role(o.owner, code.owner, 'USAGE')
        ORDER BY code.class, code.object
        LIMIT 1
    ) stranger (class, object, owner, victim)";

/// A partition, with its owner, of a table that references one of the tables (`$1`), their partitions and children, and whose owner
/// does not trust it: each removal has PostgreSQL read that table as its owner, and plan all its partitions with their code.
const REFERENCING: &str = "
    WITH RECURSIVE used (oid) AS (
        SELECT unnest($1)
        UNION
        SELECT i.inhrelid FROM used JOIN pg_inherits i ON i.inhparent = used.oid
    )
    SELECT ARRAY[part.oid::regclass::text, part.relowner::regrole::text, c.relowner::regrole::text, f.confrelid::regclass::text]
    FROM pg_constraint f
    JOIN used ON used.oid = f.confrelid
    JOIN pg_class c ON c.oid = f.conrelid AND c.relkind = 'p'
    CROSS JOIN LATERAL pg_partition_tree(c.oid) tree
    JOIN pg_class part ON part.oid = tree.relid
    WHERE f.contype = 'f' AND NOT pg_has_role(part.relowner, c.relowner, 'USAGE')
    LIMIT 1";

/// Refuses tables below which a role has code that their owner does not trust. Called as the extension's owner. Errors: 42501.
pub fn check(tables: &[pg_sys::Oid]) -> Result<()> {
    if let Some([partition, owner, victim, table]) =
        one_now::<Vec<String>>(REFERENCING, &[tables.to_vec().into()])?.as_deref()
    {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!(
                "partition {partition} belongs to role \"{owner}\", and its code would run as role \"{victim}\", whose table \
                 references \"{table}\""
            ),
            format!("decide which role is to own {partition}"),
        ));
    }
    let stranger = with_settings(|| {
        // The planner believes in a million rows, where there are ten.
        set_local("jit", "off");
        for path in ["seqscan", "hashjoin", "mergejoin"] {
            set_local(&format!("enable_{path}"), "off");
        }
        set_local("plan_cache_mode", "force_generic_plan");
        match one_now::<bool>(STRANGERS, &[tables.to_vec().into()])? {
            Some(true) => one_now::<Vec<String>>(STRANGER, &[tables.to_vec().into()]),
            _ => Ok(None),
        }
    })?;
    let Some([object, owner, victim, table]) = stranger.as_deref() else { return Ok(()) };
    Err(error(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("{object} belongs to role \"{owner}\", and would run as role \"{victim}\", who owns \"{table}\""),
        // No statement: it would give the code the rights of the table's owner.
        format!(
            "decide whether its code may run as \"{victim}\": then make \"{victim}\" its owner; otherwise take it out of \"{table}\""
        ),
    ))
}

/// Whether an owner trusts another one, who could act as it anyway.
pub fn trusts(owner: pg_sys::Oid, other: pg_sys::Oid) -> Result<bool> {
    one_now::<bool>("SELECT pg_has_role($1, $2, 'USAGE')", &[other.into(), owner.into()])
        .map(|trusts| trusts == Some(true))
}
