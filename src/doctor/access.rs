use crate::extension;
use crate::grant::each_privilege;
use crate::obstacles::actions::actions;
use crate::obstacles::privileges;
use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::target::Target;
use crate::target::leaf::leaves;

const ROW_SECURITY: &str = "
    SELECT 'fail', format('row security of %1$s is forced on its owner, so that runs fail; decide, and type ALTER TABLE %1$s NO FORCE ROW LEVEL SECURITY',
                          used.oid::regclass), NULL
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

/// Owners can lose privileges on their own tables, also on those that foreign keys reach.
pub fn privileges(target: &Target) -> Result<Vec<Problem>> {
    let leaves: Vec<_> = leaves(target)?.iter().map(|leaf| leaf.table.oid).collect();
    let mut found = privileges::privileges(target, &leaves)?;
    found.extend(actions(target)?);
    Ok(found)
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

/// Whom a level is known by: who may write targets is an admin, who may stop runs an operator, who may read runs a monitor. A role has what
/// was granted to it; what it inherits counts for what its level lacks.
const LEVELS: &str = "
    WITH ours AS (
        SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'backlog_cleanup'
    ), object AS (
        SELECT classid, objid, 'ON ' || objid::regclass AS name, c.relowner AS owner, relname AS base, relnamespace AS schema
        FROM ours JOIN pg_class c ON classid = 'pg_class'::regclass AND objid = c.oid
        UNION ALL
        SELECT classid, objid, 'ON ROUTINE ' || objid::regprocedure, p.proowner, proname, pronamespace
        FROM ours JOIN pg_proc p ON classid = 'pg_proc'::regclass AND objid = p.oid
        WHERE proname NOT IN ('backlog_cleanup_fingerprint', 'backlog_cleanup_has_value')
        UNION ALL
        SELECT classid, objid, 'ON SCHEMA ' || objid::regnamespace, n.nspowner, nspname, n.oid
        FROM ours JOIN pg_namespace n ON classid = 'pg_namespace'::regclass AND objid = n.oid
    ), given AS (
        SELECT level.rank, privilege, object.*
        FROM ROWS FROM (unnest($1), unnest($2), unnest($3), unnest($4)) AS level (rank, privilege, schema, base)
        JOIN object ON object.base = level.base AND object.schema = to_regnamespace(level.schema)
    ), held AS (
        SELECT object.*, acl.grantee, acl.privilege_type AS privilege, '' AS columns
        FROM object CROSS JOIN LATERAL (
            SELECT relacl FROM pg_class WHERE classid = 'pg_class'::regclass AND oid = objid
            UNION ALL SELECT proacl FROM pg_proc WHERE classid = 'pg_proc'::regclass AND oid = objid
            UNION ALL SELECT nspacl FROM pg_namespace WHERE classid = 'pg_namespace'::regclass AND oid = objid
        ) granted (acls) CROSS JOIN LATERAL aclexplode(acls) acl
        UNION ALL
        SELECT object.*, acl.grantee, acl.privilege_type, format(' (%I)', a.attname)
        FROM object JOIN pg_attribute a ON classid = 'pg_class'::regclass AND a.attrelid = objid CROSS JOIN LATERAL aclexplode(a.attacl) acl
    ), role AS (
        SELECT r.oid, r.rolname,
               -- Default privileges gave all of it, and are no level.
               CASE WHEN EXISTS (SELECT FROM held
                                 WHERE grantee = r.oid AND (privilege = 'INSERT' AND base = 'run'
                                                            OR privilege = 'EXECUTE' AND base = 'backlog_cleanup_grant')) THEN 0
                    WHEN has_table_privilege(r.oid, 'backlog_cleanup.target', 'INSERT') THEN 3
                    WHEN (SELECT bool_or(has_function_privilege(r.oid, objid, 'EXECUTE')) FROM object WHERE base = 'backlog_cleanup_stop') THEN 2
                    WHEN has_table_privilege(r.oid, 'backlog_cleanup.run', 'SELECT') THEN 1 ELSE 0 END AS rank
        FROM pg_roles r WHERE r.oid IN (SELECT grantee FROM held WHERE grantee <> owner)
    ), level AS (
        SELECT *, (ARRAY['monitor', 'operator', 'admin'])[rank] AS name FROM role
    )
    SELECT CASE WHEN bool_or(privilege <> ALL (ARRAY['SELECT', 'EXECUTE', 'USAGE'])) THEN 'fail' ELSE 'warn' END,
           format('role \"%s\" has %s %s %s', level.rolname, coalesce('level ' || level.name || ', and besides', 'no level, but'),
                  string_agg(what.privilege, ', ' ORDER BY what.privilege),
                  regexp_replace(what.name, '^ON ROUTINE', 'ON')),
           format('REVOKE %s %s FROM %I', string_agg(what.privilege, ', ' ORDER BY what.privilege), what.name, level.rolname)
    FROM level JOIN (SELECT DISTINCT grantee, name, privilege AS bare, privilege || columns AS privilege, classid, objid FROM held WHERE grantee <> owner)
                    AS what (grantee, name, bare, privilege, classid, objid) ON what.grantee = level.oid
    WHERE NOT EXISTS (SELECT FROM given WHERE given.rank <= level.rank AND given.privilege = what.bare
                                          AND given.classid = what.classid AND given.objid = what.objid)
    GROUP BY level.rolname, level.name, what.name
    UNION ALL
    -- No fix gives rights away.
    SELECT 'warn',
           format('role \"%s\" has level %s, but not %s of what it gives, such as %s %s: if it is to have them, type '
                  'SELECT %s.backlog_cleanup_grant(%L, %L)', level.rolname, level.name, count(*), min(given.privilege),
                  min(regexp_replace(given.name, '^ON ROUTINE', 'ON')), e.extnamespace::regnamespace, level.rolname,
                  level.name), NULL
    FROM level JOIN given ON given.rank <= level.rank JOIN pg_extension e ON e.extname = 'backlog_cleanup'
    WHERE NOT CASE given.classid WHEN 'pg_class'::regclass THEN has_table_privilege(level.oid, given.objid, given.privilege)
                                 WHEN 'pg_proc'::regclass THEN has_function_privilege(level.oid, given.objid, given.privilege)
                                 ELSE has_schema_privilege(level.oid, given.objid, given.privilege) END
    GROUP BY level.rolname, level.name, e.extnamespace
    ORDER BY 2";

/// Finds privileges that no level gives, levels that are not whole, and functions that could be called instead of the extension's.
pub fn access(_target: &str) -> Result<Vec<Problem>> {
    let (mut ranks, mut privileges, mut schemas, mut names): (Vec<i32>, Vec<&str>, Vec<String>, Vec<String>) =
        Default::default();
    for (rank, privilege, schema, name) in each_privilege(&extension::schema()?) {
        ranks.push(rank);
        privileges.push(privilege);
        schemas.push(schema);
        names.push(name);
    }
    let mut found = problems(ACCESS, &[])?;
    found.extend(problems(LEVELS, &[ranks.into(), privileges.into(), schemas.into(), names.into()])?);
    Ok(found)
}
