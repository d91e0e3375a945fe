use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_keys;
use crate::postgres::error::Result;
use crate::target::Target;

/// What a foreign key needs when a row goes that it may reference: its columns are read, and by its action its rows are removed, updated or
/// locked, which an UPDATE privilege on any column allows.
const LACKING: &str = "
    SELECT 'fail', format('foreign key %I of %s acts as owner \"%s\" of it, which has no %s privilege on it: no row goes that it could reference',
                          conname, conrelid::regclass, rolname, string_agg(privilege, ' and no ' ORDER BY privilege)),
           format('GRANT %s ON %s TO %I', string_agg(privilege, ', ' ORDER BY privilege), conrelid::regclass, rolname)
    FROM key CROSS JOIN LATERAL (
        SELECT 'SELECT'
        WHERE EXISTS (SELECT FROM unnest(conkey) AS place WHERE NOT has_column_privilege(owner, conrelid, place, 'SELECT'))
        UNION ALL
        SELECT 'DELETE' WHERE confdeltype = 'c' AND NOT has_table_privilege(owner, conrelid, 'DELETE')
        UNION ALL
        SELECT 'UPDATE'
        WHERE CASE WHEN confdeltype IN ('n', 'd')
                   THEN EXISTS (SELECT FROM unnest(coalesce(confdelsetcols, conkey)) AS place
                                WHERE NOT has_column_privilege(owner, conrelid, place, 'UPDATE'))
                   ELSE confdeltype <> 'c' AND NOT has_any_column_privilege(owner, conrelid, 'UPDATE') END
    ) lacking (privilege)
    GROUP BY oid, conname, conrelid, rolname
    UNION ALL
    -- Whether another row has the key by then.
    SELECT 'fail', format('foreign key %I of %s looks at %s as owner \"%s\" of it, which has no UPDATE privilege on it to lock a row: no row goes that it could reference',
                          conname, conrelid::regclass, confrelid::regclass, r.rolname),
           format('GRANT UPDATE ON %s TO %I', confrelid::regclass, r.rolname)
    FROM key JOIN pg_class c ON c.oid = confrelid JOIN pg_roles r ON r.oid = c.relowner
    WHERE confdeltype IN ('a', 'd') AND NOT has_any_column_privilege(r.oid, c.oid, 'UPDATE')
    UNION ALL
    SELECT 'fail', format('foreign key %I of %s acts as owner \"%s\" of it, which has no USAGE privilege on schema %I, whose owner has to decide '
                          'about it: no row goes that it could reference', conname, conrelid::regclass, rolname, relnamespace::regnamespace::name),
           NULL
    FROM key WHERE NOT has_schema_privilege(owner, relnamespace, 'USAGE')
    ORDER BY 2";

/// Finds foreign keys that refuse each removal, since PostgreSQL looks at their rows, and changes them, as the owner of their own table.
pub fn actions(target: &Target) -> Result<Vec<Problem>> {
    problems(&on_keys(LACKING), &[vec![target.table.oid].into()])
}
