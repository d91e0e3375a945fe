//! What a run will meet is said beforehand, by the doctor and by a dry run, without anybody's code.

use std::sync::mpsc;

use cluster::{Cluster, JOBS, column, finding, findings, number, refused, value};
use postgres::Client;

/// What a dry run of `t` says in a field.
fn told(client: &mut Client, field: &str) -> Vec<String> {
    let dry_run = "backlog_cleanup_failed_generations('t', dry_run => true)";
    column(client, &format!("SELECT jsonb_array_elements_text({dry_run} -> '{field}')"))
}

/// What a dry run of `t` says would be refused.
fn would_fail(client: &mut Client) -> Vec<String> {
    told(client, "wouldFail")
}

/// Which rows a dry run of `t` says would be kept back.
fn would_keep_back(client: &mut Client) -> Vec<String> {
    told(client, "wouldKeepBack")
}

/// The rows that a run of `t` in one transaction removes and keeps back. It is rolled back.
fn run(client: &mut Client) -> (i64, i64) {
    client.batch_execute("SAVEPOINT before; SELECT backlog_cleanup_failed_generations('t')").unwrap();
    let last = "SELECT removed, kept_back FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1";
    let last = client.query_one(last, &[]).unwrap();
    client.batch_execute("ROLLBACK TO before").unwrap();
    (last.get(0), last.get(1))
}

#[test]
fn what_a_delete_of_the_table_would_ask_and_one_of_its_parts_does_not_is_refused() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE TABLE archive AS TABLE job WITH NO DATA; ALTER TABLE archive OWNER TO app; GRANT CREATE ON SCHEMA public TO app;
             CREATE FUNCTION arch() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO public.archive SELECT * FROM gone; RETURN NULL; END';
             CREATE FUNCTION frozen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''deletes are frozen''; END';
             CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
             SET ROLE app;
             CREATE TABLE parted (LIKE job INCLUDING DEFAULTS) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (50);
             CREATE TABLE high PARTITION OF parted FOR VALUES FROM (50) TO (500) PARTITION BY RANGE (id);
             CREATE TABLE high_all PARTITION OF high DEFAULT;
             CREATE TABLE parent (LIKE job INCLUDING DEFAULTS); CREATE TABLE child () INHERITS (parent);
             RESET ROLE",
        )
        .unwrap();
    let calls = [
        "SELECT backlog_cleanup_failed_generations('t')",
        "SELECT backlog_cleanup_failed_generations('t', recipe_id => 'a')",
        "SELECT backlog_cleanup_failed_generations('t', rehearse => true)",
        "SELECT backlog_cleanup_emergency('t')",
        "CALL backlog_cleanup_run('t', batch_size => 10)",
        "CALL backlog_cleanup_run('t', 'emergency', batch_size => 10)",
        "CALL backlog_cleanup_run('t', batch_size => 10, workers => 2)",
    ];
    let frozen = |table: &str, time: &str| {
        format!("CREATE TRIGGER frozen {time} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION frozen()")
    };
    for table in ["parted", "parent"] {
        client
            .batch_execute(&format!(
                "UPDATE backlog_cleanup.target SET generations_table = 'public.{table}' WHERE name = 't';
                 INSERT INTO {table} SELECT * FROM job WHERE id <= 50 OR '{table}' = 'parted';
                 INSERT INTO child SELECT * FROM job WHERE id > 50 AND '{table}' = 'parent'"
            ))
            .unwrap();
        let archive = format!(
            "CREATE TRIGGER arch AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION arch()"
        );
        let enabled = |what: &str| format!("{}; ALTER TABLE {table} {what}", frozen(table, "BEFORE DELETE"));
        for (harm, named, check) in [
            (archive, "statement trigger \"arch\"", "triggers"),
            (frozen(table, "BEFORE DELETE OR UPDATE"), "statement trigger \"frozen\"", "triggers"),
            (enabled("ENABLE ALWAYS TRIGGER frozen"), "statement trigger \"frozen\"", "triggers"),
            (
                format!("CREATE RULE \"Hold\" AS ON DELETE TO {table} WHERE OLD.id = 40 DO INSTEAD NOTHING"),
                "rule \"Hold\"",
                "triggers",
            ),
            (
                format!(
                    "CREATE POLICY even ON {table} USING (id % 2 = 0);
                     ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
                ),
                "row security",
                "row_security",
            ),
        ] {
            client.batch_execute(&harm).unwrap();
            for call in calls {
                let (sqlstate, message, hint) = refused(client.batch_execute(call));
                assert_eq!(sqlstate, "0A000", "{harm}: {call}: {message}");
                assert!(message.contains(named) && message.contains(&format!("\"public.{table}\"")), "{message}");
                assert!(hint.starts_with(&format!("ALTER TABLE public.{table} ")), "{hint}");
            }
            assert_eq!(number(&mut client, &format!("SELECT count(*) FROM {table}")), 100, "{harm}");
            assert_eq!(number(&mut client, "SELECT count(*) FROM ledger"), 0, "{harm}");
            // Rows of its own cannot be read, either.
            if table == "parted" || check == "triggers" {
                let said = would_fail(&mut client);
                assert!(said.len() == 1 && said[0].contains(named), "{harm}: {said:?}");
            }
            let found = findings(&mut client, check);
            assert!(found.iter().any(|(status, ..)| status == "fail"), "{harm}: {found:?}");
            // Written, it is one more mistake of its row.
            let write = "UPDATE backlog_cleanup.target SET account = account WHERE name = 't'";
            let (sqlstate, message, hint) = refused(client.batch_execute(write));
            assert!(sqlstate == "0A000" && message.contains(named), "{harm}: {message}");
            client.batch_execute(&hint).unwrap();
            client.batch_execute(write).unwrap();
            client
                .batch_execute(&format!(
                    "BEGIN; SELECT backlog_cleanup_emergency('t'); ROLLBACK;
                     DROP TRIGGER IF EXISTS arch ON {table}; DROP TRIGGER IF EXISTS frozen ON {table};
                     DROP RULE IF EXISTS \"Hold\" ON {table}; ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
                ))
                .unwrap();
        }
        // What a DELETE of the table would not ask, either, or what is on each part.
        for harmless in [
            enabled("DISABLE TRIGGER frozen"),
            enabled("ENABLE REPLICA TRIGGER frozen"),
            frozen(table, "BEFORE TRUNCATE OR INSERT OR UPDATE"),
            format!("CREATE TRIGGER row BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION pass()"),
            frozen("high", "BEFORE DELETE"),
            format!("CREATE RULE hold AS ON UPDATE TO {table} DO ALSO NOTHING"),
            format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
            format!(
                "ALTER ROLE app BYPASSRLS; ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
            ),
        ] {
            client.batch_execute(&format!("BEGIN; {harmless}")).unwrap();
            client.batch_execute("UPDATE backlog_cleanup.target SET account = account WHERE name = 't'").unwrap();
            assert!(would_fail(&mut client).is_empty(), "{harmless}");
            assert!(findings(&mut client, "triggers").iter().all(|(status, ..)| status != "fail"), "{harmless}");
            client.batch_execute(&format!("DELETE FROM {table}; ROLLBACK; BEGIN; {harmless}")).unwrap();
            client.batch_execute("SELECT backlog_cleanup_emergency('t')").unwrap();
            assert_eq!(number(&mut client, &format!("SELECT count(*) FROM {table}")), 0, "{harmless}");
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
    // Between two batches, too.
    let id = client
        .query_one(
            r#"SELECT backlog_cleanup.start_run('{"target": "t", "mode": "emergency", "batch_size": 10, "pause": "0",
                                                  "workers": 1, "force": false, "include_held": false}')"#,
            &[],
        )
        .unwrap()
        .get::<_, i64>(0);
    client.batch_execute(&frozen("parent", "BEFORE DELETE")).unwrap();
    assert_eq!(refused(client.batch_execute(&format!("SELECT backlog_cleanup.next_batch({id})"))).0, "0A000");
}

