//! What foreign keys have PostgreSQL read.

use cluster::{number as count, refused, value};

use super::{RAN, database, found, planted, refused_by_all};

#[test]
fn a_key_from_a_table_above_the_target_is_that_of_its_own_rows() {
    // Whoever owns the target and the table above it, what is beside the target is read by nobody.
    for (name, owner) in [("above_of_one", "postgres"), ("above_of_another", "app")] {
        let (_cluster, mut client) = database(name);
        client
            .batch_execute(&format!(
                "CREATE TABLE g (LIKE job INCLUDING DEFAULTS, parent int); CREATE TABLE t (PRIMARY KEY (id)) INHERITS (g);
                 CREATE TABLE sib () INHERITS (g); ALTER TABLE g ADD FOREIGN KEY (parent) REFERENCES t (id);
                 INSERT INTO t (id) SELECT generate_series(1, 100); INSERT INTO g (id, parent) VALUES (101, 7);
                 INSERT INTO sib (id, parent) VALUES (102, 8); ALTER TABLE sib OWNER TO evil; ALTER TABLE t OWNER TO {owner};
                 UPDATE backlog_cleanup.target SET generations_table = 'public.t' WHERE name = 't'"
            ))
            .unwrap();
        client.batch_execute(&planted("sib")).unwrap();
        assert_eq!(refused_by_all(&mut client), [""; 0], "{name}");
        let left: Vec<i32> = value(&mut client, "SELECT array_agg(id ORDER BY id) FROM ONLY t");
        assert_eq!(left, [7]);
    }
}

#[test]
fn a_partition_beside_the_target_is_read_as_nobody_but_its_tables_owner() {
    let (_cluster, mut client) = database("beside");
    client
        .batch_execute(
            "CREATE TABLE r (LIKE job INCLUDING DEFAULTS, parent int, PRIMARY KEY (id, owner)) PARTITION BY LIST (owner);
             CREATE TABLE r1 PARTITION OF r FOR VALUES IN ('w'); CREATE TABLE r2 PARTITION OF r FOR VALUES IN ('v');
             ALTER TABLE r ADD FOREIGN KEY (parent, owner) REFERENCES r; INSERT INTO r (id) SELECT generate_series(1, 100);
             UPDATE r SET parent = id - 1 WHERE id > 1;
             ALTER TABLE r OWNER TO evil; ALTER TABLE r2 OWNER TO evil; ALTER TABLE r1 OWNER TO app; GRANT SELECT ON r TO app;
             GRANT SELECT ON r1 TO evil;
             UPDATE backlog_cleanup.target SET generations_table = 'public.r1' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("r2")).unwrap();
    assert_eq!(refused_by_all(&mut client), [""; 0]);
}

#[test]
fn who_owns_a_partition_beside_the_target_stops_no_run_by_a_lock() {
    let (cluster, mut client) = database("locked_beside");
    client
        .batch_execute(
            "CREATE TABLE r (LIKE job INCLUDING DEFAULTS, PRIMARY KEY (id, owner)) PARTITION BY LIST (owner);
             CREATE TABLE r1 PARTITION OF r FOR VALUES IN ('w'); CREATE TABLE r2 PARTITION OF r FOR VALUES IN ('v');
             INSERT INTO r (id) SELECT generate_series(1, 100);
             CREATE TABLE ref (id int, owner text, FOREIGN KEY (id, owner) REFERENCES r1 ON DELETE CASCADE);
             ALTER TABLE r OWNER TO app; ALTER TABLE r1 OWNER TO app; ALTER TABLE ref OWNER TO app; ALTER TABLE r2 OWNER TO evil;
             UPDATE backlog_cleanup.target SET generations_table = 'public.r1' WHERE name = 't'",
        )
        .unwrap();
    let mut evil = cluster.connect_to("locked_beside");
    evil.batch_execute("SET ROLE evil; BEGIN; LOCK TABLE r2").unwrap();
    client.batch_execute("SET ROLE op; SET lock_timeout = '1 s'").unwrap();
    for call in [
        "SELECT * FROM backlog_cleanup_status('t')",
        "SELECT backlog_cleanup_failed_generations('t', dry_run => true)",
        "SELECT backlog_cleanup_failed_generations('t')",
        "CALL backlog_cleanup_run('t', 'emergency')",
    ] {
        client.batch_execute(call).unwrap_or_else(|failure| panic!("{call}: {failure:?}"));
    }
    client.batch_execute("RESET ROLE").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM r1"), 0);
}

