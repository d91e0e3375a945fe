//! What the actors do, drawn by chance.

use std::fmt;

use crate::hostile::actors::Actor::{self, Admin, Monitor, Operator, Owner, Superuser};
use crate::hostile::code::{self, body};
use crate::random::Random;

/// A statement of an actor, and one that another one types at the same time.
#[derive(Clone, Debug)]
pub struct Step {
    pub actor: Actor,
    pub sql: String,
    pub beside: Option<(Actor, String)>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}> {};", self.actor.role(), self.sql)?;
        self.beside.as_ref().map_or(Ok(()), |(actor, sql)| write!(f, " -- meanwhile {}> {sql};", actor.role()))
    }
}

impl Step {
    fn of((actor, sql): (Actor, String)) -> Step {
        Step { actor, sql, beside: None }
    }

    /// Whether it calls the extension.
    pub fn is_call(&self) -> bool {
        ["SELECT", "CALL", "DO"].iter().any(|verb| self.sql.starts_with(verb))
            && self.sql.contains("public.backlog_cleanup_")
    }
}

pub fn episode(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..3 {
        for _ in 0..1 + random.below(5) {
            steps.push(Step::of(attack(random)));
        }
        for _ in 0..random.below(4) {
            steps.push(Step::of((Superuser, random.pick(&PREPARATIONS).to_string())));
        }
        for _ in 0..1 + random.below(3) {
            let mut step = Step::of(call(random));
            if random.below(3) == 0 {
                // Only who never has a transaction open.
                step.beside = Some(attack(random)).filter(|(actor, _)| *actor == Owner);
            }
            steps.push(step);
            if random.below(2) == 0 {
                steps.push(Step::of((Superuser, random.pick(&AFTERWARDS).to_string())));
            }
        }
    }
    steps
}

/// What a superuser's session may have before a run.
const PREPARATIONS: [&str; 25] = [
    "BEGIN",
    "BEGIN",
    "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "DECLARE mine CURSOR FOR SELECT g FROM generate_series(1, 1000) g",
    "DECLARE mine CURSOR FOR SELECT g FROM generate_series(1, 1000) g",
    "DECLARE held CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 1000) g",
    "SAVEPOINT s",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_advisory_xact_lock_shared(8)",
    "PREPARE p AS SELECT 1",
    "LISTEN news",
    "SELECT lo_open(8, 262144)",
    "CREATE TEMP TABLE audit_log (x integer); GRANT ALL ON audit_log TO PUBLIC",
    "DISCARD TEMP",
    "SET search_path = app, public",
    "SET search_path = app, pg_catalog, public",
    "SET search_path = mon, op, adm, pg_catalog, public, pg_temp",
    "SET TimeZone = 'Pacific/Kiritimati'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'",
    "SET ROLE boss",
    "SET SESSION AUTHORIZATION boss",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET standard_conforming_strings = off; SET xmloption = 'document'; SET bytea_output = 'escape'",
    "SET default_transaction_isolation = 'serializable'",
    "SET plan_cache_mode = 'force_generic_plan'; SET jit_above_cost = 0; SET enable_seqscan = off",
];

/// What would run what a run has left.
const AFTERWARDS: [&str; 12] = [
    "FETCH mine",
    "FETCH ALL FROM held",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SELECT pg_temp.helper(1)",
    "TABLE audit_log",
    "EXECUTE p",
    "DISCARD ALL",
    "RESET ALL",
    "INSERT INTO checker.parent VALUES (2) ON CONFLICT DO NOTHING",
    "ROLLBACK TO s",
];