#[test]
fn a_published_table_without_a_replica_identity_is_said_before_the_run_fails() {
    let cluster = Cluster::start("wal_level = logical\n");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA parted;
             CREATE TABLE parted.job (LIKE job) PARTITION BY LIST (queue);
             CREATE TABLE parted.job_a PARTITION OF parted.job FOR VALUES IN ('a');
             CREATE TABLE child (job int REFERENCES job ON DELETE CASCADE);
             CREATE INDEX ON child (job)",
        )
        .unwrap();
    let refused_by_postgres =
        |client: &mut Client, table: &str| client.batch_execute(&format!("BEGIN; DELETE FROM {table}; ROLLBACK"));
    for (table, publication) in [
        ("public.job", "FOR TABLE job"),
        ("public.job", "FOR ALL TABLES"),
        ("public.job", "FOR TABLES IN SCHEMA public"),
        ("parted.job", "FOR TABLE parted.job WITH (publish_via_partition_root)"),
        ("parted.job", "FOR TABLES IN SCHEMA parted"),
        ("parted.job", "FOR TABLE parted.job_a"),
    ] {
        client
            .batch_execute(&format!(
                "ALTER TABLE job REPLICA IDENTITY NOTHING;
                 UPDATE backlog_cleanup.target SET generations_table = '{table}' WHERE name = 't';
                 INSERT INTO parted.job SELECT * FROM job ON CONFLICT DO NOTHING; CREATE PUBLICATION p {publication}"
            ))
            .unwrap();
        let found = findings(&mut client, "replica_identity");
        assert!(found.iter().all(|(status, ..)| status == "fail"), "{publication}: {found:?}");
        assert_eq!(would_keep_back(&mut client).len(), found.len(), "{publication}");
        assert!(refused_by_postgres(&mut client, table).is_err(), "{publication}");
        client.batch_execute("ROLLBACK").unwrap();
        for (_, _, fix) in found {
            client.batch_execute(&fix.unwrap()).unwrap();
        }
        assert_eq!(finding(&mut client, "replica_identity").0, "ok", "{publication}");
        assert!(would_keep_back(&mut client).is_empty(), "{publication}");
        refused_by_postgres(&mut client, table).unwrap();
        client.batch_execute("DROP PUBLICATION p; ALTER TABLE parted.job_a REPLICA IDENTITY DEFAULT").unwrap();
    }
    // A publication of inserts does not mind; one whose filter reads another column does.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET generations_table = 'public.job' WHERE name = 't';
             ALTER TABLE job REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE job WITH (publish = 'insert, update')",
        )
        .unwrap();
    assert_eq!(finding(&mut client, "replica_identity").0, "ok");
    for publication in ["FOR TABLE job WHERE (queue = 'a')", "FOR TABLE job (queue, error)"] {
        client
            .batch_execute(&format!(
                "DROP PUBLICATION p; ALTER TABLE job REPLICA IDENTITY DEFAULT; CREATE PUBLICATION p {publication}"
            ))
            .unwrap();
        let (status, detail, fix) = finding(&mut client, "replica_identity");
        assert_eq!((status.as_str(), fix), ("fail", None), "{detail}");
        assert!(refused_by_postgres(&mut client, "job").is_err(), "{publication}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn a_ledger_that_cannot_take_the_row_is_said_beforehand_and_nobodys_code_runs() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE TABLE ran (); GRANT ALL ON ran TO PUBLIC;
             CREATE FUNCTION run() RETURNS boolean LANGUAGE sql AS 'INSERT INTO ran DEFAULT VALUES RETURNING true';
             CREATE FUNCTION run_late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM run(); RETURN NEW; END';
             CREATE DOMAIN any_kind AS text CONSTRAINT no_cleanup CHECK (VALUE <> 'backlog_cleanup'); CREATE DOMAIN low_kind AS any_kind;
             CREATE TABLE kind (name text PRIMARY KEY)",
        )
        .unwrap();
    for (harm, reason) in [
        ("ADD CHECK (type IN ('purchase', 'refund'))", "it breaks CHECK \"ledger_type_check\""),
        ("ADD CONSTRAINT few CHECK (amount < 10)", "it breaks CHECK \"few\""),
        ("ADD CONSTRAINT c CHECK (lower(user_id) <> 'w')", "it breaks CHECK \"c\""),
        ("ADD COLUMN kind text DEFAULT 'none', ADD CONSTRAINT k CHECK (kind <> 'none')", "it breaks CHECK \"k\""),
        (
            "ALTER id TYPE bigint; INSERT INTO ledger (id) VALUES (5); SELECT setval('ledger_id_seq', 4)",
            "comes to 5, which a row has already",
        ),
        ("ADD COLUMN batch text NOT NULL", "column \"batch\" is NOT NULL and has no default"),
        ("ALTER description TYPE varchar(40)", "column \"description\": it needs"),
        ("ALTER user_id TYPE int USING 1", "column \"user_id\" is of type integer but expression is of type text"),
        ("ALTER id DROP DEFAULT, ALTER id ADD GENERATED ALWAYS AS IDENTITY (MAXVALUE 2)", "is at its end"),
        ("ALTER id TYPE int2", "is past 32767, the end of column \"id\""),
        ("DROP type, ADD type text GENERATED ALWAYS AS ('x') STORED", "column \"type\""),
        ("ADD FOREIGN KEY (type) REFERENCES kind", "it breaks foreign key \"ledger_type_fkey\""),
        ("ADD UNIQUE (user_id, type)", "unique index public.ledger_user_id_type_key has its values already"),
        ("ADD UNIQUE (user_id, type) INCLUDE (amount)", "has its values already"),
        (
            "ADD n int; CREATE UNIQUE INDEX one ON ledger (type) WHERE type = 'backlog_cleanup'",
            "index public.one has its",
        ),
        ("ADD n int; CREATE UNIQUE INDEX one ON ledger (lower(type))", "unique index public.one has its values"),
        (
            "ADD n int; CREATE UNIQUE INDEX one ON ledger ((0)) WHERE type LIKE 'back%'",
            "unique index public.one has its",
        ),
        (
            "ADD n int; CREATE UNIQUE INDEX one ON ledger (n, type) NULLS NOT DISTINCT",
            "unique index public.one has its",
        ),
        (
            "ADD CONSTRAINT one EXCLUDE (type WITH =) WHERE (type = 'backlog_cleanup')",
            "exclusion constraint public.one does not go with a row that is there already",
        ),
        (
            "ADD CONSTRAINT one EXCLUDE USING gist (int4range(0, coalesce(amount, 1)) WITH &&)",
            "exclusion constraint public.one does not go",
        ),
        ("ADD n int; CREATE UNIQUE INDEX one ON ledger ((1))", "unique index public.one has its"),
        (
            "ADD UNIQUE (type); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ledger_type_key'::regclass",
            "unique index public.ledger_type_key has its",
        ),
        (
            "ADD n int; CREATE TYPE label AS ENUM ('backlog_cleanup'); ALTER TABLE ledger ALTER type TYPE label USING type::label,
             ADD UNIQUE (type)",
            "has its values already",
        ),
        (
            "ADD n int; CREATE UNIQUE INDEX one ON ledger (type, ((created_at AT TIME ZONE 'UTC')::date)); UPDATE ledger SET created_at = now()",
            "unique index public.one has its",
        ),
        ("ALTER type TYPE low_kind", "it breaks CHECK \"no_cleanup\""),
        ("ADD n int; REVOKE ALL ON SEQUENCE ledger_id_seq FROM app", "has no USAGE privilege on sequence"),
        (
            "ADD FOREIGN KEY (type) REFERENCES kind; INSERT INTO kind VALUES ('backlog_cleanup'); ALTER TABLE kind OWNER TO app;
             REVOKE UPDATE ON kind FROM app",
            "foreign key \"ledger_type_fkey\": owner \"app\" of public.kind has no UPDATE privilege",
        ),
    ] {
        client.batch_execute("BEGIN; SELECT setval('ledger_id_seq', 40000); DELETE FROM ledger").unwrap();
        if ["UNIQUE", "EXCLUDE"].iter().any(|kind| harm.contains(kind)) {
            client.batch_execute("INSERT INTO ledger (user_id, type) VALUES ('w', 'backlog_cleanup')").unwrap();
        }
        client.batch_execute(&format!("ALTER TABLE ledger {harm}")).unwrap();
        if harm.contains("IDENTITY") {
            client.batch_execute("INSERT INTO ledger DEFAULT VALUES; INSERT INTO ledger DEFAULT VALUES").unwrap();
        }
        // Only 90 rows are more than 9.
        if harm.contains("amount <") {
            assert_eq!(finding(&mut client, "ledger_row").0, "ok");
        } else {
            let found = findings(&mut client, "ledger_row");
            assert!(found.iter().all(|(status, ..)| status == "fail"), "{harm}: {found:?}");
            assert!(found[0].1.contains(reason), "{harm}: {found:?}");
            assert_eq!(found[0].2.is_some(), harm.contains("setval") || harm.contains("REVOKE"), "{harm}: {found:?}");
        }
        let said = would_fail(&mut client);
        assert!(said.iter().any(|said| said.contains(reason)), "{harm}: {said:?}");
        let fix = findings(&mut client, "ledger_row").into_iter().find_map(|(.., fix)| fix);
        assert!(
            client.batch_execute("SAVEPOINT tried; SELECT backlog_cleanup_failed_generations('t')").is_err(),
            "{harm}"
        );
        if let Some(fix) = fix {
            client
                .batch_execute(&format!("ROLLBACK TO tried; {fix}; SELECT backlog_cleanup_failed_generations('t')"))
                .unwrap();
        }
        client.batch_execute("ROLLBACK").unwrap();
    }
    client
        .batch_execute("BEGIN; ALTER TABLE ledger ALTER created_at DROP DEFAULT, ALTER created_at TYPE varchar(40)")
        .unwrap();
    assert_eq!((finding(&mut client, "ledger_row").0.as_str(), would_fail(&mut client).len()), ("ok", 0));
    client.batch_execute("ROLLBACK").unwrap();
    // What cannot be told without somebody's code is named, and not run.
    for (harm, named) in [
        ("ALTER TABLE ledger ADD CONSTRAINT own CHECK (run())", "CHECK \"own\""),
        (
            "CREATE DOMAIN kind_of AS text CHECK (run()); ALTER TABLE ledger ALTER type TYPE kind_of",
            "\"kind_of_check\"",
        ),
        (
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE UNIQUE INDEX one ON ledger (type COLLATE ci)",
            "unique index public.one needs more",
        ),
        ("CREATE TRIGGER before BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION run_late()", "trigger before"),
        ("ALTER TABLE ledger ADD COLUMN made boolean DEFAULT run(), ADD CONSTRAINT by CHECK (made)", "CHECK \"by\""),
    ] {
        client.batch_execute(&format!("BEGIN; {harm}; DELETE FROM ran")).unwrap();
        let (status, detail, _) = finding(&mut client, "ledger_row");
        assert!(status == "ok" && detail.contains(named), "{harm}: {detail}");
        assert!(would_fail(&mut client).is_empty(), "{harm}");
        assert_eq!(number(&mut client, "SELECT count(*) FROM ran"), 0, "{harm}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
}

#[test]
fn a_ledger_that_takes_the_row_of_one_run_only_is_said_before_the_first() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    for (index, is_refused) in [
        ("CREATE UNIQUE INDEX one ON ledger (type) WHERE type = 'backlog_cleanup'", true),
        ("CREATE UNIQUE INDEX one ON ledger (upper(user_id), type)", true),
        ("ALTER TABLE ledger ADD CONSTRAINT one EXCLUDE (user_id WITH =, type WITH =)", true),
        ("CREATE UNIQUE INDEX one ON ledger (type) WHERE type = 'purchase'", false),
        ("CREATE UNIQUE INDEX one ON ledger (type, description)", false),
        ("CREATE UNIQUE INDEX one ON ledger (user_id, type, ((created_at AT TIME ZONE 'UTC')::date))", true),
        ("ALTER TABLE ledger ADD n int; CREATE UNIQUE INDEX one ON ledger (type, n)", false),
        ("ALTER TABLE ledger ADD n int; CREATE UNIQUE INDEX one ON ledger (type, n) NULLS NOT DISTINCT", true),
    ] {
        client.batch_execute(&format!("BEGIN; {index}")).unwrap();
        let (status, detail, _) = finding(&mut client, "ledger_row");
        assert_eq!(status, if is_refused { "warn" } else { "ok" }, "{index}: {detail}");
        assert!(!is_refused || detail.contains("can take the row of one run only, or of one batch"), "{detail}");
        assert!(would_fail(&mut client).is_empty(), "{index}");
        client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
        assert_eq!(finding(&mut client, "ledger_row").0 == "fail", is_refused, "{index}");
        let again = client.batch_execute("SELECT backlog_cleanup_failed_generations('t')");
        assert_eq!(again.is_err(), is_refused, "{index}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn rows_that_no_run_would_ever_find_are_seen() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    let set = |client: &mut Client, change: &str| {
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'")).unwrap();
        finding(client, "rows")
    };
    assert_eq!(set(&mut client, "statuses = '{failed}'").0, "ok");
    for word in ["Failed", "FAILED", " failed"] {
        let (status, detail, fix) = set(&mut client, &format!("statuses = ARRAY['{word}']"));
        assert!(status == "warn" && detail.contains("rows with \"failed\""), "{detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
        assert_eq!(finding(&mut client, "rows").0, "ok", "{word}");
    }
    let (status, detail, fix) = set(&mut client, "statuses = '{dead}'");
    assert_eq!((status.as_str(), fix), ("warn", None));
    assert!(detail.contains("no row has status \"dead\"; the account's rows have \"failed\""), "{detail}");
    let (_, detail, _) = set(&mut client, "account = 'W', statuses = '{failed}'");
    assert!(detail.contains("no row has account \"W\""), "{detail}");
    // After a run that has removed them all, there is nothing wrong.
    assert_eq!(set(&mut client, "account = 'w'").0, "ok");
    client
        .batch_execute("UPDATE job SET state = 'done' WHERE id <= 50; SELECT backlog_cleanup_emergency('t')")
        .unwrap();
    assert_eq!(finding(&mut client, "rows").0, "ok");

    client.batch_execute("INSERT INTO job (id, at) SELECT id, NULL FROM generate_series(1001, 2000) id").unwrap();
    let (status, detail, fix) = finding(&mut client, "failed_at");
    assert_eq!((status.as_str(), fix), ("warn", None));
    assert!(detail.starts_with("1000 rows in scope without at, which never expire"), "{detail}");
}

#[test]
fn rows_in_another_spelling_are_told_with_their_number_also_beside_right_ones() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute("UPDATE job SET state = CASE WHEN id > 99 THEN 'failed ' ELSE 'FAILED' END WHERE id > 20")
        .unwrap();
    for run in ["SELECT 1", "SELECT backlog_cleanup_failed_generations('t')", "SELECT backlog_cleanup_emergency('t')"] {
        client.batch_execute(run).unwrap();
        let found = findings(&mut client, "rows");
        let [(status, many, fix), (_, one, _)] = &found[..] else { panic!("{run}: {found:?}") };
        assert_eq!((status.as_str(), fix), ("warn", &None), "{run}: {many}");
        assert!(
            many.starts_with("79 rows with status \"FAILED\" differ from \"failed\" of statuses in case"),
            "{many}"
        );
        assert!(one.starts_with("1 row with status \"failed \" differs from \"failed\" of statuses"), "{one}");
    }
    client
        .batch_execute("UPDATE backlog_cleanup.target SET statuses = '{failed,FAILED,\"failed \"}' WHERE name = 't'")
        .unwrap();
    assert_eq!(finding(&mut client, "rows").0, "ok");
    client.batch_execute("INSERT INTO job (id, state) VALUES (201, 'completed'), (202, 'Completed')").unwrap();
    let (status, detail, _) = finding(&mut client, "rows");
    assert!(status == "warn" && detail.contains("of completed_status") && detail.contains("do not count"), "{detail}");
}

#[test]
fn a_misspelt_status_is_told_with_the_one_that_rows_have_and_stays() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET statuses = '{failed,discared}' WHERE name = 't';
             INSERT INTO job (id, state) SELECT id, 'discarded' FROM generate_series(201, 301) id",
        )
        .unwrap();
    for run in ["SELECT 1", "SELECT backlog_cleanup_failed_generations('t')"] {
        client.batch_execute(run).unwrap();
        let (status, detail, fix) = finding(&mut client, "rows");
        assert_eq!((status.as_str(), fix), ("warn", None), "{run}: {detail}");
        assert!(
            detail.starts_with("no row has status \"discared\" of statuses, but there are rows with \"discarded\""),
            "{detail}"
        );
        assert!(detail.contains("decide"), "{detail}");
    }
    client.batch_execute("UPDATE backlog_cleanup.target SET statuses = '{failed,discarded}' WHERE name = 't'").unwrap();
    assert_eq!(finding(&mut client, "rows").0, "ok");
    // One whose rows have all gone is no mistake, whatever others have.
    client
        .batch_execute("SELECT backlog_cleanup_emergency('t'); INSERT INTO job (id, state) VALUES (401, 'mailed')")
        .unwrap();
    assert_eq!(finding(&mut client, "rows").0, "ok");
}

