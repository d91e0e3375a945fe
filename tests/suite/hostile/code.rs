//! Code of hostile roles, and where it hangs. Each function says as whom it runs.

use crate::random::Random;

/// What code tries; `@` is its role.
const MOVES: [&str; 62] = [
    // Cursors.
    "OPEN c FOR EXECUTE 'SELECT @.payload() FROM generate_series(1, 3)'",
    "CLOSE c; OPEN c FOR EXECUTE 'SELECT @.payload()'",
    "OPEN u FOR SELECT @.payload() FROM generate_series(1, 3); FETCH u INTO r",
    "c := 'held'; CLOSE c; OPEN c FOR SELECT @.payload() FROM generate_series(1, 3)",
    "c := 'left'; OPEN c FOR SELECT @.payload() FROM generate_series(1, 3)",
    "FETCH c INTO r",
    "MOVE c",
    "FOR r IN SELECT name FROM pg_catalog.pg_cursors LOOP c := r.name; MOVE c; END LOOP",
    "FOR r IN SELECT name FROM pg_catalog.pg_cursors LOOP c := r.name; CLOSE c; END LOOP",
    "c := ''; CLOSE c",
    "EXECUTE 'FETCH ALL FROM mine'",
    "EXECUTE 'CLOSE ALL'",
    "EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT @.payload()'",
    "EXECUTE 'DECLARE mine CURSOR FOR SELECT @.payload()'",
    // Roles and settings.
    "SET ROLE postgres; PERFORM @.payload()",
    "SET LOCAL ROLE boss; PERFORM @.payload()",
    "RESET ROLE; PERFORM @.payload()",
    "SET SESSION AUTHORIZATION postgres; PERFORM @.payload()",
    "RESET SESSION AUTHORIZATION; PERFORM @.payload()",
    "PERFORM pg_catalog.set_config('role', 'victim', false), @.payload()",
    "PERFORM pg_catalog.set_config('search_path', '@, pg_catalog', false)",
    "PERFORM pg_catalog.set_config('search_path', 'pg_temp, @', true)",
    "PERFORM pg_catalog.set_config('hostile.mark', 'left', false)",
    "SET row_security = on; SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'",
    "SET session_replication_role = replica",
    "SET LOCAL transaction_read_only = on",
    "SET default_transaction_read_only = on; SET default_transaction_isolation = 'serializable'",
    "SET lock_timeout = 1; SET client_min_messages = error; SET check_function_bodies = off",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET CONSTRAINTS ALL DEFERRED; INSERT INTO app.later VALUES (1)",
    "INSERT INTO app.later VALUES (1)",
    "PERFORM @.payload()",
    "ALTER ROLE @ SUPERUSER",
    "GRANT victim TO @",
    "CREATE ROLE planted SUPERUSER",
    "EXECUTE 'COPY (SELECT 1) TO PROGRAM ''true'''",
    // What stays in a session.
    "PERFORM pg_catalog.pg_advisory_lock(8)",
    "PERFORM pg_catalog.pg_advisory_unlock_all()",
    "PERFORM pg_catalog.pg_advisory_unlock(7)",
    "PERFORM pg_catalog.pg_advisory_xact_lock(9)",
    "PERFORM pg_catalog.lo_open(7, 262144)",
    "PERFORM pg_catalog.loread(0, 9), pg_catalog.lo_close(0)",
    "PERFORM pg_catalog.lo_put(8, 0, 'x')",
    "LISTEN planted",
    "UNLISTEN *",
    "PREPARE planted AS SELECT @.payload()",
    "EXECUTE 'DEALLOCATE ALL'",
    "CREATE TEMP TABLE audit_log (x integer)",
    "CREATE OR REPLACE FUNCTION pg_temp.helper(integer) RETURNS integer LANGUAGE sql AS 'SELECT @.payload()'",
    "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (@.payload() = 1)",
    "CREATE VIEW pg_temp.audit_log AS SELECT @.payload() AS x",
    "INSERT INTO audit_log VALUES (1)",
    "INSERT INTO pg_temp.audit_log VALUES (1)",
    // The ground.
    "UPDATE public.generations SET status = 'pending' WHERE id % 11 = 4 AND status::text = 'failed'",
    "DELETE FROM public.generations WHERE recipe_id::text = '99'",
    "UPDATE app.leaf2 SET failure_reason = 'x' WHERE recipe_id::text = '99'",
    "ALTER TABLE app.leaf2 NO INHERIT public.generations",
    "ALTER TABLE app.leaf2 ALTER recipe_id TYPE text",
    "CREATE INDEX ON app.leaf2 (prompt)",
    // The extension.
    "PERFORM public.backlog_cleanup_emergency('generations')",
    "UPDATE backlog_cleanup.policy SET keep = 0; DELETE FROM backlog_cleanup.run",
    "PERFORM backlog_cleanup.next_batch(1), backlog_cleanup.finish_run(1)",
];