fn call(random: &mut Random) -> (Actor, String) {
    let actor = *random.pick(&[Superuser, Superuser, Superuser, Superuser, Operator, Monitor, Admin]);
    let target = *random.pick(&["generations", "generations", "generations", "job", "task", "own"]);
    let mut calls = vec![
        format!("SELECT public.backlog_cleanup_status_json('{target}')"),
        format!("SELECT * FROM public.backlog_cleanup_status('{target}')"),
        format!("SELECT * FROM public.backlog_cleanup_failures('{target}')"),
        format!("SELECT * FROM public.backlog_cleanup_doctor('{target}')"),
        format!("SELECT public.backlog_cleanup_index_sql('{target}')"),
    ];
    if actor != Monitor {
        let only = *random.pick(&["", ", recipe_id => '1'", ", failure_type => 'x'"]);
        calls.extend([
            format!("SELECT public.backlog_cleanup_failed_generations('{target}'{only})"),
            format!("SELECT public.backlog_cleanup_failed_generations('{target}', dry_run => true)"),
            format!("SELECT public.backlog_cleanup_emergency('{target}'{only})"),
            format!("SELECT public.backlog_cleanup_emergency('{target}', dry_run => true)"),
            format!("CALL public.backlog_cleanup_run('{target}', batch_size => 4{only})"),
            format!(
                "CALL public.backlog_cleanup_run('{target}', batch_size => 4, pause => '5 ms', mode => 'emergency')"
            ),
            format!("CALL public.backlog_cleanup_run('{target}', batch_size => 9, workers => 2)"),
        ]);
    }
    if actor == Superuser {
        calls.extend([
            format!(
                "DO $$ DECLARE r record; BEGIN FOR r IN SELECT g FROM pg_catalog.generate_series(1, 60) g LOOP
                 PERFORM public.backlog_cleanup_failed_generations('{target}'); END LOOP; END $$"
            ),
            format!(
                "DO $$ BEGIN PERFORM public.backlog_cleanup_emergency('{target}'); EXCEPTION WHEN division_by_zero THEN NULL; END $$"
            ),
        ]);
    }
    (actor, random.pick(&calls).clone())
}

/// What one of the hostile does on their own.
fn attack(random: &mut Random) -> (Actor, String) {
    match random.below(10) {
        0..6 => (Owner, code::hung_on_a_table(random)),
        6 => (Owner, owner(random)),
        7 => (Admin, admin(random)),
        8 => (Operator, caller(random, "op")),
        _ => (Monitor, caller(random, "mon")),
    }
}

fn owner(random: &mut Random) -> String {
    let moves = [
        "ALTER TABLE app.leaf2 NO INHERIT public.generations",
        "ALTER TABLE app.leaf2 INHERIT public.generations",
        "ALTER TABLE public.generations ALTER recipe_id TYPE bigint",
        "ALTER TABLE public.generations ALTER recipe_id TYPE text",
        "ALTER TABLE public.generations ALTER status TYPE app.mood USING status::text::app.mood",
        "ALTER TABLE public.generations ALTER updated_at TYPE timestamptz USING updated_at AT TIME ZONE 'UTC'",
        "ALTER TABLE public.generations RENAME failure_reason TO reason",
        "ALTER TABLE public.generations RENAME reason TO failure_reason",
        "ALTER TABLE public.generations ADD extra app.st DEFAULT 'x', DROP image_url",
        "ALTER TABLE app.job ALTER status TYPE app.mood USING status::text::app.mood",
        "ALTER TABLE app.leaf1 RENAME TO leaf9",
        "ALTER TABLE app.leaf1 SET SCHEMA public",
        "ALTER SCHEMA app RENAME TO app2; CREATE SCHEMA app",
        "TRUNCATE app.leaf1",
        "DROP TABLE app.leaf2",
        "DROP VIEW app.recipes",
        "VACUUM FULL app.leaf1",
        "SELECT app.fill()",
        "SELECT app.fill()",
        "SELECT app.fill()",
        "DROP OWNED BY app",
        "GRANT ALL ON ALL TABLES IN SCHEMA app TO mon, op, adm; GRANT ALL ON public.generations TO mon, op, adm",
        "UPDATE public.generations SET status = 'pending' WHERE id % 7 = 3",
        "CREATE TABLE app.leaf3 (LIKE public.generations INCLUDING ALL); ALTER TABLE app.leaf3 INHERIT public.generations",
    ];
    match random.below(3) {
        0 => code::captured(random, "app"),
        _ => random.pick(&moves).to_string(),
    }
}

