//! Whose code statements run.

pub mod keys;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::names::Object;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::settings::{set_local, with_settings};

/// Makes a statement of one that returns where walks start: owner, relations, whether they are read with their partitions and
/// children, and the kinds of types (`pg_type.typtype`) that are code of their own there. It leaves owners out who trust each role that has code in this database. In most databases there is none else, and the
/// walk would cost a new session some milliseconds of planning.
macro_rules! beside_strangers {
    ($starts:literal) => {
        concat!(
            "SELECT * FROM (",
            $starts,
            ") started (owner, relations, is_whole, types)
             WHERE EXISTS (
                 SELECT FROM pg_shdepend d LEFT JOIN pg_class v ON d.classid = 'pg_class'::regclass AND v.oid = d.objid
                 WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND d.deptype = 'o'
                   AND (d.classid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass,
                                      'pg_collation'::regclass)
                        OR v.relkind = 'v' OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = v.oid))
                   AND NOT pg_has_role(d.refobjid, started.owner, 'USAGE'))"
        )
    };
}
use beside_strangers;

/// The tables (`$1`), their partitions, children and ancestors.
const STARTS: &str = beside_strangers!(
    "WITH RECURSIVE used (oid) AS (
        SELECT unnest($1)
        UNION
        SELECT i.inhrelid FROM used JOIN pg_inherits i ON i.inhparent = used.oid
    ), above (oid, ancestor) AS (
        SELECT oid, oid FROM used
        UNION
        SELECT above.oid, i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.ancestor
    )
    SELECT relowner, array_agg(DISTINCT ancestor), false, 'bcdepr' FROM above JOIN pg_class USING (oid) GROUP BY 1"
);

