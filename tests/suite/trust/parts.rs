//! Partitions and children below what views, rules and functions read.

use cluster::{number as count, refused};

use super::{RAN, database, found, planted, refused_by_all};

#[test]
fn no_part_of_another_owner_is_read_below_a_view_a_rule_or_a_function() {
    for (name, setup, part) in [
        (
            "below_recipes",
            "CREATE TABLE rec (id text, name text) PARTITION BY LIST (id); CREATE TABLE rec1 PARTITION OF rec DEFAULT;
             CREATE TABLE rec2 PARTITION OF rec FOR VALUES IN ('2'); CREATE VIEW recv AS TABLE rec;
             UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't'; ALTER TABLE rec2 OWNER TO evil",
            "rec2",
        ),
        (
            "below_users",
            "CREATE TABLE acc (id text); CREATE TABLE acc2 () INHERITS (acc); INSERT INTO acc VALUES ('w');
             CREATE VIEW accv AS TABLE acc; CREATE VIEW accvv AS TABLE accv;
             ALTER TABLE acc OWNER TO app; ALTER TABLE accv OWNER TO app; ALTER TABLE accvv OWNER TO app;
             UPDATE backlog_cleanup.target SET users_table = 'public.accvv' WHERE name = 't'; ALTER TABLE acc2 OWNER TO evil",
            "acc2 (id) WHERE public.tell(); CREATE INDEX ON acc2",
        ),
        (
            "below_ledger",
            "CREATE TABLE led (LIKE ledger, id int) PARTITION BY LIST (user_id); CREATE TABLE led1 PARTITION OF led DEFAULT;
             CREATE TABLE led2 PARTITION OF led FOR VALUES IN ('w'); CREATE VIEW ledv AS TABLE led;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.ledv' WHERE name = 't'; ALTER TABLE led2 OWNER TO evil;
             SET ROLE evil; CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN PERFORM public.tell(); RETURN NEW; END';
             CREATE TRIGGER note BEFORE INSERT ON led2 FOR EACH ROW EXECUTE FUNCTION note(); RESET ROLE",
            "led2",
        ),
        (
            "below_rule",
            "CREATE TABLE audit (id int) PARTITION BY LIST (id); CREATE TABLE audit1 PARTITION OF audit DEFAULT;
             CREATE TABLE audit2 PARTITION OF audit FOR VALUES IN (2000); CREATE TABLE log (id int);
             ALTER TABLE audit OWNER TO app; ALTER TABLE audit1 OWNER TO app; ALTER TABLE log OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO
             INSERT INTO log SELECT a.id FROM audit a WHERE a.id = OLD.id; ALTER TABLE audit2 OWNER TO evil",
            "audit2",
        ),
        (
            "below_own_rule",
            "CREATE TABLE child () INHERITS (job); CREATE TABLE log (n int); ALTER TABLE log OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO
             INSERT INTO log SELECT count(*) FROM job j WHERE j.id = OLD.id; ALTER TABLE child OWNER TO evil",
            "child",
        ),
        (
            "below_own_rule_sampled",
            "CREATE TABLE child () INHERITS (job); CREATE TABLE log (n int); ALTER TABLE log OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO
             INSERT INTO log SELECT count(*) FROM job j TABLESAMPLE SYSTEM (100) WHERE j.id = OLD.id; ALTER TABLE child OWNER TO evil",
            "child",
        ),
        (
            "below_own_rule_that_samples",
            "CREATE TABLE child () INHERITS (job); CREATE TABLE log (n int); ALTER TABLE log OWNER TO app;
             CREATE TABLE hundred AS SELECT 100::real AS h; ALTER TABLE hundred OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO
             INSERT INTO log SELECT count(*) FROM job j TABLESAMPLE SYSTEM ((SELECT max(h) FROM hundred)) WHERE j.id = OLD.id;
             ALTER TABLE child OWNER TO evil",
            "child",
        ),
        (
            "below_function",
            "CREATE TABLE rec (id text, name text) PARTITION BY LIST (id); CREATE TABLE rec1 PARTITION OF rec DEFAULT;
             CREATE TABLE rec2 PARTITION OF rec FOR VALUES IN ('2'); ALTER TABLE rec OWNER TO app;
             CREATE FUNCTION nm(text) RETURNS text BEGIN ATOMIC SELECT r.name FROM public.rec r WHERE r.id = $1; END;
             ALTER FUNCTION nm OWNER TO app; CREATE VIEW recv AS SELECT 'a'::text AS id, nm('a') AS name;
             ALTER VIEW recv OWNER TO app; UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't';
             ALTER TABLE rec2 OWNER TO evil",
            "rec2",
        ),
        (
            "view_below_function",
            "CREATE VIEW v AS SELECT 'a'::text AS id; ALTER VIEW v OWNER TO app; GRANT SELECT ON v TO PUBLIC;
             CREATE FUNCTION nm(text) RETURNS text BEGIN ATOMIC SELECT v.id FROM public.v WHERE v.id = $1; END;
             ALTER FUNCTION nm OWNER TO app; CREATE VIEW recv AS SELECT 'a'::text AS id, nm('a') AS name;
             ALTER VIEW recv OWNER TO app; CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil;
             UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't'; ALTER VIEW v OWNER TO evil",
            "own (id) WHERE public.tell(); CREATE OR REPLACE VIEW v AS SELECT 'a'::text AS id WHERE public.tell(); CREATE INDEX ON own",
        ),
    ] {
        let (_cluster, mut client) = database(name);
        client.batch_execute(setup).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        client.batch_execute(&planted(part)).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        // All but the doctor, which says why.
        assert_eq!(refused_by_all(&mut client).len(), 11, "{name}");
        let (status, detail, _) = found(&mut client, "target");
        assert_eq!(status, "fail");
        assert!(detail.contains("belongs to role \"evil\", and would run as role"), "{name}: {detail}");
    }
}