fn admin(random: &mut Random) -> String {
    let target = *random.pick(&["generations", "job", "task", "own"]);
    let change = *random.pick(&[
        "account = 'somebody'",
        "account = 'system_backlog'",
        "statuses = '{gone}'",
        "statuses = '{failed}'",
        "recipe_column = 'user_id'",
        "recipe_column = 'status'",
        "recipe_column = 'recipe_id'",
        "failed_at_column = 'created_at'",
        "id_column = 'short_id'",
        "failure_type_column = 'prompt'",
        "recipe_name_column = 'id'",
        "generations_table = 'victim.treasure'",
        "generations_table = 'victim.task'",
        "generations_table = 'adm.jobs', named_by = NULL",
        "ledger_table = 'adm.ledger'",
        "ledger_table = NULL",
        "recipes_table = 'adm.recipes'",
        "users_table = NULL",
        "search_path = 'adm, pg_catalog, public'",
        "search_path = 'pg_temp, pg_catalog'",
        "search_path = NULL",
        "throttle_query = 'SELECT adm.payload()::text'",
        "time_zone = 'Pacific/Kiritimati'",
        "max_rows_per_run = 10",
        "max_rows_per_run = NULL",
        "named_by = 'postgres'",
        "name = name || '''; SELECT adm.payload(); --'",
    ]);
    let policy = *random.pick(&[
        "keep = 0",
        "keep = 5",
        "max_age = '12 hours'",
        "max_age = '30 days'",
        "enabled = NOT enabled",
        "recipe_id = '1'' OR adm.payload() = 1 --'",
        "failure_type = 'x'",
    ]);
    match random.below(6) {
        0 | 1 => format!("UPDATE backlog_cleanup.target SET {change} WHERE name = '{target}'"),
        2 => format!("UPDATE backlog_cleanup.policy SET {policy} WHERE target = '{target}'"),
        3 => "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table)
              VALUES ('own', 'adm.jobs', NULL, NULL, NULL)"
            .into(),
        4 => code::trigger(random, "adm", "adm.jobs"),
        _ => caller(random, "adm"),
    }
}

/// What somebody who may call the extension prepares in a session of their own.
fn caller(random: &mut Random, role: &str) -> String {
    let domain = *random.pick(&["text", "\"timestamp\"", "int4", "name", "jsonb"]);
    let number = random.below(1_000_000);
    let body = body(random, role);
    match random.below(10) {
        0 | 1 => code::captured(random, role),
        2 => format!(
            "CREATE FUNCTION pg_temp.check_{number}(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS
             $code$ {body} RETURN true; END $code$;
             CREATE DOMAIN pg_temp.{domain} AS pg_catalog.{domain} CHECK (pg_temp.check_{number}(VALUE::pg_catalog.text))"
        ),
        3 => format!(
            "CREATE TEMP TABLE audit_log (x integer); GRANT ALL ON audit_log TO PUBLIC;
             CREATE FUNCTION {role}.code_{number}() RETURNS trigger LANGUAGE plpgsql AS
             $code$ {body} RETURN NULL; END $code$;
             CREATE TRIGGER t AFTER INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION {role}.code_{number}()"
        ),
        4 => "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM backlog_cleanup.policy".into(),
        5 => "COMMIT".into(),
        6 => format!("SET search_path = pg_temp, {role}, pg_catalog, public"),
        7 => "DISCARD ALL".into(),
        8 => format!("DECLARE mine CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 999) g WHERE {role}.payload() = 1"),
        _ => "SELECT backlog_cleanup.next_batch(g), backlog_cleanup.finish_run(g) FROM generate_series(1, 3) g".into(),
    }
}
