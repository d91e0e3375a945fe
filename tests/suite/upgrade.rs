//! A released version, filled and upgraded, is the same as a fresh install. `make install` puts the scripts of earlier
//! releases beside the server's.

use std::sync::mpsc;

use cluster::{Cluster, column, number, refused, value};

/// Every object of the extension with its definition, its comment and who may use it.
const OBJECTS: &str = "
    SELECT format('%s | %s | %s | %s', i.identity, d.description, a.acl,
                  coalesce(pg_get_functiondef(p.oid), pg_get_viewdef(v.oid), pg_get_triggerdef(t.oid)))
    FROM pg_depend m
    CROSS JOIN LATERAL (
        SELECT m.classid, m.objid, 0 AS objsubid
        UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum FROM pg_attribute
        WHERE m.classid = 'pg_class'::regclass AND attrelid = m.objid AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT 'pg_trigger'::regclass, oid, 0 FROM pg_trigger
        WHERE m.classid = 'pg_class'::regclass AND tgrelid = m.objid AND NOT tgisinternal
        UNION ALL SELECT 'pg_constraint'::regclass, oid, 0 FROM pg_constraint
        WHERE m.classid = 'pg_class'::regclass AND conrelid = m.objid
        UNION ALL SELECT 'pg_class'::regclass, indexrelid, 0 FROM pg_index
        WHERE m.classid = 'pg_class'::regclass AND indrelid = m.objid
    ) o
    CROSS JOIN LATERAL pg_identify_object(o.classid, o.objid, o.objsubid) i
    LEFT JOIN pg_description d ON d.classoid = o.classid AND d.objoid = o.objid AND d.objsubid = o.objsubid
    LEFT JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
    LEFT JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid AND o.objsubid = 0
    LEFT JOIN pg_class v ON v.oid = c.oid AND v.relkind = 'v'
    LEFT JOIN pg_trigger t ON o.classid = 'pg_trigger'::regclass AND t.oid = o.objid
    LEFT JOIN pg_namespace n ON o.classid = 'pg_namespace'::regclass AND n.oid = o.objid
    CROSS JOIN LATERAL (
        SELECT array_agg(held::text ORDER BY held::text) AS acl FROM unnest(coalesce(p.proacl, c.relacl, n.nspacl)) held
    ) a
    WHERE m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e'
      AND m.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'backlog_cleanup')
    ORDER BY 1";

/// The shape of the tables, and which of them a dump carries.
const SHAPES: &str = "
    SELECT format('%s.%s %s %s %s %s %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  a.attidentity, a.attstorage, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'backlog_cleanup'::regnamespace)
      AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'backlog_cleanup'::regnamespace
    UNION ALL
    SELECT format('%s identity %s', oid::regclass, relreplident) FROM pg_class
    WHERE relnamespace = 'backlog_cleanup'::regnamespace AND relkind = 'r'
    UNION ALL
    SELECT pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'backlog_cleanup'::regnamespace)
    UNION ALL
    SELECT format('dumped %s %s', c.table_oid::regclass, c.condition)
    FROM pg_extension, unnest(extconfig, extcondition) AS c (table_oid, condition) WHERE extname = 'backlog_cleanup'
    ORDER BY 1";

const FILL: &str = "
    INSERT INTO backlog_cleanup.target (name, batch_size) VALUES ('second', 7);
    UPDATE backlog_cleanup.policy SET keep = 3, note = 'kept';
    INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
    SELECT 'system_backlog', 1, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days' FROM generate_series(1, 15);
    SELECT backlog_cleanup_failed_generations()";

/// A role of each level.
const GRANT: &str = "SELECT backlog_cleanup_grant('monitor', 'monitor'), backlog_cleanup_grant('operator', 'operator'),
                            backlog_cleanup_grant('admin', 'admin')";

/// What the state tables hold, without the times.
const DATA: &str = "
    SELECT (to_jsonb(t) - 'named_at')::text FROM backlog_cleanup.target t
    UNION ALL SELECT to_jsonb(p)::text FROM backlog_cleanup.policy p
    UNION ALL SELECT (to_jsonb(r) - 'cutoff' - 'started_at' - 'finished_at')::text FROM backlog_cleanup.run r
    UNION ALL SELECT to_jsonb(r)::text FROM backlog_cleanup.run_recipe r
    ORDER BY 1";

