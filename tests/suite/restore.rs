//! Dump and restore in every format, and what DROP EXTENSION leaves behind.

use cluster::{
    Cluster, PG_CRON, balance, column, fail, number, numbers, refused, start_run, truth, value, with_pg_cron,
};
use postgres::Client;

#[test]
fn every_format_carries_everything_and_a_run_that_was_at_work_is_interrupted() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    fail(&mut client, 1, 15);
    client
        .batch_execute(
            "INSERT INTO backlog_cleanup.target (name) VALUES ('second');
             -- As an earlier version has let it in.
             SET session_replication_role = replica;
             UPDATE backlog_cleanup.policy SET recipe_id = '1' WHERE target = 'second';
             RESET session_replication_role;
             UPDATE backlog_cleanup.policy SET keep = 3, note = 'kept' WHERE recipe_id IS NULL;
             SELECT backlog_cleanup_failed_generations(recipe_id => '1');
             UPDATE backlog_cleanup.policy SET keep = 0 WHERE recipe_id IS NULL;
             UPDATE backlog_cleanup.alert_rule SET threshold = 7, resolve_at = 5 WHERE kind = 'rows_in_scope';
             DELETE FROM backlog_cleanup.alert_rule WHERE kind = 'dead_rows';
             INSERT INTO backlog_cleanup.alert_rule (name, kind, target, threshold) VALUES ('own', 'kept_back', 'second', 9);
             INSERT INTO backlog_cleanup.alert (rule, target, value, threshold, sentence) VALUES ('own', 'second', 10, 9, 'open')",
        )
        .unwrap();
    client.batch_execute(&start_run(2)).unwrap();
    client.batch_execute("SELECT backlog_cleanup.next_batch(2)").unwrap();
    let dump = cluster.program("pg_dump", &["postgres"]);
    let dir = tempfile::tempdir().unwrap();
    for format in ["-Fc", "-Fd", "policies first"] {
        let file = dir.path().join(format);
        let file = file.to_str().unwrap();
        let how: &[&str] = if format == "-Fd" { &["-Fd", "-j2"] } else { &["-Fc"] };
        cluster.program("pg_dump", &[how, &["-f", file, "postgres"]].concat());
        let restored = Cluster::start(PG_CRON);
        let list = dir.path().join("list");
        let jobs: &[&str] = match format {
            "-Fd" => &["-j2"],
            "policies first" => {
                // As a parallel restore may have it.
                let entries = restored.program("pg_restore", &["-l", file]);
                let (policies, others): (Vec<&str>, Vec<&str>) =
                    entries.lines().partition(|entry| entry.contains("TABLE DATA backlog_cleanup policy"));
                let target =
                    others.iter().position(|entry| entry.contains("TABLE DATA backlog_cleanup target")).unwrap();
                let entries = [&others[..target], &policies[..], &others[target..]].concat();
                assert_eq!(policies.len(), 1);
                std::fs::write(&list, entries.join("\n")).unwrap();
                &["-L", list.to_str().unwrap()]
            }
            _ => &[],
        };
        restored.program("pg_restore", &[jobs, &["-e", "-d", "postgres", file]].concat());
        let again = restored.program("pg_dump", &["postgres"]);
        let lines = |dump: &str| -> Vec<String> {
            // In the order of the rows, which a parallel restore may change, there is nothing.
            let mut lines: Vec<String> =
                dump.lines().filter(|line| !line.contains("restrict ")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let (before, after) = (lines(&dump), lines(&again));
        let changed: Vec<&String> = after.iter().filter(|line| before.binary_search(line).is_err()).collect();
        assert!(matches!(changed[..], [run] if run.contains("\tinterrupted\t")), "{format:?}: {changed:?}");
        assert_eq!(before.len(), after.len(), "{format:?}");

        let mut client = restored.connect();
        let of_interrupted = "SELECT (r.cleaned, r.failed, removed, state) = (removed, 3, 2, 'interrupted')
             FROM backlog_cleanup.run CROSS JOIN LATERAL (
                 SELECT sum((detail ->> 'cleanedCount')::bigint), sum((detail ->> 'failedCount')::bigint)
                 FROM jsonb_array_elements(backlog_cleanup_run_details(id)) detail) r (cleaned, failed)
             WHERE batches > 0 AND batch_size = 2";
        assert!(truth(&mut client, of_interrupted), "{format}");
        assert_eq!(balance(&mut client, 15), 14);
        client.batch_execute("CALL backlog_cleanup_run()").unwrap();
        assert_eq!(balance(&mut client, 15), 15);
        assert!(truth(&mut client, of_interrupted), "{format}");
        let summed_up =
            "SELECT bool_and(removed = (SELECT coalesce(sum(cleaned_count), 0) FROM backlog_cleanup.run_recipe
                                                    WHERE run_id = id)) FROM backlog_cleanup.run";
        assert!(truth(&mut client, summed_up), "{format}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM cron.job"), 1);
    }
}