#[test]
fn rows_that_failed_in_the_future_are_told_with_their_number() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    assert_eq!(finding(&mut client, "failed_at").0, "ok");
    client
        .batch_execute(
            "UPDATE job SET at = CASE WHEN id <= 20 THEN 'infinity' WHEN id <= 50 THEN '2999-01-01'
                                      WHEN id <= 60 THEN NULL WHEN id <= 70 THEN now() + interval '1 hour' ELSE at END",
        )
        .unwrap();
    for time in ["timestamptz", "timestamp"] {
        client.batch_execute(&format!("ALTER TABLE job ALTER at TYPE {time}")).unwrap();
        let found = findings(&mut client, "failed_at");
        let [never, later] = &found[..] else { panic!("{found:?}") };
        assert!(never.0 == "warn" && never.1.starts_with("10 rows in scope without at"), "{never:?}");
        assert!(later.0 == "warn" && later.1.starts_with("50 rows in scope with a at in the future"), "{later:?}");
    }
}

#[test]
fn a_run_that_its_limits_would_refuse_is_seen() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    for limit in ["max_share = 10", "max_share = 100, max_rows_per_run = 10"] {
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {limit} WHERE name = 't'")).unwrap();
        let said = would_fail(&mut client);
        let (status, detail, fix) = finding(&mut client, "policy");
        assert!(status == "fail" && fix.is_none() && detail.starts_with(&said[0]), "{limit}: {detail}");
    }
    client.batch_execute("UPDATE backlog_cleanup.target SET max_rows_per_run = 90 WHERE name = 't'").unwrap();
    assert_eq!(finding(&mut client, "policy").0, "ok");
    // A large table is not read.
    client
        .batch_execute(
            "ALTER TABLE job SET (autovacuum_enabled = off); INSERT INTO job (id, error) SELECT id, repeat('x', 1900)
                          FROM generate_series(1000, 21000) id",
        )
        .unwrap();
    let (status, detail, _) = finding(&mut client, "policy");
    assert!(status == "ok" && detail.contains("was not looked at"), "{detail}");
}