/// What 0.2.0 removes, as its README and its source have it: of each recipe, by the default policy of the target, whatever others
/// there are, the failed rows of the account that are older than `max_age`, but for the `keep` newest of them. In a disabled target
/// none. There is no library of 0.2.0 to ask: the one that is installed serves its schema.
const GOES_IN_0_2_0: &str = "
    SELECT target.name || ' ' || id
    FROM backlog_cleanup.target
    JOIN backlog_cleanup.policy ON policy.target = target.name AND policy.recipe_id IS NULL AND policy.failure_type IS NULL
    CROSS JOIN LATERAL (
        SELECT id, row_number() OVER (PARTITION BY recipe_id ORDER BY updated_at DESC, id DESC) AS rank
        FROM generations
        WHERE user_id = target.account AND status = target.failed_status
          AND updated_at < now() AT TIME ZONE 'UTC' - policy.max_age
    ) expired
    WHERE policy.enabled AND rank > policy.keep
    ORDER BY 1";

/// A table as outages leave it, of three accounts, with targets of other limits, statuses and accounts.
const FILLED: &str = "
    INSERT INTO generations (user_id, recipe_id, prompt, status, failure_reason, updated_at)
    SELECT CASE i % 5 WHEN 0 THEN 'somebody' WHEN 1 THEN 'other' ELSE 'system_backlog' END, nullif(i * 7 % 6, 0), '',
           (ARRAY['failed', 'failed', 'failed', 'completed', 'pending', 'given up'])[1 + i * 11 % 6],
           'reason ' || i % 3,
           CASE WHEN i % 13 > 0 THEN now() AT TIME ZONE 'UTC' - interval '1 minute' * (i * 7919 % 6000 - 300) END
    FROM generate_series(1, 3000) i;
    UPDATE generations SET updated_at = '2020-01-01' WHERE id % 17 = 0;
    INSERT INTO users (id) VALUES ('other') ON CONFLICT DO NOTHING;
    INSERT INTO backlog_cleanup.target (name, account, failed_status) VALUES ('other', 'other', 'failed'), ('given up', 'system_backlog', 'given up'),
                                                                             ('disabled', 'other', 'given up');
    UPDATE backlog_cleanup.policy SET max_age = '2 days', keep = 0 WHERE target = 'other';
    UPDATE backlog_cleanup.policy SET max_age = '3 hours', keep = 3 WHERE target = 'given up';
    UPDATE backlog_cleanup.policy SET enabled = false WHERE target = 'disabled'";

#[test]
fn the_upgrade_of_a_filled_0_2_0_removes_what_0_2_0_would_have() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
    client.batch_execute("CREATE EXTENSION backlog_cleanup VERSION '0.2.0'").unwrap();
    client.batch_execute(FILLED).unwrap();
    // A page of the history, until the upgrade.
    client
        .batch_execute(
            "BEGIN;
             INSERT INTO backlog_cleanup.run (target, mode, requested_by, state, total_failed, removed, recipes_affected, started_at)
             VALUES ('generations', 'regular', 'postgres', 'completed', 0, 0, 0, now());
             SELECT backlog_cleanup_run_details(max(id)) FROM backlog_cleanup.run;
             ROLLBACK",
        )
        .unwrap();
    client.batch_execute("CREATE TABLE saved AS TABLE generations").unwrap();
    let runs = [
        "SELECT backlog_cleanup_failed_generations($1)",
        "CALL backlog_cleanup_run($1, batch_size => 50)",
        "CALL backlog_cleanup_run($1, batch_size => 50, workers => 2)",
    ];
    let targets = ["generations", "other", "given up", "disabled"];
    let expected: Vec<String> = column(&mut client, GOES_IN_0_2_0);
    for target in &targets[..3] {
        assert!(expected.iter().filter(|goes| goes.starts_with(target)).count() > 50, "{target}: {expected:?}");
    }
    client.batch_execute("ALTER EXTENSION backlog_cleanup UPDATE").unwrap();
    for run in runs {
        let mut gone = Vec::new();
        for target in targets {
            client.batch_execute("TRUNCATE generations; INSERT INTO generations TABLE saved").unwrap();
            client.batch_execute(&run.replace("$1", &format!("'{target}'"))).unwrap();
            let of_target = "SELECT id::text FROM saved WHERE id NOT IN (SELECT id FROM generations)";
            let of_target: Vec<String> = column(&mut client, of_target);
            gone.extend(of_target.into_iter().map(|id| format!("{target} {id}")));
        }
        gone.sort();
        let mut expected = expected.clone();
        expected.sort();
        assert!(gone == expected, "{run}: {} of {} rows are gone", gone.len(), expected.len());
    }
}