/// Walks from relations (`$2`) down to all code that a statement on them may run as an owner (`$1`): of types, domains, casts,
/// defaults, generated columns, CHECKs, rules, views, partition keys, expressions of indexes and statistics, operator classes; and
/// to the partitions and children of what is read whole, which is what views, rules and functions name, and the relations that `$3`
/// says; and from the objects (classes `$5`, oids `$6`) that expressions on the relations call. An owner trusts a role that could act
/// as the owner anyway. Returns the first object of another role: its description, its owner, the role that its code would run as,
/// and that role's table. `$4` says which types are code: a domain where values are set.
///
/// What PostgreSQL itself comes with has no dependencies recorded. What a function's body calls is not recorded, either.
const STRANGER: &str = "
    WITH RECURSIVE start (owner, object, is_whole, types) AS (
        SELECT * FROM ROWS FROM (unnest($1), unnest($2), unnest($3), unnest($4)) started (owner, object, is_whole, types)
    ), code (owner, class, object, is_whole, types) AS (
        SELECT owner, 'pg_class'::regclass::oid, object, is_whole, types FROM start
        UNION
        SELECT owner, class, called.object, false, types
        FROM start CROSS JOIN ROWS FROM (unnest($5), unnest($6)) called (class, object)
        UNION
        SELECT code.owner, below.class, below.object, below.is_whole, code.types
        FROM code CROSS JOIN LATERAL (
            SELECT refclassid, refobjid, false FROM pg_depend
            WHERE classid = code.class AND objid = code.object
              AND refclassid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass)
            UNION ALL
            -- A rule's OLD and NEW are of its own table, but do not read it. TABLESAMPLE stands before what says so.
            SELECT refclassid, refobjid, NOT EXISTS (
                SELECT FROM pg_rewrite r
                WHERE code.class = 'pg_rewrite'::regclass AND r.oid = code.object AND r.ev_class = refobjid
                  AND concat(r.ev_qual, r.ev_action) !~ format(':relid %s [^{}]*:inh true|:tablesample [{]', refobjid))
            FROM pg_depend
            WHERE classid = code.class AND objid = code.object AND refclassid = 'pg_class'::regclass
              AND code.class IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
            UNION ALL
            SELECT 'pg_class'::regclass, inhrelid, true FROM pg_inherits
            WHERE code.class = 'pg_class'::regclass AND code.is_whole AND inhparent = code.object
            UNION ALL
            SELECT 'pg_attrdef'::regclass, oid, false FROM pg_attrdef
            WHERE code.class = 'pg_class'::regclass AND adrelid = code.object
            UNION ALL
            SELECT 'pg_constraint'::regclass, oid, false FROM pg_constraint
            WHERE code.class = 'pg_class'::regclass AND conrelid = code.object AND contypid = 0
            UNION ALL
            SELECT 'pg_constraint'::regclass, oid, false FROM pg_constraint
            WHERE code.class = 'pg_type'::regclass AND conrelid = 0 AND contypid = code.object
            UNION ALL
            SELECT 'pg_class'::regclass, indexrelid, false FROM pg_index
            WHERE code.class = 'pg_class'::regclass AND indrelid = code.object
            UNION ALL
            SELECT 'pg_statistic_ext'::regclass, oid, false FROM pg_statistic_ext
            WHERE code.class = 'pg_class'::regclass AND stxrelid = code.object
            UNION ALL
            -- That of a materialized view runs in REFRESH only.
            SELECT 'pg_rewrite'::regclass, r.oid, false FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class
            WHERE code.class = 'pg_class'::regclass AND ev_class = code.object AND c.relkind <> 'm'
            UNION ALL
            SELECT 'pg_class'::regclass, typrelid, false FROM pg_type
            WHERE code.class = 'pg_type'::regclass AND oid = code.object AND typrelid <> 0
            UNION ALL
            -- Anybody may make one between a type of one's own and a type of others. If such a type is used, it is found itself.
            SELECT 'pg_proc'::regclass, castfunc, false
            FROM pg_cast JOIN pg_type other ON other.oid IN (castsource, casttarget) AND other.oid <> code.object
            WHERE code.class = 'pg_type'::regclass AND code.object IN (castsource, casttarget) AND castfunc <> 0
              AND pg_has_role(other.typowner, code.owner, 'USAGE')
            UNION ALL
            -- What the planner may use in its place.
            SELECT 'pg_operator'::regclass, unnest(ARRAY[oprcom, oprnegate]), false FROM pg_operator
            WHERE code.class = 'pg_operator'::regclass AND oid = code.object
            UNION ALL
            SELECT 'pg_opclass'::regclass, oid, false FROM pg_opclass
            WHERE code.class = 'pg_type'::regclass AND opcintype = code.object AND opcdefault
            UNION ALL
            SELECT 'pg_proc'::regclass, amproc, false FROM pg_opclass o
            JOIN pg_amproc ON amprocfamily = opcfamily AND amproclefttype = opcintype
            WHERE code.class = 'pg_opclass'::regclass AND o.oid = code.object
            UNION ALL
            SELECT 'pg_operator'::regclass, amopopr, false FROM pg_opclass o
            JOIN pg_amop ON amopfamily = opcfamily AND amoplefttype = opcintype
            WHERE code.class = 'pg_opclass'::regclass AND o.oid = code.object
        ) below (class, object, is_whole)
    )
    SELECT ARRAY[pg_describe_object(class, object, 0), owner::regrole::text, victim::regrole::text,
           (SELECT min(c.oid)::regclass::text FROM start JOIN pg_class c ON c.oid = start.object WHERE c.relowner = victim)]
    FROM (
        SELECT code.class, code.object, o.owner, code.owner
        FROM code CROSS JOIN LATERAL (
            -- An array and a multirange have the owner of their elements, and a row type that of its table.
            SELECT typowner FROM pg_type t
            WHERE code.class = 'pg_type'::regclass AND oid = code.object AND strpos(code.types, typtype::text) > 0
              AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
              AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
            UNION ALL
            SELECT proowner FROM pg_proc WHERE code.class = 'pg_proc'::regclass AND oid = code.object
            UNION ALL
            SELECT oprowner FROM pg_operator WHERE code.class = 'pg_operator'::regclass AND oid = code.object
            UNION ALL
            SELECT opcowner FROM pg_opclass WHERE code.class = 'pg_opclass'::regclass AND oid = code.object
            UNION ALL
            SELECT collowner FROM pg_collation WHERE code.class = 'pg_collation'::regclass AND oid = code.object
            UNION ALL
            SELECT relowner FROM pg_class WHERE code.class = 'pg_class'::regclass AND oid = code.object AND relkind = 'v'
            UNION ALL
            SELECT part.relowner
            FROM pg_class part
            JOIN pg_inherits ON inhrelid = part.oid
            JOIN pg_class whole ON whole.oid = inhparent
            WHERE code.class = 'pg_class'::regclass AND code.is_whole AND part.oid = code.object
              AND NOT pg_has_role(part.relowner, whole.relowner, 'USAGE')
        ) o (owner)
        WHERE NOT pg_has_role(o.owner, code.owner, 'USAGE')
        ORDER BY code.class, code.object
        LIMIT 1
    ) stranger (class, object, owner, victim)";

