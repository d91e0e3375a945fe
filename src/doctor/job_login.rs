use crate::doctor::job::of_job;
use crate::obstacles::problem::Problem;
use crate::postgres::error::Result;

/// Without background workers pg_cron logs in over libpq, as the job's role and without a password. `pg_hba.conf` decides by its
/// first line that fits the client's address, which is 127.0.0.1 for all of 127.0.0.0/8; `localhost` has two, and a name of another
/// host is not looked up. A role whose jobs have succeeded gets in.
const LOGIN: &str = "
    WITH login AS (
        SELECT j.username, j.database, host, host = '' OR host LIKE '/%' AS is_local,
               CASE WHEN host = 'localhost' THEN ARRAY['127.0.0.1', '::1']::inet[]
                    WHEN host ~ '^127[.]' THEN ARRAY['127.0.0.1']::inet[]
                    WHEN host ~ '^[0-9.]+$|:' THEN ARRAY[host]::inet[]
                    WHEN host = '' OR host LIKE '/%' THEN ARRAY[NULL]::inet[] END AS addresses
        FROM cron.job j, current_setting('cron.host', true) AS host
        WHERE j.jobid = $1 AND current_setting('cron.use_background_workers', true) = 'off'
          AND NOT EXISTS (SELECT FROM cron.job_run_details d WHERE d.username = j.username AND d.status = 'succeeded')
    ), rule AS (
        SELECT ordinality, type, database, user_name, auth_method, address AS name,
               CASE WHEN netmask IS NOT NULL THEN address::inet END AS address, netmask::inet
        FROM pg_hba_file_rules() WITH ORDINALITY WHERE error IS NULL
    )
    SELECT 'fail',
           format('pg_cron logs in as role \"%s\" at %s for job %s, without a password, and %s', username,
                  CASE WHEN is_local THEN 'the server''s socket' ELSE host END, $1,
                  CASE WHEN NOT is_local AND current_setting('listen_addresses') = '' THEN 'the server does not listen there'
                       WHEN methods[1] IS NULL THEN 'no line of pg_hba.conf lets it in'
                       WHEN methods[1] = 'reject' THEN 'pg_hba.conf rejects it'
                       ELSE format('pg_hba.conf wants one (%s), which only a .pgpass of the server''s user could have', methods[1]) END),
           'ALTER SYSTEM SET cron.use_background_workers = on; -- and restart the server'
    FROM login, LATERAL (
        SELECT array_agg(auth_method)
        FROM unnest(addresses) AS here LEFT JOIN LATERAL (
            SELECT auth_method FROM rule
            WHERE CASE WHEN is_local THEN type = 'local'
                       WHEN current_setting('ssl')::boolean THEN type IN ('host', 'hostssl', 'hostnossl')
                       ELSE type IN ('host', 'hostnossl') END
              AND (database && ARRAY['all', login.database] OR 'sameuser' = ANY (database) AND login.database = username)
              AND (user_name && ARRAY['all', username]
                   OR EXISTS (SELECT FROM pg_roles member JOIN pg_roles role
                              ON member.oid = role.oid OR NOT member.rolsuper AND pg_has_role(member.oid, role.oid, 'MEMBER')
                              WHERE member.rolname = username AND '+' || role.rolname = ANY (user_name)))
              AND (is_local OR name IN ('all', 'samehost', 'samenet', 'localhost')
                   OR CASE WHEN family(address) = family(here) THEN here & netmask = address & netmask END)
            ORDER BY ordinality LIMIT 1) first ON true) of_addresses (methods)
    WHERE addresses IS NOT NULL
      AND (NOT is_local AND current_setting('listen_addresses') = ''
           OR NOT EXISTS (SELECT FROM unnest(methods) AS method
                          WHERE method NOT IN ('reject', 'password', 'md5', 'scram-sha-256', 'ldap', 'pam', 'bsd', 'radius')))";

/// Foretells that the job cannot connect, before its first night.
pub fn login(target: &str) -> Result<Vec<Problem>> {
    of_job(target, LOGIN)
}
