use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::table::Table;

/// A function of the extension that statements on a table call as its owner: its name, and the types of its arguments.
#[derive(Clone, Copy)]
pub struct Own(pub &'static str, pub &'static str);

pub const FINGERPRINT: Own = Own("backlog_cleanup_fingerprint", "text");
pub const HAS_VALUE: Own = Own("backlog_cleanup_has_value", "text, anyelement");

impl Own {
    /// Its name, qualified and quoted, and its oid, or `None` if the owner of the table may not call it.
    pub fn callable_by_owner_of(self, table: &Table) -> Result<Option<(String, pg_sys::Oid)>> {
        const FUNCTION: &str = "
            SELECT format('%I.%I', n.nspname, p.proname), p.oid
            FROM pg_extension e
            JOIN pg_namespace n ON n.oid = e.extnamespace
            JOIN pg_proc p ON p.oid = to_regprocedure(format('%I.%I(%s)', n.nspname, $2, $3))
            WHERE e.extname = 'backlog_cleanup'
              AND has_schema_privilege($1, n.oid, 'USAGE') AND has_function_privilege($1, p.oid, 'EXECUTE')";
        let found = rows_now(FUNCTION, &[table.owner.into(), self.0.into(), self.1.into()], |row| {
            Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or(pg_sys::InvalidOid)))
        })?;
        Ok(found.into_iter().next())
    }

    /// The statement that lets the owner of the table call it.
    pub fn grant_to_owner_of(self, table: &Table) -> Result<String> {
        const GRANT: &str = "
            SELECT CASE WHEN has_schema_privilege($1, n.oid, 'USAGE')
                        THEN format('GRANT EXECUTE ON FUNCTION %I.%I(%s) TO %I', n.nspname, $2, $3, pg_get_userbyid($1))
                        ELSE format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, pg_get_userbyid($1)) END
            FROM pg_extension e
            JOIN pg_namespace n ON n.oid = e.extnamespace
            WHERE e.extname = 'backlog_cleanup'";
        Ok(one_now::<String>(GRANT, &[table.owner.into(), self.0.into(), self.1.into()])?.unwrap_or_default())
    }
}