#[test]
fn a_part_is_refused_also_where_its_owner_has_nothing_but_tables() {
    let (_cluster, mut client) = database("nothing_but_a_table");
    client
        .batch_execute(
            "CREATE TABLE rec (id text, name text) PARTITION BY LIST (id); CREATE TABLE rec1 PARTITION OF rec FOR VALUES IN ('b');
             CREATE TABLE rec2 PARTITION OF rec DEFAULT; CREATE VIEW recv AS TABLE rec;
             UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't';
             ALTER TABLE rec2 OWNER TO evil; SET ROLE evil; ALTER TABLE rec2 ADD CHECK (query_to_xml('SELECT 1', true, true, '') IS NOT NULL); RESET ROLE",
        )
        .unwrap();
    for call in ["SELECT backlog_cleanup_status_json('t')", "SELECT backlog_cleanup_failed_generations('t')"] {
        assert_eq!(refused(client.batch_execute(call)).0, "42501", "{call}");
    }
}

#[test]
fn a_view_over_a_part_that_its_own_table_trusts_is_used() {
    let (_cluster, mut client) = database("trusted_part");
    client
        .batch_execute(
            "CREATE TABLE rec (id text, name text) PARTITION BY LIST (id); CREATE TABLE rec1 PARTITION OF rec DEFAULT;
             CREATE VIEW recv AS TABLE rec; CREATE MATERIALIZED VIEW recm AS SELECT 'a'::text AS id, 'b'::text AS name;
             ALTER TABLE rec OWNER TO app; ALTER VIEW recv OWNER TO app; ALTER MATERIALIZED VIEW recm OWNER TO app;
             CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil;
             CREATE TABLE child () INHERITS (job); ALTER TABLE child OWNER TO victim;
             CREATE TABLE log (id int); ALTER TABLE log OWNER TO app;
             CREATE RULE log AS ON DELETE TO job DO ALSO INSERT INTO log VALUES (OLD.id);
             ALTER TABLE job DISABLE RULE log; UPDATE backlog_cleanup.target SET recipes_table = 'public.recv' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("own")).unwrap();
    // A superuser's partition; a rule, switched off, beside a child of another owner, which it does not read.
    assert_eq!(refused_by_all(&mut client), [""; 0]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn a_failure_type_is_read_with_no_operator_of_the_search_path() {
    let (_cluster, mut client) = database("failure_operator");
    client
        .batch_execute(
            "CREATE SCHEMA shared; GRANT ALL ON SCHEMA shared TO PUBLIC;
             ALTER TABLE job ALTER error TYPE jsonb USING '[{\"message\": \"x\"}]', ALTER at SET DEFAULT now() - interval '10 hours';
             UPDATE job SET at = DEFAULT; CREATE TABLE own (id int); ALTER TABLE own OWNER TO evil;
             UPDATE backlog_cleanup.target SET search_path = 'public, shared, pg_catalog' WHERE name = 't'",
        )
        .unwrap();
    client.batch_execute(&planted("own")).unwrap();
    for types in ["text, text", "jsonb, jsonb", "name, text", "name, name", "tid, tid", "int, int", "bigint, bigint"] {
        let (left, right) = types.split_once(", ").unwrap();
        client
            .batch_execute(&format!(
                "SET ROLE evil; CREATE FUNCTION shared.eq({types}) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.tell()';
                 CREATE OPERATOR shared.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = shared.eq); RESET ROLE"
            ))
            .unwrap();
    }
    for kind in ["jsonb", "json"] {
        client.batch_execute(&format!("ALTER TABLE job ALTER error TYPE {kind} USING error::{kind}; INSERT INTO job (id, error) SELECT i, '[{{\"message\": \"x\"}}]' FROM generate_series(1, 50) i ON CONFLICT DO NOTHING")).unwrap();
        assert_eq!(refused_by_all(&mut client), [""; 0], "{kind}");
        client.batch_execute("SET ROLE op; SELECT backlog_cleanup_failed_generations('t', failure_type => 'x', dry_run => true); RESET ROLE").unwrap();
        assert_eq!(count(&mut client, RAN), 0, "{kind}");
    }
}
