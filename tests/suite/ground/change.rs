use super::oracle::{Row, Rules};
use super::scene::Shape::{self, Children, Foreign, Partitions, Plain};

/// What somebody does around a run.
pub struct Change {
    pub shape: Shape,
    /// Statements, split at `; `. Each stands alone if one of them cannot be in a transaction.
    pub change: &'static str,
    /// Puts the ground back, so that the next run must finish the job.
    pub undo: &'static str,
    pub effect: Effect,
}

/// What a change means for which rows may go.
#[derive(Clone, Copy)]
pub enum Effect {
    /// The same as before.
    Same,
    /// Nothing, while it lasts.
    Nothing,
    /// A leaf is the target's no more.
    Leaves(&'static str),
    /// A leaf is the target's from now on.
    Joins(&'static str),
    Account(&'static str),
    Status(&'static str),
    /// A batched run keeps the policy that it started with.
    Policy {
        keep: usize,
        max_age: i32,
    },
    /// Rows that a run has removed are there again, and it may not remove more for them.
    Again,
    /// Rows of each recipe that are older than all others: a run that has started may not remove more for them.
    Older(&'static str),
}

impl Effect {
    pub fn apply(self, rules: &mut Rules, rows: &mut Vec<Row>) {
        match self {
            Effect::Same | Effect::Again => {}
            Effect::Nothing => rules.leaves.clear(),
            Effect::Leaves(leaf) => rules.leaves.retain(|other| *other != leaf),
            Effect::Joins(leaf) => rules.leaves.push(leaf),
            Effect::Account(account) => rules.account = account,
            Effect::Status(status) => rules.status = status,
            Effect::Policy { keep, max_age } => (rules.keep, rules.max_age) = (keep, max_age),
            Effect::Older(leaf) => rows.extend((1000..1030).map(|key| Row {
                key,
                leaf,
                account: "me",
                status: "failed",
                recipe: if leaf == "job_2" { 1 } else { key % 2 },
                age: 400,
            })),
        }
    }
}

impl Change {
    /// Whether it is in no transaction of somebody else.
    pub fn is_alone(&self) -> bool {
        self.change.contains("VACUUM") || self.change.contains("CONCURRENTLY")
    }
}

const fn same(shape: Shape, change: &'static str, undo: &'static str) -> Change {
    Change { shape, change, undo, effect: Effect::Same }
}

const fn with(shape: Shape, effect: Effect, change: &'static str, undo: &'static str) -> Change {
    Change { shape, change, undo, effect }
}

const OLDER: &str = "SELECT key, key, 'me', key % 2, 'failed', now() - interval '400 hours', 'broken', 'x'
                     FROM generate_series(1000, 1029) key";

/// Puts a plain table back that was dropped.
const CREATE: &str = "CREATE TABLE S.job (key int, id int PRIMARY KEY, account text, recipe int, status S.status,
                      failed_at timestamptz, failure_type text, extra text); {rows of job}";

pub fn changes() -> Vec<Change> {
    let mut changes = vec![
        same(Plain, "ALTER TABLE S.job ADD COLUMN more int DEFAULT 7", "ALTER TABLE S.job DROP COLUMN more"),
        same(Plain, "ALTER TABLE S.job ADD COLUMN more float8 DEFAULT random()", "ALTER TABLE S.job DROP COLUMN more"),
        same(Plain, "ALTER TABLE S.job DROP COLUMN extra", "ALTER TABLE S.job ADD COLUMN extra text"),
        same(Plain, "ALTER TABLE S.job DROP COLUMN failure_type", "ALTER TABLE S.job ADD COLUMN failure_type text"),
        same(
            Plain,
            "ALTER TABLE S.job DROP COLUMN recipe; ALTER TABLE S.job ADD COLUMN recipe int; UPDATE S.job SET recipe = key / 100",
            "",
        ),
        same(
            Plain,
            "ALTER TABLE S.job DROP COLUMN recipe",
            "ALTER TABLE S.job ADD COLUMN recipe int; UPDATE S.job SET recipe = key / 100",
        ),
        same(Plain, "ALTER TABLE S.job RENAME COLUMN id TO ident", "ALTER TABLE S.job RENAME COLUMN ident TO id"),
        // Then all rows are of now.
        with(
            Plain,
            Effect::Policy { keep: 3, max_age: 9999 },
            "ALTER TABLE S.job RENAME COLUMN failed_at TO at; ALTER TABLE S.job ADD COLUMN failed_at timestamptz DEFAULT now()",
            "ALTER TABLE S.job DROP COLUMN failed_at; ALTER TABLE S.job RENAME COLUMN at TO failed_at",
        ),
        same(Plain, "ALTER TABLE S.job RENAME COLUMN extra TO more", "ALTER TABLE S.job RENAME COLUMN more TO extra"),
        same(Plain, "ALTER TABLE S.job ALTER id TYPE bigint", "ALTER TABLE S.job ALTER id TYPE int"),
        same(Plain, "ALTER TABLE S.job ALTER id TYPE text", "ALTER TABLE S.job ALTER id TYPE int USING id::int"),
        same(Plain, "ALTER TABLE S.job ALTER id SET DATA TYPE int USING id + 0", ""),
        same(Plain, "ALTER TABLE S.job ALTER account TYPE varchar(40)", "ALTER TABLE S.job ALTER account TYPE text"),
        same(Plain, "ALTER TABLE S.job ALTER recipe TYPE bigint", "ALTER TABLE S.job ALTER recipe TYPE int"),
        same(Plain, "ALTER TABLE S.job ALTER recipe TYPE smallint", "ALTER TABLE S.job ALTER recipe TYPE int"),
        same(
            Plain,
            "ALTER TABLE S.job ALTER recipe TYPE text",
            "ALTER TABLE S.job ALTER recipe TYPE int USING recipe::int",
        ),
        same(
            Plain,
            "ALTER TABLE S.job ALTER status TYPE text",
            "ALTER TABLE S.job ALTER status TYPE S.status USING status::S.status",
        ),
        same(
            Plain,
            "ALTER TABLE S.job ALTER failed_at TYPE timestamp USING failed_at AT TIME ZONE 'UTC'",
            "ALTER TABLE S.job ALTER failed_at TYPE timestamptz USING failed_at AT TIME ZONE 'UTC'",
        ),
        same(
            Plain,
            "ALTER TABLE S.job ALTER failed_at TYPE text",
            "ALTER TABLE S.job ALTER failed_at TYPE timestamptz USING failed_at::timestamptz",
        ),
        same(
            Plain,
            "ALTER TABLE S.job ALTER failure_type TYPE varchar(50)",
            "ALTER TABLE S.job ALTER failure_type TYPE text",
        ),
        same(Plain, "ALTER TABLE S.job ALTER extra TYPE varchar(9999)", "ALTER TABLE S.job ALTER extra TYPE text"),
        same(Plain, "ALTER TABLE S.job ALTER extra SET NOT NULL", "ALTER TABLE S.job ALTER extra DROP NOT NULL"),
        same(Plain, "ALTER TABLE S.job ALTER extra SET DEFAULT ''", "ALTER TABLE S.job ALTER extra DROP DEFAULT"),
        same(Plain, "ALTER TABLE S.job ALTER extra SET STORAGE EXTERNAL, ALTER extra SET STATISTICS 9", ""),
        same(
            Plain,
            "ALTER TABLE S.job ADD CONSTRAINT positive CHECK (id >= 0)",
            "ALTER TABLE S.job DROP CONSTRAINT positive",
        ),
        same(Plain, "ALTER TABLE S.job DROP CONSTRAINT job_pkey", "ALTER TABLE S.job ADD PRIMARY KEY (id)"),
        same(Plain, "ALTER TABLE S.job RENAME TO task", "ALTER TABLE S.task RENAME TO job"),
        same(Plain, "ALTER TABLE S.job SET SCHEMA elsewhere", "ALTER TABLE elsewhere.job SET SCHEMA S"),
        same(Plain, "ALTER SCHEMA S RENAME TO gone; ALTER SCHEMA gone RENAME TO here", "ALTER SCHEMA here RENAME TO S"),
        same(Plain, "ALTER TABLE S.job OWNER TO somebody", "ALTER TABLE S.job OWNER TO postgres"),
        same(Plain, "ALTER TABLE S.job SET UNLOGGED", "ALTER TABLE S.job SET LOGGED"),
        same(Plain, "ALTER TABLE S.job SET TABLESPACE pg_default", ""),
        same(Plain, "ALTER TABLE S.job SET ACCESS METHOD heap", ""),
        same(Plain, "ALTER TABLE S.job SET (fillfactor = 50)", "ALTER TABLE S.job RESET (fillfactor)"),
        same(Plain, "ALTER TABLE S.job REPLICA IDENTITY FULL", "ALTER TABLE S.job REPLICA IDENTITY DEFAULT"),
        same(Plain, "ALTER TABLE S.job ENABLE ROW LEVEL SECURITY", "ALTER TABLE S.job DISABLE ROW LEVEL SECURITY"),
        same(Plain, "ALTER TABLE S.job DISABLE TRIGGER ALL", "ALTER TABLE S.job ENABLE TRIGGER ALL"),
        same(
            Plain,
            "CREATE TRIGGER keep BEFORE DELETE ON S.job FOR EACH ROW EXECUTE FUNCTION elsewhere.keep()",
            "DROP TRIGGER keep ON S.job",
        ),
        with(
            Plain,
            Effect::Nothing,
            "CREATE RULE keep AS ON DELETE TO S.job DO INSTEAD NOTHING; ALTER TABLE S.job ENABLE ALWAYS RULE keep",
            "DROP RULE keep ON S.job",
        ),
        same(Plain, "CLUSTER S.job USING job_pkey", ""),
        same(Plain, "VACUUM S.job", ""),
        same(Plain, "DELETE FROM S.job WHERE key > 20; VACUUM S.job", ""),
        same(Plain, "VACUUM FULL S.job", ""),
        same(Plain, "TRUNCATE S.job", "{rows of job}"),
        with(Plain, Effect::Again, "TRUNCATE S.job; {rows of job}", ""),
        same(Plain, "REINDEX TABLE S.job", ""),
        same(Plain, "REINDEX TABLE CONCURRENTLY S.job", ""),
        same(Plain, "CREATE INDEX more ON S.job (extra)", "DROP INDEX S.more"),
        same(Plain, "CREATE INDEX CONCURRENTLY more ON S.job (recipe, failed_at DESC, id DESC)", "DROP INDEX S.more"),
        same(Plain, "DROP INDEX S.job_status", ""),
        same(Plain, "ANALYZE S.job", ""),
        same(Plain, "CREATE STATISTICS S.more ON recipe, status FROM S.job", "DROP STATISTICS S.more"),
        same(Plain, "COMMENT ON TABLE S.job IS 'more'; GRANT SELECT ON S.job TO PUBLIC", ""),
        same(Plain, "DROP TABLE S.job", CREATE),
        same(Plain, "ALTER TYPE S.status ADD VALUE 'more' BEFORE 'failed'", ""),
        same(Plain, "ALTER TYPE S.status RENAME TO state", "ALTER TYPE S.state RENAME TO status"),
        same(
            Plain,
            "ALTER TYPE S.status RENAME VALUE 'failed' TO 'broken'",
            "ALTER TYPE S.status RENAME VALUE 'broken' TO 'failed'",
        ),
        with(
            Plain,
            Effect::Nothing,
            "UPDATE S.job SET status = 'pending'",
            "UPDATE S.job SET status = CASE WHEN key % 100 IN (14, 15) THEN 'pending' ELSE 'failed' END::S.status",
        ),
        with(
            Plain,
            Effect::Nothing,
            "UPDATE S.job SET account = 'she'",
            "UPDATE S.job SET account = CASE WHEN key % 100 < 16 THEN 'me' ELSE 'you' END",
        ),
        with(
            Plain,
            Effect::Account("you"),
            "UPDATE backlog_cleanup.target SET account = 'you' WHERE name = 'S'",
            "UPDATE backlog_cleanup.target SET account = 'me' WHERE name = 'S'",
        ),
        with(
            Plain,
            Effect::Status("pending"),
            "UPDATE backlog_cleanup.target SET statuses = '{pending}', pending_status = '{failed}' WHERE name = 'S'",
            "UPDATE backlog_cleanup.target SET statuses = '{failed}', pending_status = '{pending}' WHERE name = 'S'",
        ),
        same(Plain, "UPDATE backlog_cleanup.target SET batch_size = 3 WHERE name = 'S'", ""),
        same(
            Plain,
            "UPDATE backlog_cleanup.target SET id_column = 'key' WHERE name = 'S'",
            "UPDATE backlog_cleanup.target SET id_column = 'id' WHERE name = 'S'",
        ),
        with(
            Plain,
            Effect::Nothing,
            "CREATE TABLE S.other (LIKE S.job INCLUDING ALL); UPDATE backlog_cleanup.target SET generations_table = 'S.other' WHERE name = 'S'",
            "UPDATE backlog_cleanup.target SET generations_table = 'S.job' WHERE name = 'S'",
        ),
        with(
            Plain,
            Effect::Policy { keep: 100, max_age: 24 },
            "UPDATE backlog_cleanup.policy SET keep = 100 WHERE target = 'S'",
            "UPDATE backlog_cleanup.policy SET keep = 3 WHERE target = 'S'",
        ),
        with(
            Plain,
            Effect::Policy { keep: 0, max_age: 24 },
            "UPDATE backlog_cleanup.policy SET keep = 0 WHERE target = 'S'",
            "UPDATE backlog_cleanup.policy SET keep = 3 WHERE target = 'S'",
        ),
        with(
            Plain,
            Effect::Policy { keep: 3, max_age: 9999 },
            "UPDATE backlog_cleanup.policy SET enabled = false WHERE target = 'S'",
            "UPDATE backlog_cleanup.policy SET enabled = true WHERE target = 'S'",
        ),
        with(
            Plain,
            Effect::Policy { keep: 3, max_age: 55 },
            "UPDATE backlog_cleanup.policy SET max_age = '55 hours' WHERE target = 'S'",
            "UPDATE backlog_cleanup.policy SET max_age = '24 hours' WHERE target = 'S'",
        ),
    ];
    for (effect, change, undo) in [
        (
            Effect::Leaves("job_2"),
            "ALTER TABLE S.job DETACH PARTITION S.job_2",
            "ALTER TABLE S.job ATTACH PARTITION S.job_2 FOR VALUES IN (1)",
        ),
        (
            Effect::Leaves("job_2"),
            "ALTER TABLE S.job DETACH PARTITION S.job_2 CONCURRENTLY",
            "ALTER TABLE S.job ATTACH PARTITION S.job_2 FOR VALUES IN (1)",
        ),
        (
            Effect::Leaves("job_2"),
            "ALTER TABLE S.job DETACH PARTITION S.job_2; ALTER TABLE S.job_2 ALTER recipe TYPE text",
            "ALTER TABLE S.job_2 ALTER recipe TYPE int USING recipe::int; ALTER TABLE S.job ATTACH PARTITION S.job_2 FOR VALUES IN (1)",
        ),
        (
            Effect::Same,
            "ALTER TABLE S.job DETACH PARTITION S.job_2; ALTER TABLE S.job ATTACH PARTITION S.job_2 FOR VALUES IN (1)",
            "",
        ),
        (
            Effect::Joins("job_3"),
            "ALTER TABLE S.job ATTACH PARTITION S.job_3 FOR VALUES IN (2)",
            "ALTER TABLE S.job DETACH PARTITION S.job_3",
        ),
        (
            Effect::Same,
            "DROP TABLE S.job_2",
            "CREATE TABLE S.job_2 PARTITION OF S.job FOR VALUES IN (1); {rows of job_2}",
        ),
        (Effect::Same, "TRUNCATE S.job_2", "{rows of job_2}"),
        (Effect::Same, "TRUNCATE S.job", "{rows of job_1}; {rows of job_2}"),
        (Effect::Same, "ALTER TABLE S.job_2 RENAME TO task", "ALTER TABLE S.task RENAME TO job_2"),
        (Effect::Same, "ALTER TABLE S.job_2 SET SCHEMA elsewhere", "ALTER TABLE elsewhere.job_2 SET SCHEMA S"),
        (Effect::Same, "ALTER TABLE S.job_2 OWNER TO somebody", "ALTER TABLE S.job_2 OWNER TO postgres"),
        (Effect::Same, "ALTER TABLE S.job_2 SET UNLOGGED", "ALTER TABLE S.job_2 SET LOGGED"),
        (Effect::Same, "ALTER TABLE S.job ALTER id TYPE bigint", "ALTER TABLE S.job ALTER id TYPE int"),
        (Effect::Same, "ALTER TABLE S.job DROP COLUMN extra", "ALTER TABLE S.job ADD COLUMN extra text"),
        (Effect::Same, "VACUUM FULL S.job_2", ""),
        (Effect::Same, "CREATE INDEX more ON S.job (extra)", "DROP INDEX S.more"),
    ] {
        changes.push(with(Partitions, effect, change, undo));
    }
    for (effect, change, undo) in [
        (Effect::Leaves("job_2"), "ALTER TABLE S.job_2 NO INHERIT S.job", "ALTER TABLE S.job_2 INHERIT S.job"),
        (
            Effect::Leaves("job_2"),
            "ALTER TABLE S.job_2 NO INHERIT S.job; ALTER TABLE S.job_2 ALTER recipe TYPE text",
            "ALTER TABLE S.job_2 ALTER recipe TYPE int USING recipe::int; ALTER TABLE S.job_2 INHERIT S.job",
        ),
        (Effect::Joins("job_3"), "ALTER TABLE S.job_3 INHERIT S.job", "ALTER TABLE S.job_3 NO INHERIT S.job"),
        (Effect::Same, "DROP TABLE S.job_2", "CREATE TABLE S.job_2 () INHERITS (S.job); {rows of job_2}"),
        (Effect::Same, "TRUNCATE S.job_2", "{rows of job_2}"),
        (
            Effect::Same,
            "ALTER TABLE S.job ALTER recipe TYPE text",
            "ALTER TABLE S.job ALTER recipe TYPE int USING recipe::int",
        ),
    ] {
        changes.push(with(Children, effect, change, undo));
    }
    for (effect, change, undo) in [
        (
            Effect::Leaves("job_2"),
            "ALTER TABLE S.job DETACH PARTITION S.job_2",
            "ALTER TABLE S.job ATTACH PARTITION S.job_2 FOR VALUES IN (1)",
        ),
        (Effect::Same, "ALTER FOREIGN TABLE S.job_2 RENAME TO task", "ALTER FOREIGN TABLE S.task RENAME TO job_2"),
        (
            Effect::Same,
            "ALTER FOREIGN TABLE S.job_2 OPTIONS (SET table_name 'nowhere')",
            "ALTER FOREIGN TABLE S.job_2 OPTIONS (SET table_name 'far')",
        ),
        (Effect::Same, "ALTER TABLE S.far ALTER recipe TYPE bigint", "ALTER TABLE S.far ALTER recipe TYPE int"),
        (
            Effect::Same,
            "ALTER TABLE S.far DROP COLUMN failed_at",
            "ALTER TABLE S.far ADD COLUMN failed_at timestamptz; TRUNCATE S.far; {rows of job_2}",
        ),
        (Effect::Same, "TRUNCATE S.far", "{rows of job_2}"),
        (Effect::Same, "VACUUM FULL S.far", ""),
        (
            Effect::Nothing,
            "UPDATE S.far SET status = 'pending'; UPDATE S.job_1 SET account = 'she'",
            "UPDATE S.far SET status = CASE WHEN key % 100 IN (14, 15) THEN 'pending' ELSE 'failed' END::S.status;
             UPDATE S.job_1 SET account = CASE WHEN key % 100 < 16 THEN 'me' ELSE 'you' END",
        ),
    ] {
        changes.push(with(Foreign, effect, change, undo));
    }
    for (shape, leaf, insert, undo) in [
        (Plain, "job", "INSERT INTO S.job ", "DELETE FROM S.job WHERE key >= 1000"),
        (Foreign, "job_2", "INSERT INTO S.far ", "DELETE FROM S.far WHERE key >= 1000"),
    ] {
        let older = OLDER.replace("'failed'", "'failed'::S.status");
        let older = if shape == Foreign { older.replace("key % 2", "1") } else { older };
        for after in ["", "; VACUUM FULL "] {
            let table = insert.trim_start_matches("INSERT INTO ").trim();
            let after = if after.is_empty() { String::new() } else { format!("{after}{table}") };
            let change = format!("{insert}{older}{after}").leak();
            changes.push(with(shape, Effect::Older(leaf), change, undo));
        }
    }
    changes
}