#[test]
fn policies_that_0_2_0_ignored_are_named_by_the_upgrade_and_obeyed_after_it() {
    let cluster = Cluster::start("");
    let (notices, heard) = mpsc::channel();
    let mut client = cluster.connect_with_notices(notices);
    client.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
    client
        .batch_execute(
            "CREATE EXTENSION backlog_cleanup VERSION '0.2.0';
             INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
             SELECT 'system_backlog', recipe, '', 'failed', now() AT TIME ZONE 'UTC' - interval '2 days'
             FROM generate_series(1, 15), generate_series(1, 2) recipe;
             INSERT INTO backlog_cleanup.policy (target, recipe_id, keep) VALUES ('generations', '1', 1000);
             INSERT INTO backlog_cleanup.policy (target, recipe_id, failure_type) VALUES ('generations', '2', 'it''s slow')",
        )
        .unwrap();
    let removable = "SELECT (backlog_cleanup_failed_generations(dry_run => true) ->> 'cleanedUpGenerations')::bigint";
    assert_eq!(number(&mut client, removable), 10, "as 0.2.0 would");
    heard.try_iter().for_each(drop);
    client.batch_execute("ALTER EXTENSION backlog_cleanup UPDATE").unwrap();
    let (warning, hint) = heard.try_iter().find(|(message, _)| message.contains("obey")).expect("a warning");
    assert_eq!(
        warning,
        "runs obey 2 policies from now on that they have ignored: \
         generations recipe_id '1', generations recipe_id '2' failure_type 'it''s slow'"
    );
    let named: String = client.query(&hint, &[]).unwrap()[0].get("recipe_id");
    assert_eq!(named, "1");
    assert_eq!(number(&mut client, removable), 5, "the rows of recipe 1 stay");
}

#[test]
fn every_released_version_upgrades_to_what_a_fresh_install_is() {
    let cluster = Cluster::start("");
    let mut fresh = cluster.platform();
    fresh.batch_execute("CREATE ROLE monitor; CREATE ROLE operator; CREATE ROLE admin").unwrap();
    fresh.batch_execute(GRANT).unwrap();
    fresh.batch_execute(FILL).unwrap();
    // What the upgrade leaves as it was.
    fresh
        .batch_execute(
            "UPDATE backlog_cleanup.target SET fingerprint = false, group_word = 'recipe', row_word = 'generation';
             UPDATE backlog_cleanup.run SET wal_bytes = NULL, full_page_images = NULL",
        )
        .unwrap();
    let current: String = value(&mut fresh, "SELECT extversion FROM pg_extension WHERE extname = 'backlog_cleanup'");
    for script in std::fs::read_dir("../sql/released").unwrap() {
        let name = script.unwrap().file_name().into_string().unwrap();
        let version = name.trim_start_matches("backlog_cleanup--").trim_end_matches(".sql").to_owned();
        let database = format!("from_{}", version.replace('.', "_"));
        fresh.batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
        let mut upgraded = cluster.connect_to(&database);
        upgraded.batch_execute(include_str!("../../demo/platform.sql")).unwrap();
        upgraded.batch_execute(&format!("CREATE EXTENSION backlog_cleanup VERSION '{version}'; {GRANT}")).unwrap();
        upgraded.batch_execute(FILL).unwrap();
        if version != current {
            let (sqlstate, _, hint) = refused(upgraded.batch_execute("CALL backlog_cleanup_run()"));
            assert_eq!((sqlstate.as_str(), hint.as_str()), ("55000", "ALTER EXTENSION backlog_cleanup UPDATE"));
        }
        let update = format!("ALTER EXTENSION backlog_cleanup UPDATE TO '{current}'");
        upgraded
            .batch_execute("CREATE FUNCTION backlog_cleanup_mine(integer) RETURNS int LANGUAGE sql AS 'SELECT 1'")
            .unwrap();
        if version != current {
            let (sqlstate, _, hint) = refused(upgraded.batch_execute(&update));
            assert_eq!((sqlstate.as_str(), &hint[..]), ("42723", "DROP FUNCTION backlog_cleanup_mine(integer)"));
        }
        upgraded.batch_execute("DROP FUNCTION backlog_cleanup_mine").unwrap();
        upgraded.batch_execute(&update).unwrap();
        // As after any change of what a level has.
        upgraded.batch_execute(GRANT).unwrap();
        upgraded
            .batch_execute("SET ROLE admin; UPDATE backlog_cleanup.target SET batch_size = batch_size; RESET ROLE")
            .unwrap();
        for (what, query) in [("objects", OBJECTS), ("shapes", SHAPES), ("data", DATA)] {
            assert_eq!(
                column::<String>(&mut upgraded, query),
                column::<String>(&mut fresh, query),
                "{what} of {version}"
            );
        }
        upgraded.batch_execute("SELECT backlog_cleanup_failed_generations()").unwrap();
    }
}