/// What runs and dry runs are refused for, and reports are not.
const RUNS: usize = 8;

#[test]
fn no_key_of_the_ledger_has_postgresql_read_a_partition_of_another_owner() {
    for (name, ledger, owner) in [
        ("ledger_key", "ledger", "app"),
        ("ledger_key_below_view", "ledgerv", "app"),
        ("ledger_key_below_view_of_another", "ledgerv", "victim"),
    ] {
        let (_cluster, mut client) = database(name);
        client
            .batch_execute(&format!(
                "CREATE TABLE acc (id text PRIMARY KEY) PARTITION BY LIST (id);
                 CREATE TABLE acc1 PARTITION OF acc FOR VALUES IN ('w'); CREATE TABLE acc2 PARTITION OF acc DEFAULT;
                 INSERT INTO acc VALUES ('w'); ALTER TABLE ledger ADD FOREIGN KEY (user_id) REFERENCES acc, OWNER TO {owner};
                 GRANT ALL ON ledger TO app; CREATE VIEW ledgerv AS TABLE ledger; ALTER VIEW ledgerv OWNER TO app;
                 UPDATE backlog_cleanup.target SET ledger_table = 'public.{ledger}' WHERE name = 't';
                 ALTER TABLE acc2 OWNER TO evil"
            ))
            .unwrap();
        client.batch_execute(&planted("acc2")).unwrap();
        assert_eq!(refused_by_all(&mut client).len(), RUNS, "{name}");
        assert_eq!(found(&mut client, "others").0, "fail");
        // PostgreSQL itself reads the partition as a superuser here.
        client.batch_execute("ALTER TABLE acc DETACH PARTITION acc2; SELECT setval('ran', 1, false)").unwrap();
        assert_eq!(refused_by_all(&mut client), [""; 0], "{name}");
    }
}

