//! Which policy a row has is the same in every form of a run, whatever the names and the session's settings are.

use cluster::{Cluster, number, refused, value};
use postgres::Client;

/// Jobs of nine days ago, on this server and, through `postgres_fdw`, as those of another one.
fn database() -> (Cluster, Client) {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client
        .batch_execute(
            "SET client_min_messages = error;
             CREATE EXTENSION backlog_cleanup;
             CREATE EXTENSION postgres_fdw;
             CREATE DOMAIN reason AS text;
             CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue text, binary_queue bytea, day timestamptz,
                               state text DEFAULT 'failed', at timestamptz DEFAULT now() - interval '9 days', error text, reason reason,
                               price numeric, document jsonb);
             CREATE SCHEMA far",
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname 'postgres');
             CREATE USER MAPPING FOR postgres SERVER loop OPTIONS (user 'postgres');
             IMPORT FOREIGN SCHEMA public LIMIT TO (job) FROM SERVER loop INTO far;
             INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account,
                                                 recipe_column, status_column, failed_at_column, failure_type_column, fingerprint)
             SELECT name, name || '.job', NULL, NULL, NULL, NULL, NULL, 'queue', 'state', 'at', 'error', false
             FROM unnest('{{public,far}}'::text[]) AS name;
             UPDATE backlog_cleanup.policy SET keep = 0 WHERE target IN ('public', 'far')",
            cluster.socket()
        ))
        .unwrap();
    (cluster, client)
}

/// Every form of a run on a target, regular and emergency.
fn forms(target: &str) -> [String; 4] {
    [
        format!("SELECT backlog_cleanup_failed_generations('{target}')"),
        format!("SELECT backlog_cleanup_emergency('{target}')"),
        format!("CALL backlog_cleanup_run('{target}', batch_size => 7)"),
        format!("CALL backlog_cleanup_run('{target}', 'emergency', batch_size => 7)"),
    ]
}

#[test]
fn a_hold_holds_whatever_its_name_in_every_form_of_a_run() {
    let (_cluster, mut client) = database();
    let (long, cut) = ("q".repeat(1_500), format!("{} y", "x".repeat(99)));
    let (long_type, quoted) = ("d".repeat(150), "it's \\d");
    for (column, argument, name) in [
        ("queue", "recipe_id", long.as_str()),
        ("queue", "recipe_id", "100 (2 bytes)"),
        ("queue", "recipe_id", quoted),
        ("error", "failure_type", &cut),
        ("error", "failure_type", quoted),
        ("reason", "failure_type", &long_type),
        ("price", "failure_type", "1.00"),
        ("document", "failure_type", &cut),
        ("state", "status", "failed"),
    ] {
        let failure_type = if argument == "failure_type" { column } else { "error" };
        client
            .batch_execute(&format!(
                "UPDATE backlog_cleanup.target SET failure_type_column = '{failure_type}' WHERE name <> 'generations'"
            ))
            .unwrap();
        for target in ["public", "far"] {
            client
                .execute(
                    &format!(
                        "SELECT backlog_cleanup_set_policy({argument} => $1, enabled => false, target => '{target}')"
                    ),
                    &[&name],
                )
                .unwrap();
            for form in forms(target) {
                client.batch_execute("TRUNCATE job").unwrap();
                let written = if column == "document" {
                    "jsonb_build_object('message', $1::text)"
                } else {
                    &format!("$1::text::{}", of(column))
                };
                let other = if column == "state" { "'failed'" } else { "NULL" };
                client
                    .execute(
                        &format!("INSERT INTO job ({column}) SELECT CASE WHEN i % 2 = 0 THEN {written} ELSE {other} END FROM generate_series(1, 60) i"),
                        &[&name],
                    )
                    .unwrap();
                let expected = if column == "state" { 60 } else { 30 };
                client.batch_execute(&form).unwrap();
                assert_eq!(
                    number(&mut client, "SELECT count(*) FROM job"),
                    expected,
                    "{argument} {name} of {column}: {form}"
                );
            }
            client
                .execute(
                    &format!("SELECT backlog_cleanup_drop_policy({argument} => $1, target => '{target}')"),
                    &[&name],
                )
                .unwrap();
        }
    }
}