/// How many rows each catalog has.
const CATALOGS: &str = "
    SELECT format('%s %s', c.relname, query_to_xml(format('SELECT count(*) FROM %s', c.oid::regclass), false, true, ''))
    FROM pg_class c
    WHERE (c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('pg_statistic', 'pg_largeobject')
           OR c.oid = 'cron.job'::regclass)
    ORDER BY 1";

#[test]
fn a_default_target_that_a_dump_is_without_is_not_there_after_the_restore() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET name = 'renamed';
             SELECT backlog_cleanup_set_policy('1', enabled => false, target => 'renamed');
             INSERT INTO backlog_cleanup.target (name) VALUES ('zoo'), ('another');
             DELETE FROM backlog_cleanup.alert_rule WHERE name = 'books';
             UPDATE backlog_cleanup.alert_rule SET name = 'many rows' WHERE name = 'rows in scope';
             SELECT backlog_cleanup_tick()",
        )
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump");
    let file = file.to_str().unwrap();
    let all = "SELECT string_agg(t.name || coalesce(' ' || recipe_id, '') || enabled, ', ' ORDER BY t.name, recipe_id)
               FROM backlog_cleanup.target t LEFT JOIN backlog_cleanup.policy ON target = t.name";
    let rules = "SELECT string_agg(name, ', ' ORDER BY name) || (SELECT count(*) FROM backlog_cleanup.sample) FROM backlog_cleanup.alert_rule";
    for with_default in [false, true] {
        if with_default {
            client
                .batch_execute(
                    "INSERT INTO backlog_cleanup.target (name) VALUES ('generations');
                     SELECT backlog_cleanup_set_policy('2', enabled => false)",
                )
                .unwrap();
        }
        let (expected, expected_rules): (String, String) = (value(&mut client, all), value(&mut client, rules));
        for (place, how) in [&["-e"][..], &["-e", "-1"], &["-e", "-j", "2"]].into_iter().enumerate() {
            let name = format!("restored_{with_default}_{place}");
            client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
            cluster.program("pg_dump", &["-Fc", "-f", file, "postgres"]);
            cluster.program("pg_restore", &[how, &["-d", &name, file]].concat());
            let mut restored = cluster.connect_to(&name);
            assert_eq!(value::<String>(&mut restored, all), expected, "{how:?}");
            assert_eq!(value::<String>(&mut restored, rules), expected_rules, "{how:?}");
        }
    }
}

