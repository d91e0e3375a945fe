//! Values that look the same, and settings that change what they mean.

use cluster::{Cluster, column, number as count, refused, value};
use postgres::NoTls;

use super::{PRELUDE, database};

#[test]
fn rows_of_accounts_that_are_only_called_equal_stay() {
    let (_cluster, mut client) = database("accounts");
    client
        .batch_execute(
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             DELETE FROM job;
             ALTER TABLE job ALTER owner TYPE text COLLATE ci, ALTER queue TYPE text COLLATE ci;
             INSERT INTO job (id, owner, queue)
             SELECT i, CASE WHEN i % 2 = 0 THEN 'w' ELSE 'W' END, CASE WHEN i % 4 < 2 THEN 'a' ELSE 'A' END FROM generate_series(1, 80) i",
        )
        .unwrap();
    let others = "SELECT count(*) FROM job WHERE owner COLLATE \"C\" = 'W'";
    let total = "SELECT sum(total_count) FROM backlog_cleanup_status('t')";
    assert_eq!(count(&mut client, total), 40);
    let selected = "SELECT backlog_cleanup_emergency('t', recipe_id => 'A') ->> 'removedCount'";
    assert_eq!(count(&mut client, selected), 20);
    for run in ["CALL backlog_cleanup_run('t')", "SELECT backlog_cleanup_emergency('t')"] {
        client.batch_execute(run).unwrap();
        assert_eq!(count(&mut client, others), 40, "{run}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 40);

    // What the type cuts off is the value of other rows, and is refused.
    for (column, account, stored) in [
        ("\"char\" USING 's'", "system", "s"),
        ("name USING repeat('s', 63)", &"s".repeat(64), &"s".repeat(63)),
        ("float4 USING 16777217", "16777217", "1.6777216e+07"),
        ("char(9) USING 's'", "s ", "s"),
    ] {
        client.batch_execute(&format!("ALTER TABLE job ALTER owner DROP DEFAULT, ALTER owner TYPE {column}")).unwrap();
        client.batch_execute("ALTER TABLE backlog_cleanup.target DISABLE TRIGGER USER").unwrap();
        let write = format!("UPDATE backlog_cleanup.target SET account = '{account}' WHERE name = 't'");
        client.batch_execute(&write).unwrap();
        client.batch_execute("ALTER TABLE backlog_cleanup.target ENABLE TRIGGER USER").unwrap();
        // What is not refused removes nothing.
        if ["float4", "char("].iter().any(|of| column.starts_with(of)) {
            client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
        } else {
            assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_emergency('t')")).0, "22023", "{column}");
        }
        assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 40, "{column}");
        let (sqlstate, message, _) = refused(client.batch_execute("SELECT backlog_cleanup_check('t')"));
        let said = format!("\"{account}\" becomes \"{stored}\"");
        assert_eq!((sqlstate.as_str(), message.contains(&said)), ("22023", true), "{message}");
        client.batch_execute("ALTER TABLE job ALTER owner TYPE text USING 's'").unwrap();
    }
}

#[test]
fn a_status_or_a_failure_type_that_its_column_cuts_off_is_that_of_other_rows() {
    let (_cluster, mut client) = database("cut_off");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET completed_status = NULL, pending_status = NULL, processing_status = NULL WHERE name = 't'",
        )
        .unwrap();
    for column in ["state", "error"] {
        client
            .batch_execute(&format!(
                "ALTER TABLE job ALTER {column} DROP DEFAULT, ALTER {column} TYPE \"char\" USING 'f'; SET ROLE op"
            ))
            .unwrap();
        for call in [
            "SELECT backlog_cleanup_emergency('t', failure_type => 'fatal')",
            "SELECT backlog_cleanup_failed_generations('t', failure_type => 'fatal')",
            "CALL backlog_cleanup_run('t', failure_type => 'fatal')",
        ] {
            let (sqlstate, message, _) = refused(client.batch_execute(call));
            assert_eq!((sqlstate.as_str(), message.contains("becomes \"f\"")), ("22023", true), "{call}: {message}");
        }
        client.batch_execute("RESET ROLE; ALTER TABLE job ALTER state TYPE text USING 'failed'").unwrap();
    }
    client.batch_execute("ALTER TABLE job ALTER state TYPE name USING repeat('f', 63)").unwrap();
    let write = "UPDATE backlog_cleanup.target SET statuses = ARRAY[repeat('f', 64)] WHERE name = 't'";
    assert_eq!(refused(client.batch_execute(write)).0, "22023");
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 100);
}

