use std::collections::BTreeSet;

use cluster::{column, numbers, value};
use postgres::Client;

use super::oracle::{Row, Rules};

/// What the table is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Shape {
    Plain,
    /// Partitions `job_1` and `job_2` by recipe; `job_3` may be attached.
    Partitions,
    /// Children `job_1` and `job_2`; `job_3` may become one.
    Children,
    /// A partition `job_1`, and `job_2` as a foreign partition, whose rows are in `far` of the same database.
    Foreign,
}

/// Columns of every table with rows. No target uses `key`, which no change touches, and `extra`, which makes a row wide.
const COLUMNS: &str = "(key int, id int NOT NULL, account text, recipe int, status S.status, failed_at timestamptz,
                        failure_type text, extra text)";

impl Shape {
    fn create(self) -> &'static str {
        match self {
            Shape::Plain => {
                "CREATE TABLE S.job COLUMNS; ALTER TABLE S.job ADD PRIMARY KEY (id); CREATE INDEX job_status ON S.job (status)"
            }
            Shape::Partitions => {
                "CREATE TABLE S.job COLUMNS PARTITION BY LIST (recipe); CREATE TABLE S.job_1 PARTITION OF S.job FOR VALUES IN (0);
                 CREATE TABLE S.job_2 PARTITION OF S.job FOR VALUES IN (1); CREATE TABLE S.job_3 COLUMNS"
            }
            Shape::Children => {
                "CREATE TABLE S.job COLUMNS; CREATE TABLE S.job_1 () INHERITS (S.job); CREATE TABLE S.job_2 () INHERITS (S.job);
                 CREATE TABLE S.job_3 COLUMNS"
            }
            Shape::Foreign => {
                "CREATE TABLE S.job COLUMNS PARTITION BY LIST (recipe); CREATE TABLE S.job_1 PARTITION OF S.job FOR VALUES IN (0);
                 CREATE TABLE S.far COLUMNS;
                 CREATE FOREIGN TABLE S.job_2 PARTITION OF S.job FOR VALUES IN (1) SERVER here
                     OPTIONS (schema_name 'S', table_name 'far')"
            }
        }
    }

    pub fn leaves(self) -> Vec<&'static str> {
        match self {
            Shape::Plain => vec!["job"],
            Shape::Partitions | Shape::Foreign => vec!["job_1", "job_2"],
            Shape::Children => vec!["job", "job_1", "job_2"],
        }
    }

    /// Thirty-six rows of two recipes, eighteen of them removable; those of a third are in a table of their own.
    fn rows(self) -> Vec<Row> {
        let mut rows = Vec::new();
        for recipe in 0..if matches!(self, Shape::Partitions | Shape::Children) { 3 } else { 2 } {
            let leaf = match (self, recipe) {
                (Shape::Plain, _) | (Shape::Children, 0) => "job",
                (Shape::Children, 1) => "job_2",
                (_, 0) => "job_1",
                (_, 1) => "job_2",
                _ => "job_3",
            };
            for place in 0..18 {
                let (account, status, age) = match place {
                    0..12 => ("me", "failed", 48 + (place * 5) % 12),
                    12 | 13 => ("me", "failed", place - 11),
                    14 | 15 => ("me", "pending", 100 + place),
                    _ => ("you", "failed", 100 + place),
                };
                rows.push(Row { key: recipe * 100 + place, leaf, account, status, recipe, age });
            }
        }
        rows
    }
}

/// A target of its own in a schema of its own, both called by one name.
pub struct Scene {
    pub name: String,
    pub shape: Shape,
    pub rows: Vec<Row>,
    pub rules: Rules,
}

impl Scene {
    pub fn set(client: &mut Client, name: String, shape: Shape) -> Scene {
        let rules = Rules { leaves: shape.leaves(), account: "me", status: "failed", keep: 3, max_age: 24 };
        let scene = Scene { name, shape, rows: shape.rows(), rules };
        let create = shape.create().replace("COLUMNS", COLUMNS);
        scene.run(
            client,
            &format!(
                "CREATE SCHEMA S; GRANT USAGE ON SCHEMA S TO somebody; CREATE TYPE S.status AS ENUM ('failed', 'completed', 'pending', 'processing'); {create};
                 CREATE TABLE S.ledger (user_id text, amount int, type text, description text, created_at timestamptz);
                 {{rows of job}}; {{rows of job_1}}; {{rows of job_2}}; {{rows of job_3}};
                 INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table,
                     account_column, recipe_column, failed_at_column, failure_type_column, account)
                 VALUES ('S', 'S.job', NULL, NULL, 'S.ledger', 'account', 'recipe', 'failed_at', 'failure_type', 'me');
                 UPDATE backlog_cleanup.policy SET keep = 3 WHERE target = 'S'"
            ),
        )
        .unwrap_or_else(|failure| panic!("{shape:?}: {failure:?}"));
        scene
    }

    /// A statement of this scene: `S` is its schema and its target, `{rows of job}` inserts what a leaf had at first.
    pub fn of(&self, statement: &str) -> String {
        let mut statement = statement.to_owned();
        for leaf in ["job", "job_1", "job_2", "job_3"] {
            let rows = format!("{{rows of {leaf}}}");
            if statement.contains(&rows) {
                statement = statement.replace(&rows, &self.insert(leaf));
            }
        }
        let Scene { name, .. } = self;
        statement
            .replace("S.", &format!("{name}."))
            .replace("'S'", &format!("'{name}'"))
            .replace("SCHEMA S", &format!("SCHEMA {name}"))
            .replace("RENAME TO S", &format!("RENAME TO {name}"))
    }

    fn insert(&self, leaf: &str) -> String {
        let table = if (self.shape, leaf) == (Shape::Foreign, "job_2") { "far" } else { leaf };
        let value = |row: &Row| {
            let Row { key, account, status, recipe, age, .. } = row;
            format!(
                "({key}, {key}, '{account}', {recipe}, '{status}', now() - interval '{age} hours', 'broken', repeat('x', 900))"
            )
        };
        let values: Vec<String> = self.rows.iter().filter(|row| row.leaf == leaf).map(value).collect();
        if values.is_empty() { String::new() } else { format!("INSERT INTO S.{table} VALUES {}", values.join(", ")) }
    }

    pub fn run(&self, client: &mut Client, statement: &str) -> Result<(), postgres::Error> {
        client.batch_execute(&self.of(statement))
    }

    /// The keys of the rows that are there, wherever their table is by now.
    pub fn there(&self, client: &mut Client) -> BTreeSet<i32> {
        let tables = format!(
            "SELECT coalesce(string_agg(format('SELECT key FROM ONLY %s', attrelid::regclass), ' UNION ALL '), 'SELECT 0 WHERE false')
             FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
             WHERE attname = 'key' AND relkind = 'r' AND relnamespace::regnamespace::text IN ('{}', 'elsewhere', 'here')",
            self.name
        );
        let read: String = value(client, &tables);
        column(client, &read).into_iter().collect()
    }

    /// How many rows the history and the ledger have as removed.
    pub fn books(&self, client: &mut Client) -> [i64; 2] {
        numbers(
            client,
            &self.of("SELECT coalesce((SELECT sum(removed) FROM backlog_cleanup.run WHERE target = 'S'), 0)::bigint,
                        coalesce((SELECT sum(amount) FROM S.ledger), 0)::bigint"),
        )
    }
}
