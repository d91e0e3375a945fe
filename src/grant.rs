use backlog_cleanup_report::Level::{self, Admin, Monitor, Operator};
use backlog_cleanup_report::UnknownWord;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::extension::{self, is_of_this_version, schema};
use crate::postgres::error::{Result, error, required, spi};
use crate::postgres::read::{read_one, refuse_read_only};
use crate::schedule::pg_cron_is_here;

/// Each privilege with the lowest level that has it. Other objects are for the extension's owner alone;
/// `tests/regress/sql/levels.sql` lists them.
const PRIVILEGES: &[(Level, &str)] = &[
    (Monitor, "USAGE ON SCHEMA backlog_cleanup"),
    (Monitor, "SELECT ON backlog_cleanup.target"),
    (Monitor, "SELECT ON backlog_cleanup.policy"),
    (Monitor, "SELECT ON backlog_cleanup.run"),
    (Monitor, "SELECT ON backlog_cleanup.run_recipe"),
    (Monitor, "SELECT ON backlog_cleanup.run_failure"),
    (Monitor, "SELECT ON backlog_cleanup.run_policy"),
    (Monitor, "SELECT ON backlog_cleanup.run_status"),
    (Monitor, "SELECT ON backlog_cleanup.progress"),
    (Monitor, "SELECT ON backlog_cleanup.history"),
    // The view `history` calls it with the reader's privileges.
    (Monitor, "EXECUTE ON ROUTINE backlog_cleanup.failed_jobs"),
    (Monitor, "SELECT ON backlog_cleanup.total"),
    (Monitor, "SELECT ON backlog_cleanup.tick"),
    (Monitor, "EXECUTE ON ROUTINE backlog_cleanup.tick_jobs"),
    (Monitor, "EXECUTE ON ROUTINE backlog_cleanup.does_regular_run"),
    (Monitor, "SELECT ON backlog_cleanup.sample"),
    (Monitor, "SELECT ON backlog_cleanup.decision"),
    (Monitor, "SELECT ON backlog_cleanup.auto_schedule"),
    (Monitor, "SELECT ON backlog_cleanup.retention"),
    // The view `total` calls it with the reader's privileges.
    (Monitor, "EXECUTE ON ROUTINE backlog_cleanup.duration_bound"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_books"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_status"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_status_json"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_failures"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_doctor"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_run_details"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_index_sql"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_simulate"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_explain"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_explain_tick"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_quiet_hours"),
    (Monitor, "SELECT ON backlog_cleanup.alert_rule"),
    (Monitor, "SELECT ON backlog_cleanup.alert"),
    (Monitor, "SELECT ON backlog_cleanup.alert_channel"),
    (Monitor, "SELECT ON backlog_cleanup.alert_delivery"),
    (Monitor, "SELECT ON backlog_cleanup.activity"),
    (Monitor, "SELECT ON backlog_cleanup.pace"),
    (Monitor, "SELECT ON backlog_cleanup.size"),
    (Monitor, "SELECT ON backlog_cleanup.run_statistics"),
    (Monitor, "SELECT ON backlog_cleanup.ranking"),
    (Monitor, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_report"),
    (Operator, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_snooze"),
    (Operator, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_acknowledge"),
    // What a server that delivers alerts does.
    (Operator, "INSERT, UPDATE ON backlog_cleanup.alert_channel"),
    (Operator, "INSERT, UPDATE ON backlog_cleanup.alert_delivery"),
    (Operator, "EXECUTE ON ROUTINE backlog_cleanup.evaluate_alerts"),
    (Operator, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_failed_generations"),
    (Operator, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_emergency"),
    (Operator, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_run"),
    (Operator, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_stop"),
    (Operator, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_tick"),
    // The procedure calls these with its caller's privileges.
    (Operator, "EXECUTE ON ROUTINE backlog_cleanup.commit_and_wait"),
    (Operator, "EXECUTE ON ROUTINE backlog_cleanup.start_run"),
    (Operator, "EXECUTE ON ROUTINE backlog_cleanup.next_batch"),
    (Operator, "EXECUTE ON ROUTINE backlog_cleanup.finish_run"),
    (Admin, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_schedule"),
    (Admin, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_schedule_tick"),
    (Admin, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_unschedule"),
    (Admin, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_set_policy"),
    (Admin, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_drop_policy"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.tell_unmatched"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.lifted"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.check_limits"),
    (Admin, "INSERT, UPDATE, DELETE ON backlog_cleanup.target"),
    (Admin, "INSERT, UPDATE, DELETE ON backlog_cleanup.policy"),
    (Admin, "UPDATE ON backlog_cleanup.retention"),
    (Admin, "INSERT, UPDATE, DELETE ON backlog_cleanup.alert_rule"),
    (Admin, "DELETE ON backlog_cleanup.alert_channel"),
    // The triggers of `target` and `policy` call these with the writer's privileges.
    (Admin, "EXECUTE ON ROUTINE @extschema@.backlog_cleanup_check"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.check_written"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.check_limits_of_target"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.check_policies"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.written_names"),
    (Admin, "EXECUTE ON ROUTINE backlog_cleanup.restoring"),
];

/// Each privilege by itself: the number of the lowest level that has it, its name, the schema and the name of its object. `schema` is the
/// extension's, quoted.
pub fn each_privilege(schema: &str) -> Vec<(i32, &'static str, String, String)> {
    let parts = |(level, privilege): &(Level, &'static str)| {
        let (what, on) = privilege.split_once(" ON ").unwrap_or_default();
        let object = on.trim_start_matches("ROUTINE ").trim_start_matches("SCHEMA ").replace("@extschema@", schema);
        let (of_schema, name) = object.rsplit_once('.').unwrap_or((&object, &object));
        let (of_schema, name) = (of_schema.to_owned(), name.to_owned());
        what.split(", ").map(move |what| (*level as i32 + 1, what, of_schema.clone(), name.clone())).collect::<Vec<_>>()
    };
    PRIVILEGES.iter().flat_map(parts).collect()
}

/// Gives a role a level, in addition to those that it has. Also grants USAGE on the extension's schema, and to an admin on
/// pg_cron's, if the role lacks it. Errors: 22004, 22023 (unknown level), 42501 (the caller is not the extension's owner),
/// 42704 (unknown role).
#[pg_extern]
fn backlog_cleanup_grant(role_name: Option<&str>, level: Option<&str>) -> Result<()> {
    let role_name = required(role_name, "role_name", "SELECT backlog_cleanup_grant('role', 'monitor')")?;
    let level = required(level, "level", "SELECT backlog_cleanup_grant('role', 'monitor')")?;
    let level: Level = level.parse().map_err(|unknown: UnknownWord| {
        let hint = format!("SELECT backlog_cleanup_grant({}, 'monitor')", quote_literal(role_name));
        error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, unknown.to_string(), hint)
    })?;
    let schema = schema()?;
    let mut schemas = vec![schema.clone()];
    if level >= Admin && pg_cron_is_here()? {
        schemas.push("cron".into());
    }
    as_owner(role_name, |role| {
        for (_, privilege) in PRIVILEGES.iter().filter(|(lowest, _)| *lowest <= level) {
            if let Some(privilege) = existing(privilege, &schema)? {
                run(&format!("GRANT {privilege} TO {role}"))?;
            }
        }
        for schema in &schemas {
            let has = "SELECT has_schema_privilege($1::name, to_regnamespace($2)::oid, 'USAGE')";
            if read_one::<bool>(has, &[role_name.into(), schema.as_str().into()])? != Some(true) {
                run(&format!("GRANT USAGE ON SCHEMA {schema} TO {role}"))?;
            }
        }
        Ok(())
    })
}

/// Revokes all levels from a role. USAGE on the extension's schema and on pg_cron's stays, since the role may need it for
/// something else; a NOTICE gives the statements that revoke it. Errors: 22004, 42501 (the caller is not the extension's
/// owner), 42704 (unknown role).
#[pg_extern]
fn backlog_cleanup_revoke(role_name: Option<&str>) -> Result<()> {
    let role_name = required(role_name, "role_name", "SELECT backlog_cleanup_revoke('role')")?;
    let schema = schema()?;
    as_owner(role_name, |role| {
        for (_, privilege) in PRIVILEGES {
            if let Some(privilege) = existing(privilege, &schema)? {
                run(&format!("REVOKE {privilege} FROM {role}"))?;
            }
        }
        const LEFT: &str = "
            SELECT string_agg(format('REVOKE USAGE ON SCHEMA %s FROM %s', n.oid::regnamespace, $2::regrole), '; ')
            FROM pg_namespace n, aclexplode(n.nspacl) held
            WHERE n.oid IN (to_regnamespace($1), to_regnamespace('cron'))
              AND held.grantee = $2::regrole AND held.privilege_type = 'USAGE'";
        if let Some(take) = read_one::<String>(LEFT, &[schema.as_str().into(), role.into()])? {
            let message = format!("role \"{role_name}\" keeps USAGE on schemas, in case something else needs it");
            ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "backlog_cleanup")
                .set_hint(take)
                .report(PgLogLevel::NOTICE);
        }
        Ok(())
    })
}

/// Does `work` as the extension's owner, with the role's quoted name. Refuses a caller that is neither the owner nor a
/// superuser, and a role that does not exist.
fn as_owner(role_name: &str, work: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    refuse_read_only("change privileges")?;
    let owner = read_one::<String>(
        "SELECT pg_catalog.pg_get_userbyid(extowner)::pg_catalog.text FROM pg_catalog.pg_extension
         WHERE extname OPERATOR(pg_catalog.=) 'backlog_cleanup'
           AND NOT pg_catalog.pg_has_role(extowner, 'USAGE')",
        &[],
    )?;
    if let Some(owner) = owner {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "must be owner of extension \"backlog_cleanup\"".into(),
            format!("SET ROLE {}", quote_identifier(owner)),
        ));
    }
    extension::as_owner(|| {
        let role = "SELECT rolname::text FROM pg_roles WHERE rolname::text = $1";
        if read_one::<String>(role, &[role_name.into()])?.is_none() {
            // No role can have such a name.
            let is_reserved = ["", "public", "none"].contains(&role_name) || role_name.starts_with("pg_");
            let hint = match is_reserved {
                true => "SELECT rolname FROM pg_roles".into(),
                false => format!("CREATE ROLE {}", quote_identifier(role_name)),
            };
            let message = format!("role \"{role_name}\" does not exist");
            return Err(error(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message, hint));
        }
        work(&quote_identifier(role_name))
    })
}

/// Qualifies the names in a privilege. A routine also gets its arguments, since other routines may have its name. Returns
/// `None` if the object does not exist and the database has an earlier version of the extension than this library, as until ALTER
/// EXTENSION UPDATE. Errors: 42704 (it does not exist in this version).
fn existing(privilege: &str, schema: &str) -> Result<Option<String>> {
    const ROUTINE: &str = "
        SELECT p.oid::regprocedure::text
        FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup')
          AND p.pronamespace = to_regnamespace($1) AND p.proname = $2";
    let (what, name) = privilege.rsplit_once(' ').unwrap_or_default();
    let name = name.replace("@extschema@", schema);
    let found = match (what.rsplit(' ').next(), name.rsplit_once('.')) {
        (Some("ROUTINE"), Some((schema, routine))) => read_one::<String>(ROUTINE, &[schema.into(), routine.into()])?,
        (Some("SCHEMA"), _) => read_one::<String>("SELECT to_regnamespace($1)::text", &[name.as_str().into()])?,
        _ => read_one::<String>("SELECT to_regclass($1)::text", &[name.as_str().into()])?,
    };
    if found.is_none() && is_of_this_version().is_ok() {
        return Err(error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("\"{name}\" of extension \"backlog_cleanup\" does not exist"),
            "DROP EXTENSION backlog_cleanup; CREATE EXTENSION backlog_cleanup".into(),
        ));
    }
    Ok(found.map(|name| format!("{what} {name}")))
}

fn run(statement: &str) -> Result<()> {
    Spi::run(statement).map_err(spi)
}