#[test]
fn a_cast_to_text_that_changes_between_two_batches_refuses_the_next() {
    let (_cluster, mut client) = database("text_of_a_recipe");
    client
        .batch_execute(
            "CREATE TYPE re AS (k text); CREATE DOMAIN red AS re;
             CREATE FUNCTION re_text(re) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.k';
             ALTER TYPE re OWNER TO app; ALTER DOMAIN red OWNER TO app; ALTER FUNCTION re_text OWNER TO app;
             ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE red USING ROW(queue)::re",
        )
        .unwrap();
    let start = "SELECT backlog_cleanup.start_run('{\"target\":\"t\",\"mode\":\"regular\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false,\"include_held\":false}')";
    for change in [
        "CREATE CAST (re AS text) WITH FUNCTION re_text(re)",
        "CREATE OR REPLACE FUNCTION re_text(re) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.k || 1'",
    ] {
        let run = count(&mut client, start);
        let next = format!("SELECT backlog_cleanup.next_batch({run})");
        client.batch_execute(&next).unwrap();
        client.batch_execute(change).unwrap();
        assert_eq!(refused(client.batch_execute(&next)).0, "55000", "{change}");
        // Releases the target.
        let _ = client.batch_execute(&format!("SELECT backlog_cleanup.finish_run({run})"));
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 80);
}

#[test]
fn a_cast_to_json_that_changes_between_two_batches_refuses_the_next() {
    let (_cluster, mut client) = database("json_of_a_recipe");
    client
        .batch_execute(
            "CREATE TYPE rt AS ENUM ('A', 'B'); CREATE FUNCTION ct(rt) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT to_json($1::text)';
             CREATE CAST (rt AS json) WITH FUNCTION ct(rt); ALTER TYPE rt OWNER TO app; ALTER FUNCTION ct OWNER TO app;
             ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE rt USING CASE WHEN id % 2 = 0 THEN 'A' ELSE 'B' END::rt;
             UPDATE backlog_cleanup.target SET recipe_column = NULL, recipe_columns = '{queue}' WHERE name = 't'",
        )
        .unwrap();
    let start = "SELECT backlog_cleanup.start_run('{\"target\":\"t\",\"mode\":\"regular\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false,\"include_held\":false}')";
    let run = count(&mut client, start);
    let next = format!("SELECT backlog_cleanup.next_batch({run})");
    client.batch_execute(&next).unwrap();
    client
        .batch_execute("CREATE OR REPLACE FUNCTION ct(rt) RETURNS json LANGUAGE sql IMMUTABLE AS $$SELECT to_json(CASE $1 WHEN 'A' THEN 'B' ELSE 'A' END)$$")
        .unwrap();
    assert_eq!(refused(client.batch_execute(&next)).0, "55000");
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 90);
}

#[test]
fn no_row_keeps_others_from_being_read_by_what_a_json_has_in_it() {
    let (_cluster, mut client) = database("json_as_a_part");
    client.batch_execute("ALTER TABLE job ADD js json, ADD jb jsonb, ADD tags text[], ADD big text").unwrap();
    for column in ["jb", "tags"] {
        let write = format!(
            "UPDATE backlog_cleanup.target SET recipe_column = NULL, recipe_columns = '{{queue,{column}}}' WHERE name = 't'"
        );
        let (sqlstate, message, hint) = refused(client.batch_execute(&write));
        assert_eq!(sqlstate, "0A000", "{message}");
        client.batch_execute(&hint).unwrap();
    }
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET recipe_column = NULL, recipe_columns = '{js,big}' WHERE name = 't';
             UPDATE job SET js = '{\"a\":\"\\u0000\"}' WHERE id = 1;
             UPDATE job SET js = (repeat('[', 3000) || repeat(']', 3000))::json WHERE id = 2;
             UPDATE job SET big = repeat('x', 268435456) WHERE id = 3",
        )
        .unwrap();
    client.batch_execute("SET ROLE op; SELECT backlog_cleanup_failed_generations('t', dry_run => true)").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM backlog_cleanup_status('t')"), 4);
    client.batch_execute("SELECT backlog_cleanup_emergency('t'); RESET ROLE").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
}