#[test]
fn what_nothing_would_obey_is_warned_of_when_it_is_written_and_seen_when_it_becomes_so() {
    let cluster = Cluster::start("");
    let (sender, notices) = mpsc::channel();
    let mut client = cluster.connect_with_notices(sender);
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("CREATE SCHEMA ours; GRANT USAGE ON SCHEMA ours TO app; CREATE SCHEMA theirs").unwrap();
    for (value, said) in [
        ("recipe_key_column = 'slug'", "\"slug\" without a recipes_table"),
        ("recipe_name_column = 'title'", "\"title\" without a recipes_table"),
        ("status_column = NULL, statuses = '{dead}'", "\"dead\" without a status_column"),
        ("status_column = NULL, pending_status = '{new,queued}'", "\"new, queued\" without a status_column"),
        ("search_path = 'ours, oours, gone'", "schema \"oours\", \"gone\" does not exist"),
        (
            "search_path = 'theirs, public'",
            "schema \"theirs\" does not exist, or the owner of public.job may not use it",
        ),
    ] {
        client.batch_execute("BEGIN").unwrap();
        client.batch_execute(&format!("UPDATE backlog_cleanup.target SET {value} WHERE name = 't'")).unwrap();
        assert!(notices.try_iter().any(|(message, _)| message.contains(said)), "{value}");
        let (status, detail, fix) = finding(&mut client, "target");
        assert!(status == "warn" && detail.contains(said), "{value}: {detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
        assert_eq!(finding(&mut client, "target").0, "ok", "{value}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    // What is obeyed today may be obeyed by nothing tomorrow.
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET search_path = 'ours, public' WHERE name = 't'; DROP SCHEMA ours",
        )
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "target");
    assert!(status == "warn" && detail.contains("schema \"ours\" does not exist"), "{detail}");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(finding(&mut client, "target").0, "ok");

    let misspelled = "UPDATE backlog_cleanup.target SET completed_status = '{dnoe}', processing_status = '{runing}' WHERE name = 't';
                      UPDATE job SET state = CASE id % 3 WHEN 0 THEN 'done' WHEN 1 THEN 'running' ELSE state END";
    client.batch_execute(misspelled).unwrap();
    for (status, detail, fix) in findings(&mut client, "rows") {
        assert!(status == "warn" && detail.contains("reports do not count them"), "{detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
    }
    assert_eq!(finding(&mut client, "rows").0, "ok");
}

#[test]
fn no_status_is_missed_that_rows_have_in_another_spelling_nor_taken_from_a_policy() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "ALTER TABLE job ALTER state DROP DEFAULT, ALTER state TYPE int USING 4 + id % 2;
             UPDATE backlog_cleanup.target SET statuses = '{4,+1}', completed_status = '{05}', pending_status = NULL, processing_status = NULL
             WHERE name = 't'",
        )
        .unwrap();
    // A run has looked for both, and found none of one: that is told with a fix, unless a policy names it.
    client
        .batch_execute("SELECT backlog_cleanup_failed_generations('t'); INSERT INTO job (id, state) VALUES (201, 4)")
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "rows");
    assert!(status == "warn" && detail.starts_with("no row has status \"+1\"") && fix.is_some(), "{detail} {fix:?}");
    client.batch_execute("SELECT backlog_cleanup_set_policy(status => '1', enabled => false, target => 't')").unwrap();
    let (status, detail, fix) = finding(&mut client, "rows");
    assert!(status == "warn" && detail.starts_with("no row has status \"+1\"") && fix.is_none(), "{detail} {fix:?}");
}