fn of(column: &str) -> &'static str {
    match column {
        "price" => "numeric",
        "reason" => "reason",
        _ => "text",
    }
}

#[test]
fn no_young_row_goes_for_a_policy_with_a_smaller_age_beside_its_own() {
    let (_cluster, mut client) = database();
    for target in ["public", "far"] {
        client
            .batch_execute(&format!(
                "SELECT backlog_cleanup_set_policy('b', max_age => '0', keep => 100, target => '{target}')"
            ))
            .unwrap();
        for form in [&forms(target)[0], &forms(target)[2]] {
            client
                .batch_execute(
                    "TRUNCATE job RESTART IDENTITY;
                     INSERT INTO job (queue, at) SELECT 'a', now() - CASE WHEN i <= 50 THEN interval '1 hour' ELSE interval '9 days' END
                     FROM generate_series(1, 100) i;
                     INSERT INTO job (queue, at) VALUES ('b', now() - interval '1 hour')",
                )
                .unwrap();
            client.batch_execute(form).unwrap();
            let young = "SELECT count(*) FROM job WHERE at > now() - interval '1 day'";
            assert_eq!(
                (number(&mut client, young), number(&mut client, "SELECT count(*) FROM job")),
                (51, 51),
                "{form}"
            );
        }
    }
}

#[test]
fn what_a_session_has_set_changes_neither_a_condition_nor_what_a_policy_names() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            r"UPDATE backlog_cleanup.target SET condition = $$error ~ '^\d+$'$$, recipe_column = 'binary_queue' WHERE name = 'public';
              SELECT backlog_cleanup_set_policy('\x01', enabled => false, target => 'public')",
        )
        .unwrap();
    let kept = r"SELECT format('%s %s', encode(binary_queue, 'hex'), error) FROM job GROUP BY 1 ORDER BY 1";
    for setting in
        ["standard_conforming_strings = off", "bytea_output = escape", "TimeZone = 'Asia/Kolkata'", "array_nulls = off"]
    {
        for form in forms("public") {
            // A statement of its own: it says how the next ones are read.
            client.batch_execute("RESET ALL").unwrap();
            client
                .batch_execute(&format!(
                    r"TRUNCATE job;
                      INSERT INTO job (binary_queue, error) SELECT queue, error
                      FROM unnest('{{\\x01,\\x02}}'::bytea[]) queue, unnest('{{12,ddd}}'::text[]) error;
                      SET {setting}"
                ))
                .unwrap();
            client.batch_execute(&form).unwrap();
            let kept: Vec<String> = cluster::column(&mut client, kept);
            assert_eq!(kept, ["01 12", "01 ddd", "02 ddd"], "{setting}: {form}");
        }
    }
    client.batch_execute("RESET ALL").unwrap();
    for column in ["recipe_column = 'day'", "recipe_columns = '{queue,day}'", "failure_type_column = 'day'"] {
        let clear = if column.starts_with("recipe_columns") { ", recipe_column = NULL" } else { "" };
        let write = format!("UPDATE backlog_cleanup.target SET {column}{clear} WHERE name = 'far'");
        let (sqlstate, message, _) = refused(client.batch_execute(&write));
        assert_eq!((sqlstate.as_str(), message.contains("time zone")), ("42804", true), "{column}: {message}");
    }
}