#[test]
fn ids_of_an_extension_with_an_order_of_its_own_are_refused_by_key() {
    let (_cluster, mut client) = database("order_of_ids");
    client
        .batch_execute(
            "CREATE EXTENSION citext; CREATE EXTENSION postgres_fdw; CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw;
             CREATE FOREIGN TABLE far (id citext, owner text, queue text, state text, at timestamptz, error text) SERVER remote",
        )
        .unwrap();
    let write = "UPDATE backlog_cleanup.target SET generations_table = 'public.far' WHERE name = 't'";
    let (sqlstate, _, hint) = refused(client.batch_execute(write));
    assert_eq!(sqlstate, "0A000");
    client.batch_execute(&hint).unwrap();
    client.batch_execute(write).unwrap();
    // A child of before it was refused.
    client
        .batch_execute(
            "CREATE TABLE g (LIKE job INCLUDING DEFAULTS); ALTER TABLE g ALTER id TYPE citext, ALTER id DROP NOT NULL;
             UPDATE backlog_cleanup.target SET generations_table = 'public.g' WHERE name = 't';
             ALTER TABLE far ALTER id TYPE citext, INHERIT g",
        )
        .unwrap();
    assert_eq!(refused(client.batch_execute("SELECT backlog_cleanup_failed_generations('t')")).0, "0A000");
}

#[test]
fn no_setting_of_the_caller_says_when_a_row_has_failed() {
    let (cluster, mut client) = database("abbreviations");
    let write = |zone: &str| format!("UPDATE backlog_cleanup.target SET time_zone = '{zone}' WHERE name = 't'");
    for zone in ["EST", "est", "IST", "CST", "MST", "CET", "CEST"] {
        assert_eq!(refused(client.batch_execute(&write(zone))).0, "22023", "{zone}");
    }
    for zone in ["UTC", "GMT", "America/New_York", "EST5EDT", "-05:00", "UTC+5"] {
        client.batch_execute(&write(zone)).unwrap();
    }
    // One from before it was refused.
    client
        .batch_execute(&format!(
            "ALTER TABLE backlog_cleanup.target DISABLE TRIGGER USER; {};
             ALTER TABLE backlog_cleanup.target ENABLE TRIGGER USER;
             ALTER TABLE job ALTER at DROP DEFAULT, ALTER at TYPE timestamp USING timezone('EST', now() - interval '10 hours')",
            write("EST")
        ))
        .unwrap();
    let mut operator = cluster.connect_to("abbreviations");
    operator.batch_execute("SET SESSION AUTHORIZATION op; SET timezone_abbreviations = 'Australia'").unwrap();
    operator.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
    operator.batch_execute("CALL backlog_cleanup_run('t')").unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 100);
}

#[test]
fn what_code_of_the_table_holds_by_the_time_zone_or_the_like_it_holds_whoever_calls() {
    let (cluster, mut client) = database("alike");
    client
        .batch_execute(
            "ALTER DATABASE alike SET TimeZone = 'Asia/Tokyo'; ALTER DATABASE alike SET DateStyle = 'German, DMY';
             CREATE TABLE seen (said text); ALTER TABLE seen OWNER TO app;
             CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO seen SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
                     WHERE name IN ('TimeZone', 'DateStyle', 'default_text_search_config', 'xmloption', 'xmlbinary', 'lc_time', 'lc_numeric',
                                    'gin_fuzzy_search_limit');
                     RETURN OLD;
                 END $$; ALTER FUNCTION tell OWNER TO app;
             CREATE TRIGGER tell BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION tell()",
        )
        .unwrap();
    let own = "SET TimeZone = 'Etc/GMT+12'; SET DateStyle = 'SQL, YMD'; SET default_text_search_config = 'pg_catalog.german'; SET xmloption = document;
               SET xmlbinary = hex; SET lc_time = 'C.UTF-8'; SET lc_numeric = 'C.UTF-8'; SET gin_fuzzy_search_limit = 1;";
    let run = "SELECT backlog_cleanup_failed_generations('t')";
    // Each removes three rows more.
    for (keep, before) in [
        (97, ""),
        (94, own),
        (91, "SET SESSION AUTHORIZATION op;"),
        (88, &format!("SET SESSION AUTHORIZATION op; {own}")),
        (85, &format!("SET SESSION AUTHORIZATION app; {own}")),
    ] {
        client.batch_execute(&format!("SELECT backlog_cleanup_set_policy(keep => {keep}, target => 't'), backlog_cleanup_grant('app', 'operator')")).unwrap();
        let mut caller = cluster.connect_to("alike");
        caller.batch_execute(&format!("{before} SET row_security = on")).unwrap();
        let shown =
            "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE source = 'session'";
        let settings: String = value(&mut caller, shown);
        caller.batch_execute(run).unwrap();
        assert_eq!(value::<String>(&mut caller, shown), settings, "{before}");
    }
    // Neither what a client asks for when it connects, though it is what the database has, nor what a role has by ALTER ROLE.
    client.batch_execute("ALTER ROLE op SET DateStyle = 'SQL, YMD'; ALTER ROLE op SET default_text_search_config = 'pg_catalog.german'").unwrap();
    for (keep, options) in [(82, "-c TimeZone=Asia/Tokyo"), (79, "-c TimeZone=Etc/GMT+12 -c xmloption=document")] {
        client.batch_execute(&format!("SELECT backlog_cleanup_set_policy(keep => {keep}, target => 't')")).unwrap();
        let mut caller = cluster.configuration("alike").user("op").options(options).connect(NoTls).unwrap();
        caller.batch_execute(run).unwrap();
    }
    client.batch_execute("ALTER ROLE op RESET ALL").unwrap();
    let seen = "SELECT count(*) || ' ' || (said ~ 'DateStyle=ISO, DMY TimeZone=Asia/Tokyo ')::text FROM seen GROUP BY said ORDER BY count(*) DESC";
    assert_eq!(column::<String>(&mut client, seen), ["21 true"]);
}