#[test]
fn a_reference_without_an_index_behind_a_cascade_is_seen() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE TABLE step (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE);
             CREATE INDEX ON step (job);
             CREATE TABLE note (id int PRIMARY KEY, step int REFERENCES step ON DELETE SET NULL);
             CREATE TABLE log (note int REFERENCES note ON DELETE CASCADE)",
        )
        .unwrap();
    // No row of `note` goes, so that nothing searches `log`.
    let (status, detail, fix) = finding(&mut client, "references");
    assert_eq!(
        (status.as_str(), detail.as_str()),
        ("warn", "public.note (step) references public.step and has no index")
    );
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(finding(&mut client, "references").0, "ok");
}

#[test]
fn a_partitioned_ledger_without_a_partition_for_today_is_said_beforehand() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE TABLE parted (user_id text, amount int, type text, description text, created_at timestamp)
                 PARTITION BY RANGE (created_at);
             ALTER TABLE parted OWNER TO app;
             UPDATE backlog_cleanup.target SET ledger_table = 'public.parted' WHERE name = 't'",
        )
        .unwrap();
    for partition in [
        "SELECT 1",
        "CREATE TABLE past PARTITION OF parted FOR VALUES FROM ('2001-01-01') TO ('2002-01-01'); ALTER TABLE past OWNER TO app",
    ] {
        client.batch_execute(partition).unwrap();
        assert!(finding(&mut client, "ledger_row").1.ends_with("no partition takes it"));
        assert_eq!(would_fail(&mut client).len(), 1);
    }
    client
        .batch_execute(
            "CREATE TABLE now PARTITION OF parted FOR VALUES FROM ('2002-01-01') TO ('2999-01-01');
             ALTER TABLE now OWNER TO app",
        )
        .unwrap();
    assert_eq!(finding(&mut client, "ledger_row").0, "ok");
    client.batch_execute("SELECT backlog_cleanup_failed_generations('t')").unwrap();
}