/// The beginning of a PL/pgSQL function's body.
pub fn body(random: &mut Random, role: &str) -> String {
    let mut body =
        format!("DECLARE c refcursor := 'mine'; u refcursor; r record; BEGIN PERFORM public.witness('{role}');\n");
    for _ in 0..1 + random.below(3) {
        let attempt = random.pick(&MOVES).replace('@', role);
        body += &match random.below(4) {
            0 => format!("{attempt};\n"),
            _ => format!("BEGIN {attempt}; EXCEPTION WHEN OTHERS THEN NULL; END;\n"),
        };
    }
    body
}

pub fn trigger(random: &mut Random, role: &str, table: &str) -> String {
    let number = random.below(1_000_000);
    let (kind, when) = *random.pick(&[
        ("TRIGGER", "BEFORE DELETE ON @ FOR EACH ROW"),
        ("TRIGGER", "BEFORE DELETE ON @ FOR EACH ROW"),
        ("TRIGGER", "AFTER DELETE ON @ FOR EACH ROW"),
        ("TRIGGER", "BEFORE DELETE ON @ FOR EACH STATEMENT"),
        ("TRIGGER", "AFTER DELETE ON @ FOR EACH STATEMENT"),
        ("CONSTRAINT TRIGGER", "AFTER DELETE ON @ DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"),
        ("CONSTRAINT TRIGGER", "AFTER DELETE ON @ DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW"),
    ]);
    let when = when.replace('@', table);
    if random.below(12) == 0 {
        return format!(
            "CREATE FUNCTION {role}.code_{number}() RETURNS trigger LANGUAGE plperl AS
             $code$ spi_query(q{{SELECT {role}.payload() FROM generate_series(1, 3)}}); return; $code$;
             CREATE {kind} code_{number} {when} EXECUTE FUNCTION {role}.code_{number}()"
        );
    }
    let settings = *random.pick(&["", "", "SET search_path = @", "SET hostile.mark = 'set'", "SECURITY DEFINER"]);
    let settings = settings.replace('@', role);
    let end = *random.pick(&["RETURN OLD", "RETURN OLD", "RETURN OLD", "RETURN NULL", "RAISE 'no'"]);
    let body = body(random, role);
    format!(
        "CREATE FUNCTION {role}.code_{number}() RETURNS trigger LANGUAGE plpgsql {settings} AS $code$
         {body} {end}; END $code$;
         CREATE {kind} code_{number} {when} EXECUTE FUNCTION {role}.code_{number}()"
    )
}