#[test]
fn what_the_server_was_started_with_is_what_code_sees_whatever_a_client_asks_for() {
    let cluster = Cluster::start("timezone = 'Asia/Tokyo'\n");
    let mut client = cluster.connect();
    client
        .batch_execute(PRELUDE)
        .and_then(|()| {
            client.batch_execute(
                "CREATE TABLE seen (said text); ALTER TABLE seen OWNER TO app;
                 CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN INSERT INTO seen VALUES (current_setting('TimeZone')); RETURN OLD; END $$;
                 ALTER FUNCTION tell OWNER TO app;
                 CREATE TRIGGER tell BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION tell();
                 SELECT backlog_cleanup_set_policy(keep => 0, target => 't')",
            )
        })
        .unwrap();
    let sees = |zone: &str| {
        let mut client = cluster.connect();
        client
            .batch_execute("TRUNCATE seen; INSERT INTO job (id) SELECT generate_series(1, 3) ON CONFLICT DO NOTHING")
            .unwrap();
        let mut caller = cluster.configuration("postgres").options("-c TimeZone=Etc/GMT+12").connect(NoTls).unwrap();
        caller.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
        assert_eq!(column::<String>(&mut client, "SELECT DISTINCT said FROM seen"), [zone]);
    };
    for (options, zone) in [
        ("-c TimeZone=Europe/Berlin", "Europe/Berlin"),
        ("-cTimeZone=UTC --timezone=Asia/Kolkata", "Asia/Kolkata"),
        ("", "Asia/Tokyo"),
    ] {
        cluster.restart_with_options(options);
        sees(zone);
    }
    // While a line is wrong, the server keeps what it has.
    cluster.set("max_conections = 5");
    cluster.connect().batch_execute("SELECT pg_reload_conf()").unwrap();
    sees("Asia/Tokyo");
}

#[test]
fn labels_that_are_swapped_within_a_run_end_it() {
    for call in ["SELECT backlog_cleanup_emergency('t')", "CALL backlog_cleanup_run('t', mode => 'emergency')"] {
        let name = if call.starts_with("CALL") { "labels_in_a_batch" } else { "labels_in_a_run" };
        let (cluster, mut client) = database(name);
        client
            .batch_execute(
                "CREATE TYPE st AS ENUM ('failed', 'done', 'x');
                 CREATE TABLE p (id int, owner text DEFAULT 'w', queue text DEFAULT 'a', state st, at timestamptz DEFAULT now() - interval '9 days', error text)
                     PARTITION BY RANGE (id);
                 CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
                 INSERT INTO p (id, state) SELECT i, CASE WHEN i < 150 THEN 'failed' ELSE 'done' END::st FROM generate_series(0, 199) i;
                 UPDATE backlog_cleanup.target SET generations_table = 'public.p' WHERE name = 't';
                 CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN OLD; END';
                 CREATE TRIGGER wait BEFORE DELETE ON p1 FOR EACH ROW WHEN (OLD.id = 0) EXECUTE FUNCTION wait();
                 SELECT pg_advisory_lock(7)",
            )
            .unwrap();
        let mut operator = cluster.connect_to(name);
        let run = std::thread::spawn(move || refused(operator.batch_execute(call)));
        cluster::until_true(
            &mut client,
            "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        );
        client
            .batch_execute(
                "ALTER TYPE st RENAME VALUE 'failed' TO 'y'; ALTER TYPE st RENAME VALUE 'done' TO 'failed'; ALTER TYPE st RENAME VALUE 'y' TO 'done'",
            )
            .unwrap();
        // Behind the commit.
        client.batch_execute("SELECT pg_advisory_unlock(7)").unwrap();
        let (sqlstate, message, _) = run.join().unwrap();
        assert!(["40001", "55000"].contains(&&*sqlstate), "{call}: {sqlstate} {message}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM p"), 200, "{call}");
    }
}