#[test]
fn rows_that_a_run_would_keep_back_are_told_beforehand_and_no_others() {
    let cluster = Cluster::start("wal_level = logical\n");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE ROLE other; GRANT REFERENCES ON job TO other; GRANT CREATE, USAGE ON SCHEMA public TO app, other;
             ALTER TABLE job ADD UNIQUE (id, owner); SET ROLE app",
        )
        .unwrap();
    // The ten newest stay anyway; what of the others is referenced is kept back.
    for (harm, dry, kept_back, doctor) in [
        ("CREATE TABLE pin (job int REFERENCES job); INSERT INTO pin SELECT generate_series(91, 100)", "", 0, "warn"),
        (
            "CREATE TABLE pin (job int REFERENCES job ON DELETE RESTRICT); INSERT INTO pin VALUES (NULL), (1), (2), (2), (95)",
            "foreign key pin_job_fkey of public.pin (job) references at least 2 rows in scope ON DELETE RESTRICT, and a run keeps",
            2,
            "warn",
        ),
        (
            "CREATE TABLE pin (job bigint REFERENCES job); INSERT INTO pin VALUES (3), (99)",
            "foreign key pin_job_fkey of public.pin (job) references at least 1 row in scope ON DELETE NO ACTION",
            1,
            "warn",
        ),
        (
            "CREATE TABLE pin (who text, job int, FOREIGN KEY (job, who) REFERENCES job (id, owner));
             INSERT INTO pin VALUES ('w', 4), ('w', 5), (NULL, 6)",
            "foreign key pin_job_who_fkey of public.pin (job, who) references at least 2 rows in scope",
            2,
            "warn",
        ),
        (
            "CREATE TABLE mid (id int PRIMARY KEY REFERENCES job ON DELETE CASCADE); INSERT INTO mid VALUES (7);
             CREATE TABLE pin (mid int REFERENCES mid); INSERT INTO pin VALUES (7)",
            "foreign key pin_mid_fkey of public.pin may keep rows back, and was not looked at: it is behind an ON DELETE CASCADE",
            1,
            "ok",
        ),
        (
            "SET ROLE other; CREATE TABLE pin (job int REFERENCES job); INSERT INTO pin VALUES (8)",
            "foreign key pin_job_fkey of public.pin may keep rows back, and was not looked at: it belongs to role \"other\"",
            1,
            "ok",
        ),
        (
            "CREATE TABLE pin (job int REFERENCES job); INSERT INTO pin SELECT NULL FROM generate_series(1, 10000);
             INSERT INTO pin VALUES (9)",
            "of the rows with foreign key pin_job_fkey of public.pin only the first 10000 were looked at, and none with a key of more than 1000 bytes",
            1,
            "ok",
        ),
        ("CREATE TABLE pin (job int REFERENCES job); INSERT INTO pin VALUES (NULL)", "", 0, "ok"),
        (
            "CREATE TABLE pin (job int NOT NULL REFERENCES job ON DELETE SET NULL); INSERT INTO pin VALUES (1), (2)",
            "foreign key pin_job_fkey of public.pin (job) references at least 2 rows in scope ON DELETE SET NULL of a NOT NULL column, and",
            2,
            "warn",
        ),
        ("CREATE TABLE pin (job int REFERENCES job ON DELETE SET NULL); INSERT INTO pin VALUES (1)", "", 0, "ok"),
        (
            "CREATE TABLE pin (job int REFERENCES job ON DELETE SET NULL CHECK (job IS NOT NULL)); INSERT INTO pin VALUES (1), (2)",
            "foreign key pin_job_fkey of public.pin (job) references at least 2 rows in scope ON DELETE SET NULL that a CHECK refuses, and",
            2,
            "warn",
        ),
        // What the other columns of a row allow.
        (
            "CREATE TABLE pin (job int REFERENCES job ON DELETE SET NULL, is_done boolean, CHECK (is_done OR job IS NOT NULL));
             INSERT INTO pin VALUES (1, true), (2, false), (3, NULL)",
            "foreign key pin_job_fkey of public.pin (job) references at least 1 row in scope ON DELETE SET NULL that a CHECK",
            1,
            "warn",
        ),
        ("CREATE TABLE pin (job int REFERENCES job ON DELETE SET NULL CHECK (job > 0)); INSERT INTO pin VALUES (1)", "", 0, "ok"),
        (
            "CREATE DOMAIN given AS int NOT NULL; CREATE DOMAIN key AS given; CREATE TABLE pin (job key REFERENCES job ON DELETE SET NULL);
             INSERT INTO pin VALUES (1)",
            "foreign key pin_job_fkey of public.pin (job) references at least 1 row in scope ON DELETE SET NULL of a NOT NULL column, and",
            1,
            "warn",
        ),
        (
            "CREATE TABLE pin (job int UNIQUE NULLS NOT DISTINCT REFERENCES job ON DELETE SET NULL); INSERT INTO pin VALUES (1), (2), (3)",
            "foreign key pin_job_fkey of public.pin (job) references at least 2 rows in scope ON DELETE SET NULL of what may be NULL once, and",
            2,
            "warn",
        ),
        (
            "CREATE TABLE pin (job int UNIQUE NULLS NOT DISTINCT REFERENCES job ON DELETE SET NULL); INSERT INTO pin VALUES (1), (NULL)",
            "foreign key pin_job_fkey of public.pin (job) references at least 1 row in scope ON DELETE SET NULL of what may be NULL once",
            1,
            "warn",
        ),
        (
            "CREATE TABLE pin (job int UNIQUE NULLS NOT DISTINCT REFERENCES job ON DELETE SET NULL); INSERT INTO pin VALUES (1)",
            "",
            0,
            "ok",
        ),
        (
            "CREATE TABLE pin (job int NOT NULL REFERENCES job ON DELETE SET DEFAULT); INSERT INTO pin VALUES (1)",
            "foreign key pin_job_fkey of public.pin (job) references at least 1 row in scope ON DELETE SET DEFAULT of a NOT NULL column, and",
            1,
            "warn",
        ),
        ("CREATE TABLE pin (job int REFERENCES job ON DELETE SET DEFAULT); INSERT INTO pin VALUES (1)", "", 0, "ok"),
        (
            "CREATE TABLE pin (who text NOT NULL, job int, FOREIGN KEY (job, who) REFERENCES job (id, owner) ON DELETE SET NULL (job));
             INSERT INTO pin VALUES ('w', 4)",
            "",
            0,
            "ok",
        ),
        (
            "CREATE TABLE pin (job int DEFAULT 0 REFERENCES job ON DELETE SET DEFAULT); INSERT INTO pin VALUES (3)",
            "foreign key pin_job_fkey of public.pin may keep rows back, and was not looked at: it is ON DELETE SET DEFAULT",
            1,
            "ok",
        ),
        (
            "ALTER TABLE job ADD mid int; CREATE TABLE mid (id int PRIMARY KEY, job int REFERENCES job ON DELETE CASCADE);
             INSERT INTO mid VALUES (1, 7); ALTER TABLE job ADD FOREIGN KEY (mid) REFERENCES mid; UPDATE job SET mid = 1 WHERE id = 95",
            "foreign key job_mid_fkey of public.job may keep rows back, and was not looked at: it is behind an ON DELETE CASCADE",
            1,
            "ok",
        ),
        (
            "ALTER TABLE job ADD old int REFERENCES job; UPDATE job SET old = id - 1 WHERE id > 1",
            "rows of the target that stay reference 90 of those that a run would remove, directly or through others",
            90,
            "ok",
        ),
        ("ALTER TABLE job ADD old int REFERENCES job; UPDATE job SET old = id + 1 WHERE id < 100", "", 0, "ok"),
        // Of a table of dependencies, rows go along but for one, which a row that stays holds, and with it what that one needs.
        (
            "CREATE TABLE dep (job int REFERENCES job ON DELETE CASCADE, needs int REFERENCES job); ALTER TABLE dep OWNER TO app;
             INSERT INTO dep SELECT i + 1, i FROM generate_series(1, 79) i",
            "",
            0,
            "ok",
        ),
        (
            "CREATE TABLE dep (job int REFERENCES job ON DELETE CASCADE, needs int REFERENCES job); ALTER TABLE dep OWNER TO app;
             INSERT INTO dep SELECT i + 1, i FROM generate_series(1, 79) i; INSERT INTO dep VALUES (95, 3)",
            "rows of the target that stay reference 3 of those",
            3,
            "ok",
        ),
        (
            "CREATE TABLE dep (job int REFERENCES job ON DELETE CASCADE, needs int REFERENCES job); ALTER TABLE dep OWNER TO app;
             INSERT INTO dep SELECT i + 1, i FROM generate_series(1, 79) i; INSERT INTO dep VALUES (NULL, 85)",
            "foreign key dep_needs_fkey of public.dep (needs) references at least 1 row in scope",
            1,
            "warn",
        ),
        (
            "CREATE RULE never AS ON DELETE TO job DO INSTEAD NOTHING",
            "rule never on public.job replaces every removal",
            90,
            "ok",
        ),
        (
            "CREATE RULE hide AS ON DELETE TO job DO INSTEAD UPDATE job SET error = 'gone' WHERE id = OLD.id",
            "rule hide on public.job replaces every removal",
            90,
            "ok",
        ),
        ("CREATE RULE never AS ON DELETE TO job DO INSTEAD NOTHING; ALTER TABLE job DISABLE RULE never", "", 0, "ok"),
    ] {
        client.batch_execute(&format!("BEGIN; {harm}; RESET ROLE")).unwrap();
        let told = would_keep_back(&mut client);
        assert_eq!(told.len(), usize::from(!dry.is_empty()), "{harm}: {told:?}");
        assert!(told.iter().all(|told| told.starts_with(dry)), "{harm}: {told:?}");
        assert!(would_fail(&mut client).is_empty(), "{harm}");
        assert_eq!(run(&mut client), (90 - kept_back, kept_back), "{harm}");
        let (status, detail, _) = finding(&mut client, "referenced");
        assert_eq!(status, doctor, "{harm}: {detail}");
        if status == "ok" && dry.starts_with("foreign key") {
            assert_eq!(detail, told[0], "{harm}");
        }
        client.batch_execute("ROLLBACK; SET ROLE app").unwrap();
    }
    // The doctor ranks nothing. An emergency run takes what others of its rows reference.
    client
        .batch_execute(
            "BEGIN; RESET ROLE; ALTER TABLE job ADD old int REFERENCES job; UPDATE job SET old = id - 1 WHERE id > 1;
             UPDATE job SET state = 'done' WHERE id = 51",
        )
        .unwrap();
    let (status, detail, _) = finding(&mut client, "referenced");
    assert!(status == "ok" && detail.ends_with("was not looked at: it references the target itself"), "{detail}");
    let dry = "SELECT backlog_cleanup_emergency('t', dry_run => true) #>> '{wouldKeepBack,0}'";
    assert!(value::<String>(&mut client, dry).starts_with("rows of the target that stay reference 50 of those"));
    client.batch_execute("ROLLBACK").unwrap();
    // Each row of an emergency run is removable; none of a run that removes nothing is.
    client
        .batch_execute("RESET ROLE; CREATE TABLE pin (job int REFERENCES job); INSERT INTO pin VALUES (100)")
        .unwrap();
    assert!(value::<String>(&mut client, dry).contains("references at least 1 row in scope"));
    client.batch_execute("UPDATE backlog_cleanup.policy SET keep = 1000").unwrap();
    assert!(would_keep_back(&mut client).is_empty());
}