/// Code of `app` where a run meets it.
pub fn hung_on_a_table(random: &mut Random) -> String {
    let table =
        *random.pick(&["public.generations", "public.generations", "app.leaf1", "app.leaf2", "app.job", "app.job_0"]);
    if random.below(3) < 2 {
        return trigger(random, "app", table);
    }
    let number = random.below(1_000_000);
    let check = format!("app.check_{number}");
    let volatility = *random.pick(&["", "IMMUTABLE"]);
    let hook = random
        .pick(&[
            "CREATE OR REPLACE VIEW app.recipes AS SELECT id, name FROM public.recipes WHERE @check(name)",
            "CREATE OR REPLACE VIEW app.users AS SELECT id FROM public.users WHERE @check(id)",
            "CREATE OR REPLACE FUNCTION app.throttle() RETURNS text LANGUAGE sql AS
             'SELECT CASE WHEN @check(''x'') THEN NULL END'",
            "ALTER DOMAIN app.st ADD CHECK (@check(VALUE)) NOT VALID",
            "CREATE INDEX ON @table (@check(status::text))",
            "CREATE INDEX ON @table (user_id) WHERE @check(status::text)",
            "CREATE POLICY code_@number ON @table USING (@check(user_id)); ALTER TABLE @table ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY code_@number ON @table USING (@check(user_id)); ALTER TABLE @table ENABLE ROW LEVEL SECURITY;
             ALTER TABLE @table FORCE ROW LEVEL SECURITY",
            "CREATE RULE code_@number AS ON DELETE TO @table DO ALSO SELECT @check(OLD.user_id)",
            "CREATE RULE code_@number AS ON DELETE TO @table DO INSTEAD SELECT @check(OLD.user_id)",
            "CREATE FUNCTION app.cast_@number(app.mood) RETURNS text LANGUAGE sql AS
             'SELECT CASE WHEN @check(''x'') THEN ''failed'' END';
             CREATE CAST (app.mood AS text) WITH FUNCTION app.cast_@number(app.mood) AS IMPLICIT",
            "CREATE FUNCTION app.cast_@number(app.mood) RETURNS varchar LANGUAGE sql AS
             'SELECT CASE WHEN @check(''x'') THEN ''failed'' END';
             CREATE CAST (app.mood AS varchar) WITH FUNCTION app.cast_@number(app.mood) AS ASSIGNMENT",
            "ALTER TABLE @table ADD CHECK (@check(user_id)) NOT VALID",
            "CREATE STATISTICS app.code_@number ON (@check(user_id)), user_id FROM @table; ANALYZE @table",
        ])
        .replace("@check", &check)
        .replace("@number", &number.to_string())
        .replace("@table", table);
    let body = body(random, "app");
    format!(
        "CREATE FUNCTION {check}(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql {volatility} AS $code$
         {body} RETURN true; END $code$;
         {hook}"
    )
}

/// A namesake of something in `pg_catalog`, for search paths in which it comes first.
pub fn captured(random: &mut Random, role: &str) -> String {
    let schema = *random.pick(&[role, role, "pg_temp"]);
    let operator = *random.pick(&["=", "<", ">", "<>", "||", "-"]);
    let sql_type = *random.pick(&["text", "name", "integer", "bigint", "timestamptz", "oid"]);
    let (name, arguments, result) = *random.pick(&[
        ("now", "", "timestamptz"),
        ("to_regclass", "text", "regclass"),
        ("count", "integer", "bigint"),
        ("format", "text, text", "text"),
        ("unnest", "text[]", "text"),
        ("lower", "text", "text"),
        ("to_jsonb", "text", "jsonb"),
        ("hashtext", "text", "integer"),
        ("timezone", "text, timestamptz", "timestamp"),
        ("helper", "integer", "integer"),
        ("backlog_cleanup_emergency", "text", "jsonb"),
    ]);
    let body = body(random, role);
    let code = format!("LANGUAGE plpgsql AS $code$ {body} RETURN NULL; END $code$");
    match random.below(2) {
        0 => format!("CREATE OR REPLACE FUNCTION {schema}.{name}({arguments}) RETURNS {result} {code}"),
        _ => format!(
            "CREATE OR REPLACE FUNCTION {schema}.trap({sql_type}, {sql_type}) RETURNS boolean {code};
             CREATE OPERATOR {schema}.{operator} (LEFTARG = {sql_type}, RIGHTARG = {sql_type}, FUNCTION = {schema}.trap)"
        ),
    }
}
