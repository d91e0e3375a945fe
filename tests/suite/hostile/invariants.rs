//! What holds after every step, whatever the hostile roles do.

use std::collections::{BTreeMap, BTreeSet};

use postgres::{Client, SimpleQueryMessage};

use crate::hostile::actions::Step;

/// A row of a table: the table's oid, and the row's id.
type Key = (u32, i64);

/// The columns of a row, as text.
type Row = BTreeMap<String, String>;

/// What is committed, read by a superuser in a way that runs no code of a table.
pub struct Invariants {
    world: BTreeSet<String>,
    rows: BTreeMap<Key, Row>,
    /// What calls may have removed since the last step after which no transaction was open.
    removable: BTreeSet<Key>,
    /// How many rows are gone; `None` if somebody else than the extension may have removed some.
    gone: Option<i64>,
}

/// The recipe whose rows belong to the hostile owner's own code.
const OWN: &str = "99";

impl Invariants {
    pub fn new(checker: &mut Client) -> Invariants {
        let world = lines(checker, "SELECT checker.world()");
        let rows = rows(checker, &BTreeMap::new());
        Invariants { world, rows, removable: BTreeSet::new(), gone: Some(0) }
    }

    /// Notes what a call may remove.
    pub fn allow(&mut self, checker: &mut Client, call: &Step) {
        self.rows = rows(checker, &self.rows);
        self.removable.extend(removable(checker, &self.rows, call.sql.contains("emergency")));
    }

    pub fn check(&mut self, checker: &mut Client, step: &Step, is_open: bool) -> Result<(), String> {
        if truth(checker, "SELECT is_called FROM public.escaped") {
            return Err(format!(
                "code has run as somebody else: {:?}",
                lines(checker, "SELECT e FROM public.escape e")
            ));
        }
        let now = rows(checker, &self.rows);
        let gone: Vec<&Key> = self
            .rows
            .iter()
            .filter(|(key, row)| !now.contains_key(*key) && row.get("recipe_id").is_none_or(|recipe| recipe != OWN))
            .map(|(key, _)| key)
            .collect();
        let is_quiet = !disturbs(&step.sql) && step.beside.as_ref().is_none_or(|(_, sql)| !disturbs(sql));
        if let Some(key) = gone.iter().find(|key| is_quiet && !self.removable.contains(key)) {
            return Err(format!("row {key:?} had to stay: {:?}", self.rows[*key]));
        }
        self.gone = self.gone.filter(|_| is_quiet).map(|before| before + gone.len() as i64);
        self.rows = now;
        if !is_open {
            self.removable.clear();
        }
        self.check_books(checker)
    }

    fn check_books(&self, checker: &mut Client) -> Result<(), String> {
        let books = "SELECT (SELECT coalesce(sum(amount), 0)::bigint FROM public.credit_transactions),
                            (SELECT coalesce(sum(removed), 0)::bigint FROM backlog_cleanup.run r
                             WHERE target IN (SELECT name FROM backlog_cleanup.target WHERE ledger_table = 'public.credit_transactions')),
                            (SELECT count(*) = 3 FROM backlog_cleanup.target
                             WHERE ledger_table = 'public.credit_transactions' AND name IN ('generations', 'job', 'task')),
                            NOT EXISTS (SELECT FROM backlog_cleanup.target WHERE name NOT IN ('generations', 'job', 'task'))";
        let row = checker.query_one(books, &[]).expect("the books");
        let (ledger, runs, is_recorded, is_alone): (i64, i64, bool, bool) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        if is_recorded && ledger != runs {
            return Err(format!("the ledger has {ledger} rows, the history {runs}"));
        }
        match self.gone {
            Some(gone) if is_recorded && is_alone && gone != ledger => {
                Err(format!("{gone} rows are gone, the ledger has {ledger}"))
            }
            _ => Ok(()),
        }
    }

    /// At the end of an episode.
    pub fn check_world(&self, checker: &mut Client) -> Result<(), String> {
        same("the world", &self.world, &lines(checker, "SELECT checker.world()"))
    }
}

/// The state of a session, and the next rows of its cursors.
#[derive(Default)]
pub struct Session {
    lines: BTreeSet<String>,
    next: BTreeMap<&'static str, Option<i64>>,
}

impl Session {
    pub fn of(client: &mut Client) -> Session {
        let lines = lines(client, "SELECT * FROM checker.session(pg_catalog.current_setting('search_path'))");
        let has = |name: &str| lines.iter().any(|line| line.starts_with(&format!("cursor {name}: ")));
        let open: Vec<&'static str> = ["mine", "held"].into_iter().filter(|name| has(name)).collect();
        let next = open.into_iter().map(|name| (name, fetch(client, name))).collect();
        Session { lines, next }
    }

    /// Errors: what differs.
    pub fn check(&self, after: &Session) -> Result<(), String> {
        same("the session", &self.lines, &after.lines)?;
        for (name, next) in &self.next {
            if next.is_some_and(|next| next < 1000) && after.next[name] != next.map(|next| next + 1) {
                return Err(format!("cursor {name} was at {next:?} and is at {:?}", after.next[name]));
            }
        }
        Ok(())
    }
}

fn fetch(client: &mut Client, cursor: &str) -> Option<i64> {
    lines(client, &format!("FETCH {cursor}")).first().and_then(|line| line.parse().ok())
}

