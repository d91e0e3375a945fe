use std::sync::LazyLock;

use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::table::Table;

/// A function of the extension that statements on a table call as its owner: its name, and the types of its arguments.
#[derive(Clone, Copy)]
pub struct Own(pub &'static str, pub &'static str);

pub const FINGERPRINT: Own = Own("backlog_cleanup_fingerprint", "text");
pub const HAS_VALUE: Own = Own("backlog_cleanup_has_value", "text, \"any\"");

impl Own {
    /// Its name, qualified and quoted, and its oid, or `None` if the owner of the table, or of a partition or child of it, may not call it.
    pub fn callable_by_owners_of(self, table: &Table) -> Result<Option<(String, pg_sys::Oid)>> {
        static FUNCTION: LazyLock<String> = LazyLock::new(|| {
            of_owners(
                "SELECT format('%I.%I', n.nspname, p.proname), p.oid FROM function p, namespace n
                 WHERE NOT EXISTS (SELECT FROM owner WHERE NOT may_call)",
            )
        });
        let found = rows_now(&FUNCTION, &[table.oid.into(), self.0.into(), self.1.into()], |row| {
            Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or(pg_sys::InvalidOid)))
        })?;
        Ok(found.into_iter().next())
    }

    /// The statement that lets one of these owners call it who may not.
    pub fn grant_to_owner_of(self, table: &Table) -> Result<String> {
        static GRANT: LazyLock<String> = LazyLock::new(|| {
            of_owners(
                "SELECT CASE WHEN may_use THEN format('GRANT EXECUTE ON FUNCTION %I.%I(%s) TO %I', n.nspname, $2, $3, rolname)
                             ELSE format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, rolname) END
                 FROM namespace n, owner WHERE NOT may_call ORDER BY rolname LIMIT 1",
            )
        });
        Ok(one_now::<String>(&GRANT, &[table.oid.into(), self.0.into(), self.1.into()])?.unwrap_or_default())
    }
}

/// A statement on the owners of a table (`$1`) and of what is below it, and on a function of the extension (`$2` and its arguments `$3`).
fn of_owners(statement: &str) -> String {
    format!(
        "WITH RECURSIVE part (oid) AS (
             SELECT $1
             UNION
             SELECT i.inhrelid FROM pg_inherits i JOIN part p ON i.inhparent = p.oid
         ), namespace AS (
             SELECT n.oid, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'backlog_cleanup'
         ), function AS (
             SELECT p.oid, p.proname
             FROM namespace n JOIN pg_proc p ON p.oid = to_regprocedure(format('%I.%I(%s)', n.nspname, $2, $3))
         ), owner AS (
             SELECT rolname, may_use, may_use AND has_function_privilege(r.oid, f.oid, 'EXECUTE') AS may_call
             FROM namespace n CROSS JOIN function f CROSS JOIN pg_roles r CROSS JOIN LATERAL has_schema_privilege(r.oid, n.oid, 'USAGE') may_use
             WHERE r.oid IN (SELECT c.relowner FROM part p JOIN pg_class c ON c.oid = p.oid)
         )
         {statement}"
    )
}