#[test]
fn a_rule_that_replaces_what_a_foreign_key_does_is_told_beforehand() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client.batch_execute("CREATE TABLE other (job int); ALTER TABLE other OWNER TO app").unwrap();
    let hidden = "UPDATE ref SET is_gone = true WHERE job = OLD.job";
    let elsewhere = "DELETE FROM other WHERE job = OLD.job";
    for (action, rule, found) in [
        ("CASCADE", "ON DELETE TO ref DO INSTEAD NOTHING", "fail"),
        ("CASCADE", &format!("ON DELETE TO ref DO INSTEAD {hidden}"), "fail"),
        ("CASCADE", "ON DELETE TO ref DO INSTEAD INSERT INTO other VALUES (OLD.job)", "fail"),
        ("SET NULL", "ON UPDATE TO ref DO INSTEAD NOTHING", "fail"),
        ("SET DEFAULT", "ON UPDATE TO ref DO INSTEAD NOTHING", "fail"),
        // PostgreSQL does not see that these leave rows.
        ("CASCADE", &format!("ON DELETE TO ref DO INSTEAD {elsewhere}"), "warn"),
        ("CASCADE", "ON DELETE TO ref WHERE OLD.job = 1 DO INSTEAD NOTHING", "warn"),
        ("CASCADE", "ON DELETE TO ref DO ALSO INSERT INTO other VALUES (OLD.job)", "ok"),
        ("CASCADE", "ON UPDATE TO ref DO INSTEAD NOTHING", "ok"),
        ("SET NULL", "ON DELETE TO ref DO INSTEAD NOTHING", "ok"),
        ("CASCADE", "ON DELETE TO ref_all DO INSTEAD NOTHING", "ok"),
    ] {
        let (whole, part) = match rule.contains("ref_all") {
            true => (" PARTITION BY RANGE (job)", "CREATE TABLE ref_all PARTITION OF ref DEFAULT;"),
            false => ("", ""),
        };
        client
            .batch_execute(&format!(
                "BEGIN; CREATE TABLE ref (job int REFERENCES job ON DELETE {action}, is_gone boolean){whole}; {part} INSERT INTO ref VALUES (1), (99);
                 CREATE RULE other AS {rule}; ALTER TABLE ref OWNER TO app"
            ))
            .unwrap();
        let (status, detail, fix) = finding(&mut client, "foreign_keys");
        assert_eq!((status.as_str(), fix), (found, None), "{action} {rule}: {detail}");
        let told = would_keep_back(&mut client);
        assert_eq!(told, if found == "fail" { vec![detail] } else { Vec::new() }, "{action} {rule}");
        assert_eq!(run(&mut client), if found == "fail" { (0, 90) } else { (90, 0) }, "{action} {rule}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn a_right_that_a_foreign_keys_action_lacks_is_told_before_each_row_is_refused() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE ROLE other; CREATE SCHEMA theirs; GRANT USAGE ON SCHEMA theirs, public TO other;
             GRANT REFERENCES ON job TO other; UPDATE backlog_cleanup.target SET ledger_table = NULL WHERE name = 't'",
        )
        .unwrap();
    for (action, harm, told) in [
        ("CASCADE", "REVOKE DELETE ON theirs.part FROM other", Some("no DELETE privilege")),
        ("CASCADE", "REVOKE ALL ON theirs.part FROM other", Some("no DELETE and no SELECT privilege")),
        ("CASCADE", "REVOKE UPDATE, INSERT ON theirs.part FROM other", None),
        ("CASCADE", "REVOKE SELECT ON theirs.part FROM other; GRANT SELECT (job) ON theirs.part TO other", None),
        ("SET NULL", "REVOKE DELETE ON theirs.part FROM other", None),
        ("SET NULL", "REVOKE UPDATE ON theirs.part FROM other", Some("no UPDATE privilege")),
        ("SET NULL", "REVOKE UPDATE ON theirs.part FROM other; GRANT UPDATE (job) ON theirs.part TO other", None),
        (
            "SET NULL (job)",
            "REVOKE UPDATE ON theirs.part FROM other; GRANT UPDATE (id) ON theirs.part TO other",
            Some("no UPDATE"),
        ),
        ("SET DEFAULT", "REVOKE UPDATE ON theirs.part FROM other", Some("no UPDATE privilege")),
        ("NO ACTION", "REVOKE UPDATE ON theirs.part FROM other", Some("no UPDATE privilege")),
        ("NO ACTION", "REVOKE UPDATE ON theirs.part FROM other; GRANT UPDATE (id) ON theirs.part TO other", None),
        ("NO ACTION", "REVOKE UPDATE ON job FROM app", Some("looks at public.job as owner")),
        ("RESTRICT", "REVOKE UPDATE ON job FROM app", None),
        ("RESTRICT", "REVOKE SELECT ON theirs.part FROM other", Some("no SELECT privilege")),
        ("CASCADE", "REVOKE USAGE ON SCHEMA theirs FROM other", Some("no USAGE privilege on schema theirs")),
    ] {
        client
            .batch_execute(&format!(
                "BEGIN; CREATE TABLE theirs.part (id int, job int REFERENCES job ON DELETE {action}); CREATE INDEX ON theirs.part (job);
                 ALTER TABLE theirs.part OWNER TO other; {harm}"
            ))
            .unwrap();
        let found = findings(&mut client, "privileges");
        let (status, detail, fix) = &found[0];
        assert_eq!(
            (found.len(), status.as_str()),
            (1, if told.is_some() { "fail" } else { "ok" }),
            "{action} {harm}: {detail}"
        );
        let said = would_keep_back(&mut client);
        assert_eq!(said.iter().any(|said| said == detail), told.is_some(), "{action} {harm}: {said:?}");
        let (removed, kept_back) = run(&mut client);
        match told {
            Some(told) => {
                let owner = harm.rsplit(' ').next().unwrap();
                assert!(detail.contains(told) && detail.contains(&format!("\"{owner}\"")), "{action} {harm}: {detail}");
                assert!(removed == 0 && kept_back > 0, "{action} {harm}");
                // The owner of the schema decides.
                client.batch_execute(fix.as_deref().unwrap_or("GRANT USAGE ON SCHEMA theirs TO other")).unwrap();
                assert_eq!(finding(&mut client, "privileges").0, "ok", "{action} {harm}");
                assert!(run(&mut client).0 > 0, "{action} {harm}");
            }
            None => assert!(removed > 0 && kept_back == 0, "{action} {harm}"),
        }
        client.batch_execute("ROLLBACK").unwrap();
    }
    // A key onto the whole of which the target is a part.
    client
        .batch_execute(
            "BEGIN; CREATE TABLE root (LIKE job INCLUDING ALL) PARTITION BY RANGE (id); ALTER TABLE root OWNER TO app;
             ALTER TABLE root ATTACH PARTITION job FOR VALUES FROM (0) TO (1000);
             CREATE TABLE theirs.part (id int, job int REFERENCES root ON DELETE CASCADE); CREATE INDEX ON theirs.part (job);
             ALTER TABLE theirs.part OWNER TO other; REVOKE DELETE ON theirs.part FROM other",
        )
        .unwrap();
    let (status, detail, fix) = finding(&mut client, "privileges");
    assert!(status == "fail" && detail.contains("no DELETE privilege"), "{detail}");
    assert_eq!(run(&mut client).0, 0);
    client.batch_execute(&fix.unwrap()).unwrap();
    assert!(finding(&mut client, "privileges").0 == "ok" && run(&mut client).0 > 0);
}