#[test]
fn a_restored_target_takes_none_away_that_somebody_has_written_or_uses() {
    let cluster = Cluster::start("");
    const WRITTEN: &str = "
        INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column,
                                            recipe_column, status_column, failed_at_column, failure_type_column, account)
        SELECT name, 'public.' || name, NULL, NULL, NULL, 'owner', 'queue', 'state', 'at', 'error', 'w' FROM unnest('{a,b}'::text[]) name;
        INSERT INTO backlog_cleanup.policy (target, recipe_id, enabled) VALUES ('a', 'legal', false);
        DELETE FROM backlog_cleanup.policy WHERE target = 'b'";
    let all = "SELECT (SELECT string_agg(name, ', ' ORDER BY name) FROM backlog_cleanup.target WHERE name <> 'c') || ': '
                   || (SELECT string_agg(concat_ws(' ', target, recipe_id), ', ' ORDER BY target, recipe_id) FROM backlog_cleanup.policy
                       WHERE target <> 'c')";
    for (name, created, then) in [
        // A migration in one transaction.
        (
            "migrated",
            format!(
                "CREATE EXTENSION backlog_cleanup; {WRITTEN}; UPDATE backlog_cleanup.target SET lock_timeout = lock_timeout"
            ),
            // What is thought better of changes nothing.
            "BEGIN; DELETE FROM backlog_cleanup.target WHERE name = 'a'; UPDATE backlog_cleanup.target SET lock_timeout = '1s'; ROLLBACK",
        ),
        (
            "upgraded",
            format!("CREATE EXTENSION backlog_cleanup VERSION '0.2.0'; {WRITTEN}"),
            "ALTER EXTENSION backlog_cleanup UPDATE",
        ),
        ("used", format!("CREATE EXTENSION backlog_cleanup; {WRITTEN}"), "SELECT backlog_cleanup_failed_generations()"),
    ] {
        let mut client = cluster.platform_in(name);
        client
            .batch_execute(
                "DROP EXTENSION backlog_cleanup;
                 CREATE TABLE a (id int PRIMARY KEY, owner text, queue text, state text, at timestamptz, error text);
                 CREATE TABLE b (LIKE a INCLUDING ALL); CREATE TABLE c (LIKE a INCLUDING ALL)",
            )
            .unwrap();
        client.batch_execute(&created).unwrap();
        client.batch_execute(then).unwrap();
        let before: String = value(&mut client, all);
        assert!(before.starts_with("a, b, generations: "), "{before}");
        let restored = WRITTEN.split_once(';').unwrap().0.replace("{a,b}", "{c}");
        // As pg_dump's output begins.
        client.batch_execute("SET xmloption = content; SET check_function_bodies = off").unwrap();
        client.batch_execute(&restored).unwrap();
        assert_eq!(value::<String>(&mut client, all), before, "{name}");
    }
}

#[test]
fn a_target_at_the_place_of_the_one_that_was_made_with_the_extension_stays() {
    let cluster = Cluster::start("");
    let delete = "DELETE FROM backlog_cleanup.target WHERE name = 'generations'";
    for (name, gone, then) in [
        ("packed", delete, "VACUUM FULL backlog_cleanup.target; VACUUM FULL backlog_cleanup.policy"),
        (
            "sorted",
            delete,
            "CLUSTER backlog_cleanup.target USING target_pkey; CLUSTER backlog_cleanup.policy USING policy_names_key",
        ),
        ("emptied", "TRUNCATE backlog_cleanup.target CASCADE", "SELECT 1"),
    ] {
        let mut client = cluster.platform_in(name);
        client.batch_execute("DROP EXTENSION backlog_cleanup").unwrap();
        client
            .batch_execute(&format!(
                "CREATE EXTENSION backlog_cleanup; {gone}; INSERT INTO backlog_cleanup.target (name) VALUES ('mine');
                 UPDATE backlog_cleanup.policy SET enabled = false WHERE target = 'mine'"
            ))
            .unwrap();
        then.split("; ").for_each(|then| client.batch_execute(then).unwrap());
        client.batch_execute("SET xmloption = content; SET check_function_bodies = off").unwrap();
        client.batch_execute("INSERT INTO backlog_cleanup.target (name) VALUES ('c')").unwrap();
        let left = "SELECT string_agg(target || ' ' || enabled, ', ' ORDER BY target) FROM backlog_cleanup.policy";
        assert_eq!(value::<String>(&mut client, left), "mine false", "{name}");
    }
}