fn same(what: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<(), String> {
    let gone: Vec<&String> = before.difference(after).collect();
    let new: Vec<&String> = after.difference(before).filter(|line| !line.starts_with('+')).collect();
    match gone.is_empty() && new.is_empty() {
        true => Ok(()),
        false => Err(format!("{what} has lost {gone:?} and gained {new:?}")),
    }
}

/// Whether a statement of a hostile role may itself remove rows, or change which ones a run may remove.
fn disturbs(sql: &str) -> bool {
    let sql = sql.replace("NO INHERIT", "");
    [
        "TRUNCATE",
        "DROP TABLE",
        "DROP OWNED",
        "INHERIT",
        "app.fill",
        "UPDATE backlog_cleanup",
        "INTO backlog_cleanup",
        "RENAME",
    ]
    .iter()
    .any(|word| sql.contains(word))
}

/// The rows of all leaves of all targets, and of the tables that were read before.
fn rows(checker: &mut Client, before: &BTreeMap<Key, Row>) -> BTreeMap<Key, Row> {
    let tables: BTreeSet<u32> = before.keys().map(|(table, _)| *table).collect();
    let tables: Vec<u32> = tables.into_iter().collect();
    let leaves = "
        WITH RECURSIVE leaf (oid) AS (
            SELECT to_regclass(generations_table)::oid FROM backlog_cleanup.target
            UNION SELECT inhrelid FROM pg_inherits JOIN leaf ON inhparent = oid)
        SELECT c.oid, c.oid::regclass::text FROM pg_class c
        WHERE relkind = 'r' AND (oid IN (TABLE leaf) OR oid = ANY ($1))";
    let mut rows = BTreeMap::new();
    for leaf in checker.query(leaves, &[&tables]).expect("the leaves") {
        let (table, name): (u32, String) = (leaf.get(0), leaf.get(1));
        for row in table_rows(checker, &format!("SELECT * FROM ONLY {name}")) {
            if let Some(id) = row.get("id").and_then(|id| id.parse().ok()) {
                rows.insert((table, id), row);
            }
        }
    }
    rows
}

/// What an oracle says that a run of any target may remove.
fn removable(checker: &mut Client, rows: &BTreeMap<Key, Row>, is_emergency: bool) -> BTreeSet<Key> {
    let mut all = BTreeSet::new();
    let targets = "
        SELECT t.*, t.statuses[1] AS status, to_regclass(generations_table)::oid AS root, p.keep, p.enabled,
               (now() - p.max_age) AT TIME ZONE 'UTC' AS instant, (now() - p.max_age) AT TIME ZONE time_zone AS local,
               (SELECT count(*) FROM backlog_cleanup.policy o WHERE o.target = t.name) AS policies
        FROM backlog_cleanup.target t JOIN backlog_cleanup.policy p ON p.target = t.name
        ORDER BY p.recipe_id NULLS FIRST, p.failure_type NULLS FIRST";
    for target in table_rows(checker, targets) {
        let Some(root) = target.get("root") else { continue };
        let leaves: BTreeSet<u32> = lines(
            checker,
            &format!(
                "WITH RECURSIVE leaf (oid) AS (SELECT {root}::oid
                 UNION SELECT inhrelid FROM pg_inherits JOIN leaf ON inhparent = oid) SELECT oid FROM leaf"
            ),
        )
        .iter()
        .filter_map(|oid| oid.parse().ok())
        .collect();
        fn column<'a>(row: &'a Row, target: &Row, name: &str) -> Option<&'a String> {
            row.get(&target[name])
        }
        let mut groups: BTreeMap<Option<&String>, Vec<(&str, i64, Key)>> = BTreeMap::new();
        for (key, row) in rows.iter().filter(|((table, _), _)| leaves.contains(table)) {
            let is_failed = column(row, &target, "account_column") == target.get("account")
                && column(row, &target, "status_column") == target.get("status");
            let at = column(row, &target, "failed_at_column").map_or("", |at| at.as_str());
            let (at, cutoff) = match at.strip_suffix("+00") {
                Some(instant) => (instant, &target["instant"]),
                None => (at, &target["local"]),
            };
            let is_expired = !at.is_empty() && at < cutoff.as_str();
            if is_failed && (is_emergency || is_expired || target["policies"] != "1") {
                groups.entry(column(row, &target, "recipe_column")).or_default().push((at, key.1, *key));
            }
        }
        let keep = match target["enabled"].as_str() {
            _ if is_emergency || target["policies"] != "1" => 0,
            "t" => target["keep"].parse().expect("a number"),
            _ => usize::MAX,
        };
        for mut group in groups.into_values() {
            group.sort_unstable_by(|a, b| b.cmp(a));
            all.extend(group.into_iter().skip(keep).map(|(_, _, key)| key));
        }
    }
    all
}

/// Rows by the simple protocol, which only shows them.
fn table_rows(client: &mut Client, query: &str) -> Vec<Row> {
    let messages = client.simple_query(query).unwrap_or_else(|failure| panic!("{query}: {failure:?}"));
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(
            row.columns()
                .iter()
                .enumerate()
                .filter_map(|(at, column)| Some((column.name().to_owned(), row.get(at)?.to_owned())))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// The first column of a query's rows.
fn lines(client: &mut Client, query: &str) -> BTreeSet<String> {
    let messages = client.simple_query(query).unwrap_or_else(|failure| panic!("{query}: {failure:?}"));
    let line = |message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.into_iter().filter_map(line).collect()
}

fn truth(client: &mut Client, query: &str) -> bool {
    lines(client, query).contains("t")
}