#[test]
fn a_status_whose_text_is_a_name_of_an_object_is_refused() {
    let (_cluster, mut client) = database("status_of_names");
    client.batch_execute("ALTER TABLE job ADD kind regclass").unwrap();
    let write = "UPDATE backlog_cleanup.target SET status_column = 'kind', statuses = '{job}' WHERE name = 't'";
    let (sqlstate, message, _) = refused(client.batch_execute(write));
    assert_eq!(sqlstate, "42804", "{message}");
    assert!(message.contains("whose text changes with the name of what it shows"), "{message}");
}

#[test]
fn labels_that_are_swapped_between_two_batches_refuse_the_next() {
    for (name, made, value) in [
        ("labels", "CREATE DOMAIN rd AS rt", "l::rd"),
        ("labels_in_rows", "CREATE TYPE rd AS (label rt, number int)", "ROW(l, 1)::rd"),
        ("labels_in_ranges", "CREATE TYPE rd AS RANGE (SUBTYPE = rt)", "rd(l, l, '[]')"),
    ] {
        labels_are_swapped(name, made, value);
    }
}

#[test]
fn attributes_that_are_renamed_into_each_other_refuse_the_next_batch() {
    let (_cluster, mut client) = database("attributes");
    client
        .batch_execute(
            "CREATE TYPE pair AS (goes boolean, stays boolean); ALTER TYPE pair OWNER TO app; CREATE DOMAIN pairs AS pair[];
             ALTER TABLE job ADD p pairs; UPDATE job SET p = ARRAY[ROW(id <= 50, id > 50)::pair];
             UPDATE backlog_cleanup.target SET condition = '((p[1]).goes)' WHERE name = 't'",
        )
        .unwrap();
    for call in ["regular", "emergency"] {
        let start = format!(
            "SELECT backlog_cleanup.start_run('{{\"target\":\"t\",\"mode\":\"{call}\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false,\"include_held\":false}}')"
        );
        let run = count(&mut client, &start);
        let next = format!("SELECT backlog_cleanup.next_batch({run})");
        client.batch_execute(&next).unwrap();
        client.batch_execute("ALTER TYPE pair ADD ATTRIBUTE other int").unwrap();
        client.batch_execute(&next).unwrap();
        client
            .batch_execute(
                "ALTER TYPE pair RENAME ATTRIBUTE goes TO x; ALTER TYPE pair RENAME ATTRIBUTE stays TO goes;
                 ALTER TYPE pair RENAME ATTRIBUTE x TO stays",
            )
            .unwrap();
        assert_eq!(refused(client.batch_execute(&next)).0, "55000", "{call}");
        let others = "SELECT count(*) FROM job WHERE id > 50";
        assert_eq!(count(&mut client, others), 50, "{call}");
        client
            .batch_execute(
                "ALTER TYPE pair RENAME ATTRIBUTE goes TO x; ALTER TYPE pair RENAME ATTRIBUTE stays TO goes;
                 ALTER TYPE pair RENAME ATTRIBUTE x TO stays; ALTER TYPE pair DROP ATTRIBUTE other",
            )
            .unwrap();
    }
}