#[test]
fn what_a_dump_has_of_a_target_may_come_before_it() {
    let cluster = Cluster::start("");
    let mut client = cluster.platform();
    client
        .batch_execute(
            "SET xmloption = content; SET check_function_bodies = off;
             INSERT INTO backlog_cleanup.sample (target, grain, sampled_at, milliseconds) VALUES ('z', 'day', now(), 1), ('z', 'hour', now(), 1);
             INSERT INTO backlog_cleanup.auto_schedule (job_id, username, target, hour, schedule, is_known, moved_at)
             VALUES (7, 'postgres', 'y', 2, '0 2 * * *', false, now());
             INSERT INTO backlog_cleanup.alert_rule (name, kind, target, threshold) VALUES ('mine', 'kept_back', 'generations', 3)",
        )
        .unwrap();
    // Until it has come, and if it never does, there is no table.
    client.batch_execute("INSERT INTO backlog_cleanup.policy (target, max_age, keep) VALUES ('z', '1 s', 0)").unwrap();
    for target in ["y", "z"] {
        let run = format!("SELECT backlog_cleanup_failed_generations('{target}')");
        assert_eq!(refused(client.batch_execute(&run)).0, "42P01");
    }
    for target in ["y", "z", "generations"] {
        let insert = format!("INSERT INTO backlog_cleanup.target (name, lock_timeout) VALUES ('{target}', '7s')");
        client.batch_execute(&insert).unwrap();
    }
    let all = "SELECT string_agg(name || ' ' || lock_timeout, ', ' ORDER BY name) FROM backlog_cleanup.target";
    assert_eq!(value::<String>(&mut client, all), "generations 00:00:07, y 00:00:07, z 00:00:07");
    let left =
        "SELECT (SELECT count(*) FROM backlog_cleanup.sample), (SELECT count(*) FROM backlog_cleanup.auto_schedule),
                       (SELECT count(*) FROM backlog_cleanup.alert_rule)";
    assert_eq!(numbers(&mut client, left), [2, 1, 1]);
}

#[test]
fn drop_extension_behind_unschedule_leaves_nothing_behind() {
    let cluster = with_pg_cron();
    let mut client = cluster.platform();
    client
        .batch_execute("SELECT backlog_cleanup_unschedule(); DROP EXTENSION backlog_cleanup; CREATE ROLE monitor")
        .unwrap();
    fail(&mut client, 1, 15);
    let catalogs = |client: &mut Client| column::<String>(client, CATALOGS);
    let before = catalogs(&mut client);
    client
        .batch_execute(
            "CREATE EXTENSION backlog_cleanup;
             SELECT backlog_cleanup_grant('monitor', 'monitor'), backlog_cleanup_failed_generations()",
        )
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run(workers => 2)").unwrap();
    assert_ne!(catalogs(&mut client), before);
    client.batch_execute("SELECT backlog_cleanup_unschedule(); DROP EXTENSION backlog_cleanup").unwrap();
    assert_eq!(catalogs(&mut client), before);

    // A job that is left behind says what it misses.
    client.batch_execute("CREATE EXTENSION backlog_cleanup; DROP EXTENSION backlog_cleanup").unwrap();
    let command: String = value(&mut client, "SELECT command FROM cron.job");
    let (sqlstate, message, _) = refused(client.batch_execute(&command));
    assert_eq!(
        (sqlstate.as_str(), message.as_str()),
        ("42883", "function public.backlog_cleanup_failed_generations() does not exist")
    );
    // A new extension takes it over.
    client.batch_execute("CREATE EXTENSION backlog_cleanup").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM cron.job"), 1);
    client.batch_execute(&command).unwrap();
}

#[test]
fn a_dump_of_0_2_0_restores_where_0_2_0_was_created_and_is_upgraded_then() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
    client
        .batch_execute(
            "CREATE EXTENSION backlog_cleanup VERSION '0.2.0';
             INSERT INTO backlog_cleanup.target (name, failed_status) VALUES ('second', 'broken');
             UPDATE backlog_cleanup.policy SET keep = 3, note = 'kept' WHERE target = 'second'",
        )
        .unwrap();
    fail(&mut client, 1, 15);
    client.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    client.batch_execute("CREATE DATABASE restored").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump");
    let file = file.to_str().unwrap();
    cluster.program("pg_dump", &["-Fc", "-f", file, "postgres"]);
    let mut restored = cluster.connect_to("restored");
    restored.batch_execute("CREATE EXTENSION backlog_cleanup VERSION '0.2.0'").unwrap();
    cluster.program("pg_restore", &["-e", "-d", "restored", file]);
    restored.batch_execute("ALTER EXTENSION backlog_cleanup UPDATE").unwrap();
    let statuses = "SELECT statuses::text FROM backlog_cleanup.target ORDER BY name";
    assert_eq!(column::<String>(&mut restored, statuses), ["{failed}", "{broken}"]);
    let kept = "SELECT keep FROM backlog_cleanup.policy WHERE target = 'second' AND note = 'kept'";
    assert_eq!(value::<i32>(&mut restored, kept), 3);
    assert_eq!(number(&mut restored, "SELECT sum(removed) FROM backlog_cleanup.run"), 5);
    restored.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
}
