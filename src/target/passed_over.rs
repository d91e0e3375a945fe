//! What PostgreSQL does for a DELETE of the target's table, and not for one of the tables below it. Runs remove rows from those,
//! so they refuse a table that has any of it.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error};
use crate::postgres::now::rows_now;
use crate::target::Target;

/// Statement triggers, rules and forced row security of a table (`$1`) that has partitions or children: what it is, and the
/// statement that takes it off. Row triggers of a partitioned table are on its partitions, too; those of other parents fire for
/// their own rows only, whoever removes them. What fires for replicas only fires for no run.
const PASSED_OVER: &str = "
    SELECT format(what, name, c.oid::regclass), format(mend, c.oid::regclass, name), is_row_security
    FROM pg_class c
    CROSS JOIN LATERAL (
        SELECT 'statement trigger \"%s\" of \"%s\" would not fire', 'ALTER TABLE %s DISABLE TRIGGER %I', tgname, false
        FROM pg_trigger
        WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled IN ('O', 'A')
          AND tgtype & 9 = 8 -- TRIGGER_TYPE_DELETE, and not TRIGGER_TYPE_ROW
        UNION ALL
        SELECT 'rule \"%s\" of \"%s\" would not apply', 'ALTER TABLE %s DISABLE RULE %I', rulename, false
        FROM pg_rewrite WHERE ev_class = c.oid AND ev_type = '4' AND ev_enabled IN ('O', 'A')
        UNION ALL
        SELECT '%srow security of \"%s\", which is forced on its owner, would not apply', 'ALTER TABLE %s NO FORCE ROW LEVEL SECURITY',
               '', true
        FROM pg_roles r
        WHERE r.oid = c.relowner AND c.relrowsecurity AND c.relforcerowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
    ) passed_over (what, mend, name, is_row_security)
    WHERE c.oid = $1
      AND (c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid AND NOT inhdetachpending))
    ORDER BY is_row_security, what, name";

pub struct PassedOver {
    pub message: String,
    /// The statement that takes it off.
    pub hint: String,
    pub is_row_security: bool,
}

impl PassedOver {
    pub fn error(&self) -> ErrorReport {
        error(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, self.message.clone(), self.hint.clone())
    }
}

/// All of it that the target's table has.
pub fn passed_over(target: &Target) -> Result<Vec<PassedOver>> {
    extension::as_owner(|| {
        rows_now(PASSED_OVER, &[target.table.oid.into()], |row| {
            let (what, mend): (String, String) = (row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default());
            let is_row_security = row.get(3)?.unwrap_or_default();
            let instead =
                if is_row_security { "" } else { "; -- and create it on the tables below that are to have it" };
            let message = format!("{what}: rows are removed from the tables below it");
            Ok(PassedOver { message, hint: format!("{mend}{instead}"), is_row_security })
        })
    })
}