#[test]
fn no_value_of_a_row_stops_what_asks_for_its_recipe_or_its_failure_type() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            r#"ALTER TABLE job ADD details json;
               UPDATE backlog_cleanup.target SET recipe_column = NULL, recipe_columns = '{queue,binary_queue}', failure_type_column = 'details'
               WHERE name = 'public';
               INSERT INTO job (queue, binary_queue, details)
               SELECT queue, '\x01', details::json
               FROM (VALUES ('a', '{"message":"\\ud800\udc00"}'), ('b', '{"message":"\\\ud800"}'), ('c', '{"message":"\ud83d\ude00 smiles"}'),
                            ('d', repeat('[', 6000) || repeat(']', 6000)), ('e', '{"message":"' || repeat('x', 200000) || '"}'),
                            (repeat('x', 268435456), '{"message":"long"}')) made (queue, details)"#,
        )
        .unwrap();
    let types: Vec<String> = cluster::column(
        &mut client,
        "SELECT DISTINCT failure_type FROM backlog_cleanup_failures('public', since => '30 days') ORDER BY 1",
    );
    assert!(types.iter().any(|found| found.ends_with("smiles")) && types.contains(&"(too long)".into()), "{types:?}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup_status('public')"), 6);
    let removed: String =
        value(&mut client, "SELECT backlog_cleanup_failed_generations('public') ->> 'cleanedUpGenerations'");
    assert_eq!(removed, "6");
}

#[test]
fn a_row_at_the_end_of_time_is_explained() {
    let (_cluster, mut client) = database();
    client
        .batch_execute("INSERT INTO job (queue, at) SELECT 'a', '294276-12-31 23:59:59+00' FROM generate_series(1, 3); INSERT INTO job (queue) VALUES ('a')")
        .unwrap();
    client.batch_execute("SELECT backlog_cleanup_set_policy(keep => 1, target => 'public')").unwrap();
    let verdicts: Vec<String> = cluster::column(
        &mut client,
        "SELECT verdict FROM job, backlog_cleanup_explain(id::text, 'public') ORDER BY id",
    );
    assert_eq!(verdicts, ["young", "young", "young", "kept"]);
}

#[test]
fn a_policy_for_a_status_is_obeyed_however_its_value_is_written() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET status_column = 'price', statuses = '{1,2}', failure_type_column = NULL
             WHERE name IN ('public', 'far');
             SELECT backlog_cleanup_set_policy(status => '1.00', enabled => false, target => target) FROM unnest('{public,far}'::text[]) target",
        )
        .unwrap();
    for target in ["public", "far"] {
        for form in forms(target) {
            client
                .batch_execute("TRUNCATE job; INSERT INTO job (price) SELECT (ARRAY[1, 1.0, 2.00, 2])[1 + i % 4] FROM generate_series(1, 40) i")
                .unwrap();
            let foretold = format!(
                "SELECT backlog_cleanup_failed_generations('{target}', dry_run => true) ->> 'cleanedUpGenerations'"
            );
            assert_eq!(number(&mut client, &foretold), 20, "{form}");
            client.batch_execute(&form).unwrap();
            assert_eq!(number(&mut client, "SELECT count(*) FROM job WHERE price = 1"), 20, "{form}");
            assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 20, "{form}");
        }
    }
}

