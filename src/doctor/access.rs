use crate::obstacles::privileges;
use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::target::Target;
use crate::target::leaf::leaves;

const ROW_SECURITY: &str = "
    SELECT 'fail', format('row security of %s is forced on its owner, so that runs fail', used.oid::regclass),
           format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', used.oid::regclass)
    FROM used JOIN pg_class c ON c.oid = used.oid JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.relrowsecurity AND c.relforcerowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
    ORDER BY 2";

pub fn row_security(target: &Target) -> Result<Vec<Problem>> {
    problems(&on_tables(ROW_SECURITY), &[target.tables().into()])
}

const OWNER: &str = "
    SELECT 'warn',
           format('%s is owned by superuser \"%s\", so its triggers run with superuser privileges; %s', used.oid::regclass,
                  r.rolname, CASE WHEN is_shipped THEN 'it is a part of PostgreSQL or of an extension, and must stay so'
                                  ELSE 'decide which ordinary role is to own it' END),
           NULL
    FROM used JOIN pg_class c ON c.oid = used.oid JOIN pg_roles r ON r.oid = c.relowner
    CROSS JOIN LATERAL (
        SELECT c.oid < 16384 -- FirstNormalObjectId
            OR EXISTS (SELECT FROM pg_depend
                       WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    ) made (is_shipped)
    WHERE r.rolsuper
    ORDER BY 2";

/// Whether a superuser's triggers run. A table of a catalog or an extension says, for others, what superusers do: a new owner
/// of `cron.job` could write a job of a superuser.
pub fn owner(target: &Target) -> Result<Vec<Problem>> {
    problems(&on_tables(OWNER), &[target.tables().into()])
}

/// Owners can lose privileges on their own tables.
pub fn privileges(target: &Target) -> Result<Vec<Problem>> {
    let leaves: Vec<_> = leaves(target)?.iter().map(|leaf| leaf.table.oid).collect();
    privileges::privileges(target, &leaves)
}

const ACCESS: &str = "
    WITH ours AS (
        SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'backlog_cleanup'
    )
    SELECT 'fail', format('PUBLIC may execute %s', p.oid::regprocedure),
           format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', p.oid::regprocedure)
    FROM pg_proc p JOIN ours ON classid = 'pg_proc'::regclass AND objid = p.oid,
         aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) acl
    WHERE acl.grantee = 0 AND p.proname NOT IN ('backlog_cleanup_fingerprint', 'backlog_cleanup_has_value')
    UNION ALL
    SELECT 'fail', format('PUBLIC has %s on %s', acl.privilege_type, c.oid::regclass),
           format('REVOKE ALL ON %s FROM PUBLIC', c.oid::regclass)
    FROM pg_class c JOIN ours ON classid = 'pg_class'::regclass AND objid = c.oid, aclexplode(c.relacl) acl
    WHERE acl.grantee = 0
    UNION ALL
    -- No level has these: a trigger, say, would run as whoever writes the table.
    SELECT 'fail', format('role \"%s\" has %s on %s', r.rolname, acl.privilege_type, c.oid::regclass),
           format('REVOKE %s ON %s FROM %I', acl.privilege_type, c.oid::regclass, r.rolname)
    FROM pg_class c JOIN ours ON classid = 'pg_class'::regclass AND objid = c.oid, aclexplode(c.relacl) acl
    JOIN pg_roles r ON r.oid = acl.grantee
    WHERE acl.grantee <> c.relowner AND acl.privilege_type IN ('TRIGGER', 'REFERENCES', 'TRUNCATE')
    UNION ALL
    SELECT 'warn', format('role \"%s\" has no level, and may execute %s', r.rolname, p.oid::regprocedure),
           format('REVOKE ALL ON ROUTINE %s FROM %I', p.oid::regprocedure, r.rolname)
    FROM pg_proc p JOIN ours ON classid = 'pg_proc'::regclass AND objid = p.oid, aclexplode(p.proacl) acl
    JOIN pg_roles r ON r.oid = acl.grantee
    WHERE acl.grantee <> p.proowner AND p.proname NOT IN ('backlog_cleanup_fingerprint', 'backlog_cleanup_has_value')
      AND NOT has_table_privilege(r.oid, 'backlog_cleanup.run', 'SELECT')
    UNION ALL
    SELECT 'fail', format('function %s could be called instead of the extension''s', p.oid::regprocedure),
           format('DROP ROUTINE %s', p.oid::regprocedure)
    FROM pg_extension e JOIN pg_proc p ON p.pronamespace = e.extnamespace
    WHERE e.extname = 'backlog_cleanup'
      AND p.proname IN (SELECT proname FROM pg_proc JOIN ours ON classid = 'pg_proc'::regclass AND objid = pg_proc.oid)
      AND NOT EXISTS (SELECT FROM ours WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
    UNION ALL
    SELECT 'warn', format('PUBLIC may create functions in schema %I, which could be called instead of the extension''s',
                          n.nspname),
           format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', n.nspname)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace, aclexplode(n.nspacl) acl
    WHERE e.extname = 'backlog_cleanup' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE'
    UNION ALL
    SELECT 'warn', format('role \"%s\" may create functions in schema %I, which could be called instead of the extension''s', r.rolname,
                          n.nspname),
           format('REVOKE CREATE ON SCHEMA %I FROM %I', n.nspname, r.rolname)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace, aclexplode(n.nspacl) acl JOIN pg_roles r ON r.oid = acl.grantee
    WHERE e.extname = 'backlog_cleanup' AND acl.privilege_type = 'CREATE' AND r.oid <> n.nspowner
      AND NOT pg_has_role(r.oid, e.extowner, 'USAGE')
    UNION ALL
    -- A person decides: the schema has other objects.
    SELECT 'warn', format('role \"%s\" owns schema %I, and could put functions there in the place of the extension''s', r.rolname, n.nspname),
           NULL
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    JOIN pg_database d ON d.datname = current_database()
    JOIN pg_roles r ON r.oid = CASE WHEN n.nspowner = 'pg_database_owner'::regrole THEN d.datdba ELSE n.nspowner END
    WHERE e.extname = 'backlog_cleanup' AND NOT pg_has_role(r.oid, e.extowner, 'USAGE')
    ORDER BY 2";

/// Finds privileges that no level gives, and functions that could be called instead of the extension's.
pub fn access(_target: &str) -> Result<Vec<Problem>> {
    problems(ACCESS, &[])
}
