//! The doctor's fixes, and what naming a table needs.

use cluster::refused;

use super::{database, found};

#[test]
fn a_trigger_of_a_role_that_only_has_the_trigger_privilege_is_named_by_the_doctor() {
    let (_cluster, mut client) = database("others_trigger");
    client
        .batch_execute(
            "GRANT TRIGGER ON job TO evil; SET ROLE evil;
             CREATE FUNCTION steal() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
             CREATE TRIGGER theirs BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION steal(); RESET ROLE",
        )
        .unwrap();
    let (status, detail, fix) = found(&mut client, "others");
    assert_eq!(status, "warn");
    assert_eq!(detail, "trigger theirs on public.job calls public.steal(), which belongs to evil and runs as app");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(found(&mut client, "others").0, "ok");
    // On a partitioned table it is dropped with its copies, and a copy alone can be switched off only.
    client
        .batch_execute(
            "CREATE TABLE parted (LIKE job INCLUDING DEFAULTS INCLUDING INDEXES) PARTITION BY RANGE (id);
             CREATE TABLE part PARTITION OF parted DEFAULT; ALTER TABLE parted OWNER TO app; ALTER TABLE part OWNER TO app;
             GRANT TRIGGER ON parted, part TO evil",
        )
        .unwrap();
    for (table, mended) in
        [("part", "ALTER TABLE public.part DISABLE TRIGGER theirs"), ("parted", "DROP TRIGGER theirs ON public.parted")]
    {
        client
            .batch_execute(&format!(
                "SET ROLE evil; CREATE OR REPLACE TRIGGER theirs BEFORE DELETE ON parted FOR EACH ROW EXECUTE FUNCTION steal();
                 RESET ROLE; UPDATE backlog_cleanup.target SET generations_table = 'public.{table}' WHERE name = 't'"
            ))
            .unwrap();
        let (_, _, fix) = found(&mut client, "others");
        assert_eq!(fix.as_deref(), Some(mended));
        client.batch_execute(mended).unwrap();
        assert_eq!(found(&mut client, "others").0, "ok", "{table}");
    }
    client
        .batch_execute("UPDATE backlog_cleanup.target SET generations_table = 'public.job' WHERE name = 't'")
        .unwrap();
    // The owner's own, and a superuser's, are theirs.
    client
        .batch_execute(
            "ALTER FUNCTION steal OWNER TO app;
             CREATE TRIGGER own BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION steal()",
        )
        .unwrap();
    assert_eq!(found(&mut client, "others").0, "ok");
}

#[test]
fn no_fix_of_the_doctor_gives_a_table_of_a_catalog_or_an_extension_away() {
    let (_cluster, mut client) = database("catalog_table");
    client
        .batch_execute(
            "UPDATE backlog_cleanup.target SET recipes_table = 'pg_catalog.pg_namespace', recipe_key_column = 'nspname',
                    recipe_name_column = 'nspname' WHERE name = 't'",
        )
        .unwrap();
    let (status, detail, fix) = found(&mut client, "owner");
    assert_eq!((status.as_str(), fix), ("warn", None), "{detail}");
    client
        .batch_execute("UPDATE backlog_cleanup.target SET recipes_table = 'backlog_cleanup.target', recipe_key_column = 'name', recipe_name_column = 'name' WHERE name = 't'")
        .unwrap();
    assert_eq!(found(&mut client, "owner").2, None);
}

#[test]
fn taking_the_ledger_from_a_target_wants_the_rights_that_naming_it_wants() {
    let (_cluster, mut client) = database("without_ledger");
    client.batch_execute("UPDATE backlog_cleanup.target SET ledger_table = 'public.ledger' WHERE name = 't'").unwrap();
    let unseen =
        ["ledger_table = NULL", "account = 'other'", "account_column = 'queue'", "ledger_table = 'public.own'"];
    client.batch_execute("CREATE TABLE own (LIKE ledger); ALTER TABLE own OWNER TO adm; SET ROLE adm").unwrap();
    for change in unseen {
        let write = format!("UPDATE backlog_cleanup.target SET {change} WHERE name = 't'");
        let (sqlstate, message, _) = refused(client.batch_execute(&write));
        assert_eq!(sqlstate, "42501");
        assert_eq!(message, "must be owner of table \"public.ledger\" to change how target \"t\" uses it");
    }
    client.batch_execute("UPDATE backlog_cleanup.target SET batch_size = 5, account = 'w' WHERE name = 't'").unwrap();
    client
        .batch_execute(
            "RESET ROLE; ALTER TABLE ledger OWNER TO app; BEGIN; GRANT app TO adm; SET ROLE adm;
             UPDATE backlog_cleanup.target SET ledger_table = NULL WHERE name = 't'; ROLLBACK",
        )
        .unwrap();
}