/// Refuses tables below which a role has code that their owner does not trust, and expressions on them that call such code.
/// Called as the extension's owner. Errors: 42501.
pub fn check(tables: &[pg_sys::Oid], called: &[Object]) -> Result<()> {
    stranger(STARTS, &[tables.to_vec().into()], called)?.map_or(Ok(()), |stranger| Err(stranger.refusal()))
}

/// An object of a role that another one does not trust.
struct Stranger {
    object: String,
    owner: String,
    /// The role that its code would run as.
    victim: String,
    /// A table of that role.
    table: String,
}

impl Stranger {
    fn message(&self) -> String {
        let Stranger { object, owner, victim, table } = self;
        format!("{object} belongs to role \"{owner}\", and would run as role \"{victim}\", who owns \"{table}\"")
    }

    fn refusal(&self) -> ErrorReport {
        let Stranger { victim, table, .. } = self;
        error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            self.message(),
            // No statement: it would give the code the rights of the table's owner.
            format!(
                "decide whether its code may run as \"{victim}\": then make \"{victim}\" its owner; otherwise take it out of \"{table}\""
            ),
        )
    }
}

/// The first object of a stranger that the walk meets from where `starts` says.
fn stranger(starts: &'static str, arguments: &[DatumWithOid], called: &[Object]) -> Result<Option<Stranger>> {
    type Start = (pg_sys::Oid, Vec<pg_sys::Oid>, bool, String);
    let found = with_settings(|| {
        // The planner believes in a million rows, where there are ten.
        for path in ["seqscan", "hashjoin", "mergejoin"] {
            set_local(&format!("enable_{path}"), "off");
        }
        set_local("plan_cache_mode", "force_generic_plan");
        let starts: Vec<Start> = rows_now(starts, arguments, |row| {
            let owner = row.get(1)?.unwrap_or(pg_sys::InvalidOid);
            let whole = row.get(3)?.unwrap_or_default();
            Ok((owner, row.get(2)?.unwrap_or_default(), whole, row.get(4)?.unwrap_or_default()))
        })?;
        if starts.is_empty() {
            return Ok(None);
        }
        let each = starts.into_iter().flat_map(|(owner, relations, whole, types)| {
            relations.into_iter().map(move |relation| ((owner, relation), (whole, types.clone())))
        });
        let ((owners, relations), (whole, types)): ((Vec<_>, Vec<_>), (Vec<_>, Vec<_>)) = each.unzip();
        let (classes, objects): (Vec<_>, Vec<_>) = called.iter().copied().unzip();
        let arguments = [owners.into(), relations.into(), whole.into(), types.into(), classes.into(), objects.into()];
        one_now::<Vec<String>>(STRANGER, &arguments)
    })?;
    let Some(Ok([object, owner, victim, table])) = found.map(<[String; 4]>::try_from) else { return Ok(None) };
    Ok(Some(Stranger { object, owner, victim, table }))
}

/// Whether an owner trusts another one, who could act as it anyway.
pub fn trusts(owner: pg_sys::Oid, other: pg_sys::Oid) -> Result<bool> {
    one_now::<bool>("SELECT pg_has_role($1, $2, 'USAGE')", &[other.into(), owner.into()])
        .map(|trusts| trusts == Some(true))
}