#[test]
fn no_key_behind_a_cascade_or_of_a_table_that_was_given_away_runs_its_former_owners_code() {
    for (name, setup, table) in [
        (
            "two_steps",
            "CREATE TABLE mid (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE); ALTER TABLE mid OWNER TO app;
             INSERT INTO mid SELECT id, id FROM job;
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        (
            "behind_a_rule",
            "CREATE TABLE mid (id int PRIMARY KEY); ALTER TABLE mid OWNER TO app; INSERT INTO mid SELECT id FROM job;
             CREATE RULE mid AS ON DELETE TO job DO ALSO DELETE FROM mid WHERE id = OLD.id;
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        (
            // The key is to a column that is set to NULL, and its change goes on by ON UPDATE CASCADE.
            "updated",
            "CREATE TABLE mid (id int UNIQUE REFERENCES job ON DELETE SET NULL); CREATE TABLE next (id int UNIQUE REFERENCES mid (id) ON UPDATE CASCADE);
             ALTER TABLE mid OWNER TO app; ALTER TABLE next OWNER TO app; INSERT INTO mid SELECT id FROM job; INSERT INTO next SELECT id FROM job;
             CREATE TABLE fk (id int, next int REFERENCES next (id)) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        (
            "behind_a_rule_on_another",
            "CREATE TABLE mid (id int PRIMARY KEY); ALTER TABLE mid OWNER TO victim; INSERT INTO mid SELECT id FROM job;
             GRANT ALL ON mid TO app; CREATE RULE mid AS ON DELETE TO job DO ALSO DELETE FROM mid WHERE id = OLD.id;
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk OWNER TO app; ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        (
            "behind_a_function",
            "CREATE TABLE mid (id int PRIMARY KEY); ALTER TABLE mid OWNER TO app; INSERT INTO mid SELECT id FROM job; SET ROLE app;
             CREATE FUNCTION del(i int) RETURNS void BEGIN ATOMIC DELETE FROM public.mid m WHERE m.id = i; END;
             CREATE FUNCTION del2(i int) RETURNS void BEGIN ATOMIC SELECT public.del(i); END; RESET ROLE;
             CREATE RULE mid AS ON DELETE TO job DO ALSO SELECT del2(OLD.id);
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        (
            "behind_a_default",
            "CREATE TABLE mid (id int PRIMARY KEY); ALTER TABLE mid OWNER TO app; INSERT INTO mid VALUES (1); SET ROLE app;
             CREATE FUNCTION del() RETURNS int BEGIN ATOMIC DELETE FROM public.mid m RETURNING m.id; END; RESET ROLE;
             ALTER TABLE ledger ADD d int DEFAULT del(), OWNER TO app;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't';
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        (
            // PostgreSQL's own functions belong to nobody.
            "domain",
            "SET ROLE evil; CREATE DOMAIN dom AS int; RESET ROLE;
             CREATE TABLE fk (id int, job dom REFERENCES job ON DELETE SET NULL); INSERT INTO fk SELECT id, id FROM job;
             CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil",
            "own (id) WHERE public.tell();
             ALTER DOMAIN dom ADD CHECK (current_user = 'evil' OR nextval('public.ran') > 0) NOT VALID; CREATE INDEX ON own",
        ),
        (
            "behind_an_index",
            "CREATE TABLE mid (id int PRIMARY KEY); ALTER TABLE mid OWNER TO app; INSERT INTO mid SELECT id FROM job; SET ROLE app;
             CREATE FUNCTION del(i int) RETURNS boolean LANGUAGE sql VOLATILE BEGIN ATOMIC DELETE FROM public.mid m WHERE m.id = i; SELECT true; END;
             CREATE FUNCTION del2(i int) RETURNS boolean LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT public.del(i); END;
             CREATE TABLE ref (job int REFERENCES job ON DELETE SET NULL, i int); CREATE INDEX ON ref (del2(i + COALESCE(job, 0) * 0)); RESET ROLE;
             CREATE TABLE fk (id int, mid int REFERENCES mid) PARTITION BY LIST (id);
             CREATE TABLE fk1 PARTITION OF fk FOR VALUES IN (1); CREATE TABLE fk2 PARTITION OF fk FOR VALUES IN (2);
             ALTER TABLE fk2 OWNER TO evil",
            "fk2",
        ),
        ("given_away", "CREATE TABLE fk (id int, job int REFERENCES job); ALTER TABLE fk OWNER TO evil", "fk"),
    ] {
        let (_cluster, mut client) = database(name);
        client.batch_execute(setup).unwrap();
        client.batch_execute(&planted(table)).unwrap();
        if name == "given_away" {
            client.batch_execute("ALTER TABLE fk OWNER TO app").unwrap();
        }
        assert_eq!(refused_by_all(&mut client).len(), RUNS, "{name}");
        assert_eq!(found(&mut client, "others").0, "fail");
    }
}

#[test]
fn who_may_only_use_a_type_or_reference_a_table_stops_no_run_of_others() {
    let (_cluster, mut client) = database("stranger");
    client
        .batch_execute(
            "DO $$ BEGIN CREATE ROLE staff; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;
             GRANT staff TO evil; GRANT CREATE ON SCHEMA public TO staff;
             CREATE TYPE st AS ENUM ('failed', 'completed', 'pending', 'processing'); ALTER TYPE st OWNER TO app;
             CREATE DOMAIN q AS text; ALTER DOMAIN q OWNER TO app;
             CREATE FUNCTION same(st, st) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; ALTER FUNCTION same OWNER TO app;
             CREATE OPERATOR == (LEFTARG = st, RIGHTARG = st, FUNCTION = same); ALTER OPERATOR == (st, st) OWNER TO app;
             ALTER TABLE job ALTER state DROP DEFAULT, ALTER state TYPE st USING state::st, ALTER queue TYPE q,
                 ADD CHECK (state == state);
             GRANT REFERENCES ON job TO evil; CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil",
        )
        .unwrap();
    client.batch_execute(&planted("own")).unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA evil AUTHORIZATION evil; GRANT ALL ON SCHEMA evil TO staff; SET ROLE evil; CREATE TYPE evil.ty AS (a int);
             CREATE FUNCTION evil.to_st(evil.ty) RETURNS st LANGUAGE sql AS $$SELECT 'failed'::st$$;
             CREATE CAST (evil.ty AS st) WITH FUNCTION evil.to_st(evil.ty) AS ASSIGNMENT;
             CREATE FUNCTION evil.of_st(st) RETURNS evil.ty LANGUAGE sql AS $$SELECT ROW(1)::evil.ty$$;
             CREATE CAST (st AS evil.ty) WITH FUNCTION evil.of_st(st) AS IMPLICIT;
             CREATE FUNCTION evil.of_q(q) RETURNS evil.ty LANGUAGE sql AS $$SELECT ROW(1)::evil.ty$$;
             CREATE CAST (q AS evil.ty) WITH FUNCTION evil.of_q(q) AS ASSIGNMENT;
             CREATE FUNCTION evil.text(st) RETURNS text LANGUAGE sql AS $$SELECT 'x'::text$$;
             CREATE DOMAIN evil.d AS st CHECK (public.tell()); CREATE TYPE evil.r AS RANGE (SUBTYPE = st);
             CREATE FUNCTION evil.eq(st, st) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.tell()';
             CREATE OPERATOR evil.= (LEFTARG = st, RIGHTARG = st, FUNCTION = evil.eq);
             CREATE TABLE evil.plain (id int, job int REFERENCES job ON DELETE SET NULL, s st DEFAULT 'failed'::evil.d);
             CREATE INDEX ON evil.plain (job) WHERE public.tell();
             CREATE TABLE evil.fk (id int, job int REFERENCES job) PARTITION BY LIST (id);
             CREATE TABLE evil.fk1 PARTITION OF evil.fk FOR VALUES IN (1); CREATE INDEX ON evil.fk1 (job) WHERE public.tell();
             ALTER TABLE evil.fk1 OWNER TO staff",
        )
        .unwrap();
    // A link from another role's operator, which the planner would follow.
    let (sqlstate, ..) = refused(client.batch_execute(
        "CREATE OPERATOR evil.=== (LEFTARG = st, RIGHTARG = st, FUNCTION = evil.eq, COMMUTATOR = OPERATOR(public.==))",
    ));
    assert_eq!(sqlstate, "42501");
    client.batch_execute("RESET ROLE").unwrap();
    let details: Vec<String> = value(
        &mut client,
        "SELECT array_agg(detail ORDER BY detail) FROM backlog_cleanup_doctor('t') WHERE check_name = 'others' AND status = 'warn'",
    );
    assert_eq!(
        details,
        [
            "a removal changes evil.plain of role evil, whose triggers there run as role app: one role should own both",
            "table evil.fk1 belongs to role \"staff\", and would run as role \"evil\", who owns \"evil.plain\""
        ]
    );
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn a_rule_of_whoever_may_reference_the_target_stops_no_run() {
    let (_cluster, mut client) = database("rule_of_a_stranger");
    client
        .batch_execute(
            "GRANT REFERENCES ON job TO evil; SET ROLE app;
             CREATE FUNCTION harmless(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; CREATE DOMAIN d AS int;
             RESET ROLE; CREATE TABLE by_domain (job d REFERENCES job);
             CREATE TABLE y (id int PRIMARY KEY); CREATE TABLE yz (id int, y int REFERENCES y) PARTITION BY LIST (id);
             CREATE TABLE yz1 PARTITION OF yz DEFAULT; ALTER TABLE yz1 OWNER TO evil;
             SET ROLE evil; CREATE TABLE fk (id int, job int REFERENCES job ON DELETE CASCADE); CREATE TABLE x (id int PRIMARY KEY);
             CREATE RULE x AS ON DELETE TO fk DO ALSO DELETE FROM x WHERE id = OLD.job;
             CREATE TABLE fkx (x int REFERENCES x); CREATE INDEX ON fkx (x) WHERE harmless(x); RESET ROLE",
        )
        .unwrap();
    client.batch_execute(&planted("yz1")).unwrap();
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    // A rule may name any table. It could not remove a row of this one.
    client.batch_execute("CREATE RULE y AS ON DELETE TO fk DO ALSO DELETE FROM y WHERE id = OLD.job").unwrap();
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    client
        .batch_execute("GRANT INSERT, SELECT ON y TO evil; CREATE RULE z AS ON DELETE TO fk DO ALSO INSERT INTO y VALUES (OLD.job)")
        .unwrap();
    client.batch_execute("DROP RULE y ON fk; INSERT INTO job (id) VALUES (1); INSERT INTO fk VALUES (1, 1)").unwrap();
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    // Now it could, and has PostgreSQL read the partition without any run, too: the doctor warns.
    client.batch_execute("GRANT DELETE ON y TO evil; CREATE RULE y AS ON DELETE TO fk DO ALSO DELETE FROM y").unwrap();
    client.batch_execute("INSERT INTO job (id) SELECT generate_series(1, 10); SET ROLE op").unwrap();
    client.batch_execute("SELECT backlog_cleanup_emergency('t'); RESET ROLE; DROP TABLE fkx").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
    let warned = "SELECT count(*) FROM backlog_cleanup_doctor('t') WHERE check_name = 'others' AND status = 'warn' AND detail ~ 'would run as role \"postgres\"'";
    assert_eq!(count(&mut client, warned), 1);
}

#[test]
fn an_operator_beside_that_of_an_extension_is_not_the_one_of_a_key() {
    let (_cluster, mut client) = database("operator_of_a_key");
    client
        .batch_execute(
            "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; GRANT ALL ON SCHEMA ext TO PUBLIC;
             CREATE DOMAIN cdom AS ext.citext; ALTER DOMAIN cdom OWNER TO app;
             CREATE TABLE c (LIKE job INCLUDING DEFAULTS); ALTER TABLE c ALTER id TYPE cdom USING id::text::cdom;
             ALTER TABLE c ADD PRIMARY KEY (id); ALTER TABLE c ADD parent cdom REFERENCES c, OWNER TO app;
             INSERT INTO c (id, parent) SELECT i, nullif(i - 1, 0) FROM generate_series(1, 40) i;
             UPDATE backlog_cleanup.target SET generations_table = 'public.c' WHERE name = 't';
             CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil",
        )
        .unwrap();
    client
        .batch_execute(&planted(
            "own (id) WHERE public.tell(); CREATE FUNCTION eq(cdom, cdom) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.tell()';
             CREATE OPERATOR ext.= (LEFTARG = cdom, RIGHTARG = cdom, FUNCTION = eq); CREATE INDEX ON own",
        ))
        .unwrap();
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM c"), 0);
}

#[test]
fn a_run_plans_no_partition_of_another_owner_of_a_table_that_references_the_target() {
    let (_cluster, mut client) = database("referencing");
    client
        .batch_execute(
            "CREATE TABLE r (LIKE job INCLUDING DEFAULTS, parent int, PRIMARY KEY (id, owner)) PARTITION BY LIST (owner);
             CREATE TABLE r1 PARTITION OF r FOR VALUES IN ('w'); CREATE TABLE r2 PARTITION OF r FOR VALUES IN ('v');
             ALTER TABLE r ADD FOREIGN KEY (parent, owner) REFERENCES r; INSERT INTO r (id) SELECT generate_series(1, 100);
             UPDATE backlog_cleanup.target SET generations_table = 'public.r' WHERE name = 't';
             ALTER TABLE r2 OWNER TO evil",
        )
        .unwrap();
    client.batch_execute(&planted("r2")).unwrap();
    client.batch_execute("SET ROLE op").unwrap();
    for call in
        ["SELECT backlog_cleanup_emergency('t')", "SELECT backlog_cleanup_failed_generations('t', rehearse => true)"]
    {
        let (sqlstate, message, _) = refused(client.batch_execute(call));
        assert_eq!((sqlstate.as_str(), message.starts_with("function public.tell()")), ("42501", true), "{message}");
    }
    client.batch_execute("RESET ROLE").unwrap();
    assert_eq!(count(&mut client, RAN), 0);
}

#[test]
fn what_a_ledger_references_is_asked_only_where_no_other_role_has_code() {
    let (_cluster, mut client) = database("ledger_reference");
    client
        .batch_execute(
            "CREATE TABLE acc (id text PRIMARY KEY); CREATE TABLE acc2 () INHERITS (acc); INSERT INTO acc VALUES ('w');
             ALTER TABLE acc2 OWNER TO evil; ALTER TABLE ledger OWNER TO app; GRANT REFERENCES ON acc TO app;
             ALTER TABLE ledger ADD FOREIGN KEY (user_id) REFERENCES acc;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("acc2")).unwrap();
    for (role, call) in [
        ("mon", "SELECT * FROM backlog_cleanup_doctor('t')"),
        ("op", "SELECT backlog_cleanup_failed_generations('t', dry_run => true)"),
    ] {
        client.batch_execute(&format!("SET ROLE {role}; {call}; RESET ROLE")).unwrap();
        assert_eq!(count(&mut client, RAN), 0, "{call}");
    }
}

#[test]
fn a_role_that_may_only_reference_a_table_keeps_nobody_from_looking() {
    let (_cluster, mut client) = database("waiting");
    client
        .batch_execute(
            "GRANT REFERENCES ON job TO evil; SET ROLE evil; CREATE TABLE fk (id int REFERENCES job); INSERT INTO fk VALUES (1);
             CREATE FUNCTION public.wait() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
             AS $$BEGIN IF current_setting('evil.ready', true) = 'yes' THEN PERFORM pg_sleep(60); RAISE 'boom'; END IF; RETURN true; END$$;
             CREATE INDEX ON fk (id) WHERE public.wait(); SET evil.ready = 'yes'; RESET ROLE; SET statement_timeout = '30s'",
        )
        .unwrap();
    for (role, call) in [
        ("mon", "SELECT * FROM backlog_cleanup_doctor('t')"),
        ("op", "SELECT backlog_cleanup_failed_generations('t', dry_run => true)"),
    ] {
        client.batch_execute(&format!("SET ROLE {role}; {call}; RESET ROLE")).unwrap();
    }
    let (_, detail, _) = found(&mut client, "referenced");
    assert!(detail.ends_with("was not looked at: it belongs to role \"evil\""), "{detail}");
    // Nor is what a ledger references.
    client
        .batch_execute(
            "SET evil.ready = 'no'; SET ROLE evil; CREATE TABLE acc (id text PRIMARY KEY); INSERT INTO acc VALUES ('w');
             CREATE INDEX ON acc (id) WHERE public.wait(); GRANT REFERENCES ON acc TO app; RESET ROLE;
             ALTER TABLE ledger OWNER TO app, ADD FOREIGN KEY (user_id) REFERENCES acc;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'; SET evil.ready = 'yes'",
        )
        .unwrap();
    let (status, detail, _) = found(&mut client, "ledger_row");
    assert!(status == "ok" && detail.ends_with("references public.acc, which is not looked at"), "{detail}");
    // An error in a table that may be looked at is only said.
    client.batch_execute("ALTER TABLE fk OWNER TO app; ALTER FUNCTION public.wait() OWNER TO app").unwrap();
    client
        .batch_execute(
            "SET ROLE app; CREATE OR REPLACE FUNCTION public.wait() RETURNS boolean LANGUAGE plpgsql IMMUTABLE
                          AS $$BEGIN RAISE 'boom'; END$$; RESET ROLE",
        )
        .unwrap();
    let (_, detail, _) = found(&mut client, "referenced");
    assert!(detail.ends_with("was not looked at: its table cannot be read"), "{detail}");
}

#[test]
fn keys_onto_the_target_stop_no_emergency_run_in_a_new_session() {
    let (cluster, mut client) = database("keys_in_new_sessions");
    client.batch_execute("GRANT REFERENCES ON job TO evil").unwrap();
    for (owner, action, stays) in [
        ("app", "NO ACTION", 1),
        ("app", "ON DELETE SET NULL", 0),
        ("app", "ON DELETE CASCADE", 0),
        ("evil", "NO ACTION", 1),
        ("evil", "ON DELETE CASCADE", 0),
    ] {
        client
            .batch_execute(&format!(
                "TRUNCATE job; INSERT INTO job (id) SELECT generate_series(1, 100);
                 SET ROLE {owner}; CREATE TABLE fk (job int REFERENCES job {}); INSERT INTO fk VALUES (40); RESET ROLE",
                action.trim_start_matches("NO ACTION")
            ))
            .unwrap();
        let run = cluster.connect_to("keys_in_new_sessions").batch_execute("SELECT backlog_cleanup_emergency('t')");
        run.unwrap_or_else(|failure| panic!("{owner}, {action}: {failure:?}"));
        assert_eq!(count(&mut client, "SELECT count(*) FROM job"), stays, "{owner}, {action}");
        client.batch_execute("DROP TABLE fk").unwrap();
    }
}

#[test]
fn what_code_of_a_key_sets_is_set_for_no_later_statement() {
    let (_cluster, mut client) = database("settings_of_a_key");
    client
        .batch_execute(
            "ALTER TABLE job ADD doc text; TRUNCATE job; INSERT INTO job (id, doc) SELECT i, '12' || i FROM generate_series(1, 20000) i;
             CREATE TABLE saved AS TABLE job;
             UPDATE backlog_cleanup.target SET condition = '(doc ~ ''^\\d+$'')' WHERE name = 't';
             GRANT REFERENCES ON job TO evil; SET ROLE evil;
             CREATE TABLE fk (job int REFERENCES job ON DELETE CASCADE, bad boolean); CREATE INDEX ON fk (job);
             CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN IF OLD.bad THEN RAISE 'no'; END IF; PERFORM set_config('standard_conforming_strings', 'off', true),
                         set_config('lock_timeout', '0', true), set_config('enable_tidscan', 'off', true); RETURN OLD; END$$;
             CREATE TRIGGER disturb BEFORE DELETE ON fk FOR EACH ROW EXECUTE FUNCTION disturb(); RESET ROLE",
        )
        .unwrap();
    for (call, all) in [
        ("SELECT backlog_cleanup_failed_generations('t')", 10),
        ("CALL backlog_cleanup_run('t', batch_size => 5000)", 10),
        ("SELECT backlog_cleanup_emergency('t')", 0),
    ] {
        client
            .batch_execute(
                "TRUNCATE job, fk; INSERT INTO job TABLE saved; INSERT INTO fk VALUES (19000, false), (2, false), (20, true)",
            )
            .unwrap();
        client.batch_execute(call).unwrap();
        assert_eq!(count(&mut client, "SELECT count(*) FROM job"), all + 1, "{call}");
    }
}