#[test]
fn a_selection_means_the_value_however_it_is_written() {
    let (_cluster, mut client) = database();
    client
        .batch_execute("CREATE TYPE kind AS ENUM ('one', 'two'); CREATE DOMAIN kind_of AS kind; CREATE TYPE shy AS (k int);
             CREATE FUNCTION shown(shy) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT CASE WHEN ($1).k > 0 THEN ($1).k::text END$$;
             CREATE CAST (shy AS text) WITH FUNCTION shown(shy);
             ALTER TABLE job ADD whole int, ADD done boolean, ADD at_day date, ADD ratio float8, ADD words text[], ADD code char(5), ADD kind kind_of,
                             ADD shy shy")
        .unwrap();
    let set = |columns: &str| format!("UPDATE backlog_cleanup.target SET {columns} WHERE name = 'public'");
    for (columns, selection) in [
        ("recipe_column = 'document'", r#"recipe_id => '{ "k" : 1 }'"#),
        ("recipe_column = 'ratio'", "recipe_id => '1.0'"),
        ("recipe_column = 'at_day'", "recipe_id => '20200102'"),
        ("recipe_column = 'words'", r#"recipe_id => '{"x","1"}'"#),
        ("recipe_column = 'code'", "recipe_id => 'ab   '"),
        ("recipe_columns = '{queue,whole}'", r#"recipe_id => '{"whole":1,"queue":"a"}'"#),
        ("recipe_columns = '{queue,kind}'", r#"recipe_id => '{"kind": "one", "queue": "a"}'"#),
        ("status_column = 'done', statuses = '{f,yes}'", "status => 'on'"),
        ("status_column = 'whole', statuses = '{01,2}'", "status => '+1'"),
    ] {
        client.batch_execute(&set(columns)).unwrap();
        for call in [
            format!("SELECT backlog_cleanup_emergency('public', {selection})"),
            format!("CALL backlog_cleanup_run('public', 'emergency', {selection})"),
        ] {
            client
                .batch_execute(
                    "TRUNCATE job;
                     INSERT INTO job (queue, kind, document, ratio, at_day, words, code, whole, done)
                     SELECT 'a', (ARRAY['two', 'one'])[1 + i % 2]::kind_of, jsonb_build_object('k', i % 2), i % 2, '2020-01-01'::date + i % 2, ARRAY['x', (i % 2)::text],
                            (ARRAY['ab', 'b'])[2 - i % 2], 2 - i % 2, i % 2 = 1
                     FROM generate_series(1, 20) i",
                )
                .unwrap();
            client.batch_execute(&call).unwrap();
            let left = number(&mut client, "SELECT count(*) - 10 * count(*) FILTER (WHERE whole = 1) FROM job");
            assert_eq!(left, 10, "{columns}: {call}");
        }
        client
            .batch_execute(&set(
                "recipe_columns = NULL, recipe_column = 'queue', status_column = 'state', statuses = '{failed}'",
            ))
            .unwrap();
    }
    // What is no recipe is not all of them.
    for (columns, recipe_id) in
        [("recipe_columns = '{queue,whole}'", "a"), ("recipe_columns = NULL, recipe_column = 'shy'", "(0)")]
    {
        client.batch_execute(&set(columns)).unwrap();
        for call in [
            "SELECT backlog_cleanup_emergency('public', recipe_id => $)",
            "SELECT backlog_cleanup_set_policy(recipe_id => $, target => 'public')",
        ] {
            let call = call.replace('$', &format!("'{recipe_id}'"));
            assert_eq!(refused(client.batch_execute(&call)).0, "22023", "{call}");
        }
    }
}

#[test]
fn a_condition_is_kept_as_it_was_understood_when_it_was_written() {
    let (_cluster, mut client) = database();
    client.batch_execute("UPDATE backlog_cleanup.target SET condition = $$at < 'now'$$ WHERE name = 'public'").unwrap();
    let written = "SELECT condition FROM backlog_cleanup.target WHERE name = 'public'";
    let condition: String = value(&mut client, written);
    assert!(!condition.contains("now"), "{condition}");
    client.batch_execute("INSERT INTO job (queue) SELECT 'a' FROM generate_series(1, 20)").unwrap();
    client.batch_execute("CALL backlog_cleanup_run('public', batch_size => 3)").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 0);
    let (_, _, hint) =
        refused(client.batch_execute("UPDATE backlog_cleanup.target SET condition = 'queue' WHERE name = 'public'"));
    assert!(!hint.contains("NULL"), "{hint}");
}

#[test]
fn by_key_too_statuses_are_those_of_the_column_however_they_are_written() {
    let (_cluster, mut client) = database();
    client
        .batch_execute(
            "ALTER TABLE job ADD done boolean; ALTER FOREIGN TABLE far.job ADD done boolean;
             UPDATE backlog_cleanup.target SET status_column = 'done', statuses = '{yes,no}', completed_status = NULL,
                    pending_status = NULL, processing_status = NULL WHERE name = 'far'",
        )
        .unwrap();
    for call in forms("far") {
        client
            .batch_execute(
                "TRUNCATE job; INSERT INTO job (queue, done) SELECT 'a', i % 3 = 0 FROM generate_series(1, 30) i",
            )
            .unwrap();
        client.batch_execute(&call).unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 0, "{call}");
    }
}