#[test]
fn a_part_that_lacks_an_identity_or_a_privilege_is_told_as_a_run_meets_it() {
    let cluster = Cluster::start("wal_level = logical\n");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "GRANT CREATE ON SCHEMA public TO app; SET ROLE app;
             CREATE TABLE parted (LIKE job INCLUDING DEFAULTS INCLUDING INDEXES) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (50);
             CREATE TABLE high PARTITION OF parted FOR VALUES FROM (50) TO (500);
             CREATE TABLE none PARTITION OF parted DEFAULT; INSERT INTO parted SELECT * FROM job; RESET ROLE;
             UPDATE backlog_cleanup.target SET generations_table = 'public.parted' WHERE name = 't';
             CREATE PUBLICATION p FOR TABLE parted WITH (publish_via_partition_root)",
        )
        .unwrap();
    client.batch_execute("BEGIN; ALTER TABLE high REPLICA IDENTITY NOTHING").unwrap();
    let told = would_keep_back(&mut client);
    assert!(told.len() == 1 && told[0].starts_with("public.high has no replica identity"), "{told:?}");
    assert!(would_fail(&mut client).is_empty());
    assert_eq!(run(&mut client), (49, 41));
    client.batch_execute("ROLLBACK").unwrap();

    for of in ["low", "high", "none", "parted"] {
        client.batch_execute(&format!("BEGIN; REVOKE DELETE ON {of} FROM app")).unwrap();
        // No rows of the root itself go, nor any of the empty partition.
        let is_needed = of == "low" || of == "high";
        let said = would_fail(&mut client);
        assert_eq!(said.len(), usize::from(is_needed), "{of}: {said:?}");
        let emergency =
            "SELECT jsonb_array_elements_text(backlog_cleanup_emergency('t', dry_run => true) -> 'wouldFail')";
        assert_eq!(column::<String>(&mut client, emergency).len(), usize::from(is_needed), "{of}");
        let found = findings(&mut client, "privileges");
        assert_eq!(found[0].0 == "fail", of != "parted", "{of}: {found:?}");
        for call in ["failed_generations", "emergency"] {
            client.batch_execute("SAVEPOINT before").unwrap();
            let done = client.batch_execute(&format!("SELECT backlog_cleanup_{call}('t')"));
            if is_needed {
                assert_eq!(refused(done).0, "42501", "{of}");
            } else {
                done.unwrap();
            }
            client.batch_execute("ROLLBACK TO before").unwrap();
        }
        if of != "parted" {
            client.batch_execute(found[0].2.as_ref().unwrap()).unwrap();
            assert_eq!(finding(&mut client, "privileges").0, "ok", "{of}");
        }
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn a_ledger_that_leaves_the_row_out_ends_the_run() {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TABLE moved (LIKE ledger)",
        )
        .unwrap();
    let row = "BEFORE INSERT ON ledger FOR EACH ROW";
    for (harm, is_known) in [
        (format!("CREATE TRIGGER no {row} EXECUTE FUNCTION drop_it()"), false),
        (format!("CREATE TRIGGER no {row} WHEN (NEW.amount > 5) EXECUTE FUNCTION drop_it()"), false),
        ("CREATE RULE no AS ON INSERT TO ledger DO INSTEAD NOTHING".to_owned(), true),
        ("CREATE RULE no AS ON INSERT TO ledger WHERE NEW.amount > 5 DO INSTEAD NOTHING".to_owned(), false),
    ] {
        client.batch_execute(&harm).unwrap();
        for call in [
            "SELECT backlog_cleanup_failed_generations('t')",
            "SELECT backlog_cleanup_emergency('t')",
            "CALL backlog_cleanup_run('t', batch_size => 10)",
            "CALL backlog_cleanup_run('t', 'emergency', batch_size => 10, workers => 2)",
        ] {
            let (sqlstate, message, hint) = refused(client.batch_execute(call));
            assert_eq!(sqlstate, "27000", "{harm}: {call}: {message}");
            assert!(message.contains("ledger \"public.ledger\""), "{message}");
            client.batch_execute(&hint).unwrap();
            assert_eq!(number(&mut client, "SELECT count(*) FROM job"), 100, "{harm}: {call}");
        }
        assert_eq!(number(&mut client, "SELECT coalesce(sum(removed), 0) FROM backlog_cleanup.run"), 0, "{harm}");
        assert_eq!(finding(&mut client, "ledger_row").0 == "fail", is_known, "{harm}");
        assert_eq!(would_fail(&mut client).len(), usize::from(is_known), "{harm}");
        client.batch_execute("DROP TRIGGER IF EXISTS no ON ledger; DROP RULE IF EXISTS no ON ledger").unwrap();
    }
    // A row for no removal may be left out: the books balance.
    client
        .batch_execute(&format!(
            "CREATE TRIGGER no {row} WHEN (NEW.amount = 0) EXECUTE FUNCTION drop_it();
             SELECT backlog_cleanup_failed_generations('t'); SELECT backlog_cleanup_failed_generations('t')"
        ))
        .unwrap();
    client.batch_execute("CALL backlog_cleanup_run('t')").unwrap();
    assert_eq!(finding(&mut client, "ledger").0, "ok");
}

#[test]
fn the_doctor_stays_fast_on_a_million_rows() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "INSERT INTO job (id, state, error) SELECT id, 'done', repeat('x', 100) FROM generate_series(1001, 1000000) id;
             UPDATE job SET at = NULL WHERE id <= 100 OR id % 100 = 0; UPDATE job SET state = 'failed' WHERE id % 100 = 0",
        )
        .unwrap();
    let started = std::time::Instant::now();
    let (_, detail, _) = finding(&mut client, "failed_at");
    assert!(detail.starts_with("about "), "{detail}");
    assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
    let held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                WHERE pid = pg_backend_pid() AND relnamespace = 'public'::regnamespace";
    client.batch_execute("BEGIN; SELECT backlog_cleanup_doctor('t')").unwrap();
    assert_eq!(number(&mut client, held), 0);
}

#[test]
fn the_doctor_warns_of_an_id_that_may_be_that_of_two_rows() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    assert_eq!(finding(&mut client, "target").0, "ok");
    client.batch_execute("ALTER TABLE job DROP CONSTRAINT job_pkey; ALTER TABLE job ALTER id SET NOT NULL").unwrap();
    for (change, status) in [
        ("CREATE INDEX ON job (id)", "warn"),
        ("CREATE UNIQUE INDEX ON job (id) WHERE state = 'failed'", "warn"),
        ("CREATE UNIQUE INDEX ON job (owner, id)", "warn"),
        ("UPDATE backlog_cleanup.target SET id_columns = '{id,queue}' WHERE name = 't'", "warn"),
        ("UPDATE backlog_cleanup.target SET id_columns = '{id,owner,queue}' WHERE name = 't'", "ok"),
        ("UPDATE backlog_cleanup.target SET id_columns = NULL WHERE name = 't'", "warn"),
        ("CREATE UNIQUE INDEX ON job (id) INCLUDE (queue)", "ok"),
    ] {
        client.batch_execute(change).unwrap();
        let (found, detail, fix) = finding(&mut client, "target");
        assert!(found == status && fix.is_none(), "{change}: {found}: {detail}");
        assert!(status == "ok" || detail.contains("no unique index"), "{detail}");
    }
}

#[test]
fn one_policy_more_than_is_named_is_one() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect();
    client.batch_execute(JOBS).unwrap();
    client
        .batch_execute(
            "SELECT backlog_cleanup_set_policy(recipe_id => 'q' || i, target => 't') FROM generate_series(1, 6) i;
             SELECT backlog_cleanup_failed_generations('t')",
        )
        .unwrap();
    let found = findings(&mut client, "policy");
    assert!(found.iter().any(|(_, detail, _)| detail.starts_with("nor any under 1 other policy,")), "{found:?}");
    client.batch_execute("ALTER TABLE job ALTER queue DROP DEFAULT, ALTER queue TYPE int USING 7").unwrap();
    let found = findings(&mut client, "policy");
    assert!(found.iter().any(|(_, detail, _)| detail == "nor can any be under 1 other policy"), "{found:?}");
}
