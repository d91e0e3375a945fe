use pgrx::pg_sys;

use crate::obstacles::problem::{Problem, problems};
use crate::postgres::error::Result;
use crate::target::Target;

const PRIVILEGES: &str = "
    SELECT 'fail', format('owner \"%s\" of %s has no %s privilege on it', r.rolname, needs.oid::regclass, needs.privilege),
           format('GRANT %s ON %s TO %I', needs.privilege, needs.oid::regclass, r.rolname)
    FROM ROWS FROM (unnest($1), unnest($2)) AS needs (oid, privilege)
    JOIN pg_class c ON c.oid = needs.oid JOIN pg_roles r ON r.oid = c.relowner
    WHERE NOT has_table_privilege(r.oid, c.oid, needs.privilege)
    UNION
    SELECT 'fail', format('owner \"%s\" of %s has no USAGE privilege on schema %I, whose owner has to decide about it', r.rolname,
                          c.oid::regclass, c.relnamespace::regnamespace::name), NULL
    FROM unnest($1) AS needs (oid)
    JOIN pg_class c ON c.oid = needs.oid JOIN pg_roles r ON r.oid = c.relowner
    WHERE NOT has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
    ORDER BY 2";

/// Finds what the owners may not do on their own tables, in a run that removes rows from these leaves.
pub fn privileges(target: &Target, leaves: &[pg_sys::Oid]) -> Result<Vec<Problem>> {
    let mut needs: Vec<(pg_sys::Oid, &str)> =
        leaves.iter().flat_map(|leaf| [(*leaf, "SELECT"), (*leaf, "DELETE")]).collect();
    needs.extend(target.users.as_ref().map(|users| (users.table.oid, "SELECT")));
    needs.extend(target.recipes.as_ref().map(|recipes| (recipes.table.oid, "SELECT")));
    needs.extend(target.ledger.as_ref().map(|ledger| (ledger.table.oid, "INSERT")));
    let (oids, privileges): (Vec<_>, Vec<_>) = needs.into_iter().unzip();
    problems(PRIVILEGES, &[oids.into(), privileges.into()])
}