#[test]
fn labels_and_attributes_that_an_expression_only_goes_through_are_those_of_its_start() {
    let (_cluster, mut client) = database("between");
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('bad', 'good'); ALTER TYPE mood OWNER TO app;
             CREATE TYPE pair AS (bad boolean, good boolean); ALTER TYPE pair OWNER TO app;
             CREATE FUNCTION mood_of(bigint) RETURNS mood IMMUTABLE LANGUAGE plpgsql AS
                 $$BEGIN RETURN CASE WHEN $1 <= 50 THEN enum_first(NULL::public.mood) ELSE enum_last(NULL::public.mood) END; END$$;
             CREATE FUNCTION pair_of(bigint) RETURNS pair IMMUTABLE LANGUAGE sql AS 'SELECT ROW($1 <= 50, $1 > 50)::public.pair';
             CREATE FUNCTION is_bad(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN public.mood_of($1) = 'bad'::public.mood;
             CREATE FUNCTION is_strictly_bad(bigint) RETURNS boolean IMMUTABLE STRICT LANGUAGE sql
                 BEGIN ATOMIC SELECT coalesce(public.mood_of($1) = 'bad'::public.mood, false); END;
             CREATE FUNCTION says_bad(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT public.mood_of($1) = 'bad'::public.mood$$;
             CREATE FUNCTION folds_pair(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT (ROW($1 <= 50, $1 > 50)::public.pair).bad$$;
             CREATE FUNCTION folds_mood(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT CASE WHEN 'bad'::public.mood < 'good'::public.mood THEN $1 <= 50 ELSE $1 > 50 END$$;
             CREATE TYPE \"Odd Mood\" AS ENUM ('bad', 'good'); ALTER TYPE \"Odd Mood\" OWNER TO app;
             CREATE FUNCTION is_odd(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT CASE WHEN 'bad'::public.\"Odd Mood\" < 'good' THEN $1 <= 50 ELSE $1 > 50 END$$;
             CREATE FUNCTION is_odd(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN public.is_odd($1::bigint); END$$;
             CREATE TYPE carrier AS (v boolean); ALTER TYPE carrier OWNER TO app;
             CREATE FUNCTION to_carrier(text) RETURNS carrier IMMUTABLE STRICT LANGUAGE sql AS
                 $$SELECT ROW('bad'::public.mood < 'good'::public.mood)::public.carrier$$;
             CREATE CAST (text AS carrier) WITH FUNCTION to_carrier(text);
             CREATE FUNCTION is_cast(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
                 $$BEGIN RETURN (($1::public.carrier).v) = ($1::bigint <= 50); END$$;
             CREATE FUNCTION is_small(bigint) RETURNS boolean IMMUTABLE STRICT LANGUAGE sql AS
                 $$SELECT ('bad'::public.mood < 'good'::public.mood) = ($1 <= 50)$$;
             CREATE DOMAIN small AS bigint CHECK (public.is_small(VALUE));
             CREATE FUNCTION is_checked(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
                 $$BEGIN PERFORM $1::public.small; RETURN true; EXCEPTION WHEN check_violation THEN RETURN false; END$$;
             CREATE OPERATOR !!! (RIGHTARG = bigint, FUNCTION = folds_mood);
             CREATE FUNCTION calls_folds(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN !!! $1; END$$",
        )
        .unwrap();
    // Names and symbols as PostgreSQL's lexer has them, and types that have another name in the text.
    client
        .batch_execute(
            "CREATE TYPE größe AS ENUM ('bad', 'good'); ALTER TYPE größe OWNER TO app;
             CREATE TABLE moods (m mood); ALTER TABLE moods OWNER TO app;
             CREATE FUNCTION same(bigint, bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT ('bad'::public.mood < 'good'::public.mood) = ($1 <= 51 + $2)$$;
             CREATE OPERATOR === (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = same);
             CREATE FUNCTION is_large(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT CASE WHEN 'bad'::public.größe < 'good'::public.größe THEN $1 <= 50 ELSE $1 > 50 END$$;
             CREATE FUNCTION is_escaped(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT CASE WHEN 'bad'::public.U&\"m\\006fod\" < 'good'::public.U&\"\\+00006Dood\" THEN $1 <= 50 ELSE $1 > 50 END$$;
             CREATE FUNCTION differs(bigint, bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT ('bad'::public.mood < 'good'::public.mood) = ($1 <= 50)$$;
             CREATE SCHEMA odd; GRANT USAGE ON SCHEMA odd TO app; CREATE OPERATOR odd.<> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = differs);
             CREATE FUNCTION is_unequal(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql SET search_path = odd, pg_catalog AS
                 $$BEGIN RETURN $1!=0::bigint; END$$;
             CREATE VIEW is_first AS SELECT 'bad'::mood < 'good'::mood AS yes;
             CREATE TYPE \"the mood\" AS ENUM ('bad', 'good'); ALTER TYPE \"the mood\" OWNER TO app; GRANT SELECT ON is_first TO app;
             CREATE FUNCTION is_among(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql SET search_path = odd, pg_catalog AS
                 $$BEGIN RETURN $1 NOT IN (0::bigint); END$$;
             CREATE FUNCTION is_viewed(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
                 $$BEGIN RETURN (SELECT yes FROM public.is_first) = ($1 <= 50); END$$;
             CREATE FUNCTION is_quoted(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$-- 5\" and more
                   SELECT CASE WHEN 'bad'::public.\"the mood\" < 'good' THEN $1 <= 50 ELSE $1 > 50 END$$;
             CREATE FUNCTION is_behind(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN $1/* x */===(-1)::bigint; END$$;
             CREATE FUNCTION is_signed(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN $1 OPERATOR(public.===)-1::bigint; END$$;
             CREATE FUNCTION is_close(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN $1===-1::bigint; END$$;
             CREATE FUNCTION is_commented(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN $1===/* x */(-1)::bigint; END$$;
             CREATE FUNCTION is_array(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS
                 $$SELECT CASE WHEN '{bad}'::public._mood < '{good}'::public._mood THEN $1 <= 50 ELSE $1 > 50 END$$;
             CREATE FUNCTION is_typed(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
                 $$DECLARE a public.moods.m%TYPE := 'bad'; b public.moods.m%TYPE := 'good';
                   BEGIN RETURN CASE WHEN a < b THEN $1 <= 50 ELSE $1 > 50 END; END$$",
        )
        .unwrap();
    for (condition, rename) in [
        ("(mood_of(id) = ''bad''::mood)", "ALTER TYPE mood RENAME VALUE"),
        ("((pair_of(id)).bad)", "ALTER TYPE pair RENAME ATTRIBUTE"),
        ("(is_bad(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_strictly_bad(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(says_bad(id))", "ALTER TYPE mood RENAME VALUE"),
        // What PostgreSQL makes of these has no type any more.
        ("(folds_pair(id))", "ALTER TYPE pair RENAME ATTRIBUTE"),
        ("(folds_mood(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_odd(id::text))", "ALTER TYPE \"Odd Mood\" RENAME VALUE"),
        ("(calls_folds(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_cast(id::text))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_checked(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_large(id))", "ALTER TYPE größe RENAME VALUE"),
        ("(is_escaped(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_signed(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_unequal(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_behind(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_among(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_viewed(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_quoted(id))", "ALTER TYPE \"the mood\" RENAME VALUE"),
        ("(is_close(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_commented(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_array(id))", "ALTER TYPE mood RENAME VALUE"),
        ("(is_typed(id))", "ALTER TYPE mood RENAME VALUE"),
    ] {
        client
            .batch_execute(&format!("UPDATE backlog_cleanup.target SET condition = '{condition}' WHERE name = 't'"))
            .unwrap();
        let run = count(
            &mut client,
            "SELECT backlog_cleanup.start_run('{\"target\":\"t\",\"mode\":\"emergency\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false,\"include_held\":false}')",
        );
        let next = format!("SELECT backlog_cleanup.next_batch({run})");
        client.batch_execute(&next).unwrap();
        let quoted = |name: &str| if rename.ends_with("VALUE") { format!("'{name}'") } else { name.to_owned() };
        let swap = [("bad", "x"), ("good", "bad"), ("x", "good")]
            .map(|(from, to)| format!("{rename} {} TO {}", quoted(from), quoted(to)))
            .join("; ");
        client.batch_execute(&swap).unwrap();
        assert_eq!(refused(client.batch_execute(&next)).0, "55000", "{condition}");
        assert_eq!(count(&mut client, "SELECT count(*) FROM job WHERE id > 50"), 50, "{condition}");
        client.batch_execute(&swap).unwrap();
    }
}

#[test]
fn what_has_the_name_of_a_word_of_a_body_by_chance_ends_no_run_and_many_functions_stall_none() {
    let (_cluster, mut client) = database("by_chance");
    client
        .batch_execute(
            "CREATE TYPE label AS ENUM ('a'); ALTER TYPE label OWNER TO app;
             CREATE FUNCTION kind(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
                 $$DECLARE result text; of label; BEGIN result := lower($1); RETURN result; END$$; ALTER FUNCTION kind OWNER TO app;
             CREATE TABLE result (id int); ALTER TABLE result OWNER TO app; CREATE SCHEMA evil AUTHORIZATION evil;
             SET ROLE evil; CREATE TYPE evil.lower AS ENUM ('a'); CREATE TYPE evil.t AS ENUM ('a');
             CREATE FUNCTION evil.of(label) RETURNS evil.t LANGUAGE sql AS $$SELECT NULL::evil.t$$;
             CREATE CAST (label AS evil.t) WITH FUNCTION evil.of(label); RESET ROLE;
             UPDATE backlog_cleanup.target SET recipe_column = '(public.kind(queue))' WHERE name = 't'",
        )
        .unwrap();
    let run = count(
        &mut client,
        "SELECT backlog_cleanup.start_run('{\"target\":\"t\",\"mode\":\"emergency\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false,\"include_held\":false}')",
    );
    let next = format!("SELECT backlog_cleanup.next_batch({run})");
    client.batch_execute(&next).unwrap();
    client
        .batch_execute(
            "ALTER TABLE result RENAME id TO key; ALTER TYPE evil.lower RENAME VALUE 'a' TO 'b'; ALTER TYPE evil.t RENAME VALUE 'a' TO 'b';
             SET ROLE evil; CREATE TYPE evil.u AS ENUM ('a');
             CREATE FUNCTION evil.of_u(label) RETURNS evil.u LANGUAGE sql AS $$SELECT NULL::evil.u$$;
             CREATE CAST (label AS evil.u) WITH FUNCTION evil.of_u(label); RESET ROLE;
             CREATE TYPE \"declare\" AS ENUM ('a')",
        )
        .unwrap();
    client.batch_execute(&next).unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 80);
    client
        .batch_execute(
            "DO $$BEGIN
                 FOR i IN 1..3000 LOOP
                     EXECUTE format('CREATE FUNCTION fn_%s(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS %L', i,
                                    (SELECT 'BEGIN RETURN concat(' || string_agg('public.fn_' || 1 + (i * 7 + n * 31) % 3000 || '($1)', ', ') || '); END'
                                     FROM generate_series(1, 30) n));
                 END LOOP;
             END$$;
             CREATE OR REPLACE FUNCTION kind(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
                 $$BEGIN IF $1 = '' THEN RETURN fn_1($1); END IF; RETURN lower($1); END$$;
             SET statement_timeout = '20 s'",
        )
        .unwrap();
    client.batch_execute("SELECT * FROM backlog_cleanup_status('t')").unwrap();
    client
        .batch_execute(&format!("SELECT backlog_cleanup.finish_run({run}); SELECT backlog_cleanup_emergency('t')"))
        .unwrap();
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 0);
}

/// The recipes are of a type that is `made` of an enum, each with the `value` of a label `l`.
fn labels_are_swapped(name: &str, made: &str, value: &str) {
    let (_cluster, mut client) = database(name);
    client
        .batch_execute(&format!(
            "CREATE TYPE rt AS ENUM ('A', 'B'); {made};
             CREATE FUNCTION of_label(l rt) RETURNS rd LANGUAGE sql IMMUTABLE AS $$SELECT {value}$$;
             ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE rd USING of_label(CASE WHEN id % 2 = 0 THEN 'A' ELSE 'B' END::rt);
             DROP FUNCTION of_label; ALTER TYPE rt OWNER TO app; ALTER TYPE rd OWNER TO app;
             UPDATE job SET at = at - interval '1 day' * (id % 2)"
        ))
        .unwrap();
    let start = "SELECT backlog_cleanup.start_run('{\"target\":\"t\",\"mode\":\"regular\",\"batch_size\":10,\"pause\":\"0\",\"workers\":1,\"force\":false,\"include_held\":false}')";
    let run = count(&mut client, start);
    let next = format!("SELECT backlog_cleanup.next_batch({run})");
    client.batch_execute(&next).unwrap();
    client.batch_execute("ALTER TYPE rt ADD VALUE 'C'").unwrap();
    client.batch_execute(&next).unwrap();
    client
        .batch_execute(
            "ALTER TYPE rt RENAME VALUE 'A' TO 'X'; ALTER TYPE rt RENAME VALUE 'B' TO 'A'; ALTER TYPE rt RENAME VALUE 'X' TO 'B'",
        )
        .unwrap();
    client.batch_execute("VACUUM FULL job").unwrap();
    assert_eq!(refused(client.batch_execute(&next)).0, "55000");
    assert_eq!(count(&mut client, "SELECT count(*) FROM job"), 80);
}
