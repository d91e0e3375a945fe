//! Random tables of every kind, cleaned up, and compared with an oracle that knows nothing of SQL.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use cluster::{Cluster, column, number};
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const DAY: i64 = 86_400_000_000;

const STATUSES: [&str; 4] = ["failed", "cancelled", "discarded", "pending"];

/// The types of a status, with what it is written as instead of `STATUSES`; a boolean has two of them.
const STATUS_TYPES: [(&str, [&str; 4]); 6] = [
    ("text", STATUSES),
    ("varchar(20)", STATUSES),
    ("plain.\"Pha;se\"", STATUSES),
    ("plain.word", STATUSES),
    ("smallint", ["-1", "0", "20", "3"]),
    ("boolean", ["true", "false", "", ""]),
];

/// One row; its number is its place in the table.
#[derive(Debug, Clone)]
struct Row {
    ours: bool,
    /// Its place in `STATUSES`.
    status: usize,
    recipe: Option<u8>,
    /// Of a recipe of two columns, the other one.
    part: Option<bool>,
    failure_type: Option<bool>,
    /// Microseconds before now; negative is the future.
    age: Option<i64>,
    /// Whether it meets the condition, if the target has one.
    met: Option<bool>,
}

/// The columns of a recipe.
type Recipe = (Option<u8>, Option<bool>);

/// What a target's recipe is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Recipes {
    OfOneColumn,
    OfTwoColumns,
    None,
}

/// What a target's table is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Partitioned,
    Foreign,
    /// With a foreign partition.
    PartlyForeign,
    /// By Citus.
    DistributedById,
    DistributedByRecipe,
    Reference,
    SingleShard,
}

impl Kind {
    fn is_distributed(self) -> bool {
        matches!(self, Kind::DistributedById | Kind::DistributedByRecipe | Kind::Reference | Kind::SingleShard)
    }
}

/// A policy, for a recipe, a failure type, a status, some of them, or any row.
#[derive(Debug, Clone)]
struct Policy {
    recipe: Option<Recipe>,
    failure_type: Option<bool>,
    status: Option<usize>,
    /// Days.
    max_age: i64,
    keep: usize,
    /// Days, above `max_age`.
    max_keep_age: Option<i64>,
    enabled: bool,
}

#[derive(Debug, Clone)]
struct Case {
    rows: Vec<Row>,
    /// Of the first three `STATUSES`, those whose rows may go.
    statuses: Vec<usize>,
    /// Whether every row is the target's.
    without_account: bool,
    /// Whether every row has the same status: those with a time have finished.
    without_status: bool,
    /// With different names; the first is the default policy.
    policies: Vec<Policy>,
    include_held: bool,
    emergency: bool,
    only_recipe: Option<Recipe>,
    only_type: Option<bool>,
    /// One of `statuses`.
    only_status: Option<usize>,
    id_type: &'static str,
    /// Whether the id is that of a third of the rows and their number, and not of one row.
    two_ids: bool,
    recipes: Recipes,
    recipe_type: &'static str,
    /// The place of its type in `STATUS_TYPES`.
    status_type: usize,
    /// Whether a failure type is a message with a number, of which policies mean the fingerprint.
    messages: bool,
    time_type: &'static str,
    hostile: bool,
    index: bool,
    time_zone: &'static str,
    kind: Kind,
    /// Whether the target has expressions instead of columns, and a condition.
    expressions: bool,
}

/// How a batched run goes; none is one transaction.
type Batches = Option<(i32, i32)>;

fn row() -> impl Strategy<Value = Row> {
    let age = prop_oneof![
        1 => Just(None),
        6 => prop::sample::select(vec![-DAY, 0, DAY - 1, DAY, DAY + 1, 2 * DAY, 3 * DAY]).prop_map(Some),
        2 => (-2 * DAY..4 * DAY).prop_map(Some),
    ];
    (
        prop::bool::weighted(0.8),
        prop_oneof![3 => Just(0), 2 => 1..4usize],
        (prop::option::weighted(0.8, 0..3u8), any::<Option<bool>>()),
        any::<Option<bool>>(),
        age,
        prop::option::weighted(0.9, prop::bool::weighted(0.8)),
    )
        .prop_map(|(ours, status, (recipe, part), failure_type, age, met)| Row {
            ours,
            status,
            recipe,
            part,
            failure_type,
            age,
            met,
        })
}

fn recipe() -> impl Strategy<Value = Recipe> {
    (prop::option::weighted(0.9, 0..3u8), any::<Option<bool>>())
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let policy = (
        prop::option::weighted(0.6, recipe()),
        any::<Option<bool>>(),
        prop::option::weighted(0.4, 0..3usize),
        0..4i64,
        0..4usize,
        prop::option::weighted(0.2, 0..2i64),
        prop::bool::weighted(0.8),
    );
    let policy = policy.prop_map(|(recipe, failure_type, status, max_age, keep, longer, enabled)| {
        let max_keep_age = longer.map(|days| max_age + days);
        Policy { recipe, failure_type, status, max_age, keep, max_keep_age, enabled }
    });
    prop::collection::vec(policy, 1..6)
}

/// What people can name of a recipe; NULL is any.
fn named(recipes: Recipes, recipe: Option<Recipe>) -> Option<Recipe> {
    recipe.filter(|(column, _)| match recipes {
        Recipes::OfOneColumn => column.is_some(),
        Recipes::OfTwoColumns => true,
        Recipes::None => false,
    })
}

/// The first as the default policy, and of those with the same names the first; a status out of scope is refused.
fn obeyed(mut policies: Vec<Policy>, statuses: &[usize], recipes: Recipes) -> Vec<Policy> {
    (policies[0].recipe, policies[0].failure_type, policies[0].status) = (None, None, None);
    for policy in &mut policies {
        policy.recipe = named(recipes, policy.recipe).map(|recipe| of_kind(recipes, recipe));
    }
    let mut seen = BTreeSet::new();
    policies.retain(|policy| {
        policy.status.is_none_or(|status| statuses.contains(&status))
            && seen.insert((policy.recipe, policy.failure_type, policy.status))
    });
    policies
}

/// What a target sees of a recipe.
fn of_kind(recipes: Recipes, (column, part): Recipe) -> Recipe {
    match recipes {
        Recipes::OfOneColumn => (column, None),
        Recipes::OfTwoColumns => (column, part),
        Recipes::None => (None, None),
    }
}

fn case(kinds: &'static [Kind]) -> impl Strategy<Value = Case> {
    let kinds = (
        (prop::sample::select(vec!["integer", "bigint", "uuid", "text"]), prop::bool::weighted(0.4)),
        (
            prop::sample::select(vec!["integer", "bigint", "uuid", "text", "varchar(40)", "numeric"]),
            prop_oneof![1 => Just(0), 2 => 1..STATUS_TYPES.len()],
            any::<bool>(),
        ),
        prop::sample::select(vec!["timestamp", "timestamptz"]),
        any::<bool>(),
        any::<bool>(),
        prop::sample::select(vec!["UTC", "America/New_York", "Pacific/Kiritimati"]),
        prop::sample::select(kinds),
        any::<bool>(),
        prop::sample::select(vec![
            Recipes::OfOneColumn,
            Recipes::OfOneColumn,
            Recipes::OfTwoColumns,
            Recipes::OfTwoColumns,
            Recipes::None,
        ]),
    );
    let run = (
        (
            policies(),
            prop::sample::subsequence(vec![0, 1, 2], 1..=3),
            (prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
        ),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, recipe()),
        (prop::option::weighted(0.2, any::<bool>()), prop::option::weighted(0.2, 0..3usize)),
    );
    (prop::collection::vec(row(), 0..60), run, kinds).prop_map(
        |(
            rows,
            (
                (policies, statuses, (without_account, without_status)),
                include_held,
                emergency,
                only_recipe,
                (only_type, only_status),
            ),
            (
                (id_type, two_ids),
                (recipe_type, status_type, messages),
                time_type,
                hostile,
                index,
                time_zone,
                kind,
                expressions,
                recipes,
            ),
        )| {
            // Such ids and recipes of distributed tables are refused.
            let is_distributed = kind.is_distributed();
            let two_ids = two_ids && !is_distributed;
            let status_type = if is_distributed || without_status { 0 } else { status_type };
            let messages = messages && !is_distributed;
            let has_two = STATUS_TYPES[status_type].0 == "boolean";
            let status_of = |status: usize| match (without_status, has_two) {
                (true, _) => 0,
                (false, true) => status % 2,
                (false, false) => status,
            };
            let mut statuses: Vec<usize> = statuses.into_iter().map(status_of).collect();
            statuses.sort_unstable();
            statuses.dedup();
            let of_type =
                |policy: Policy| Policy { status: policy.status.filter(|_| !without_status).map(status_of), ..policy };
            let policies = policies.into_iter().map(of_type).collect();
            let only_status = only_status.filter(|_| !without_status).map(status_of);
            let recipes = match recipes {
                Recipes::OfTwoColumns if is_distributed => Recipes::OfOneColumn,
                recipes => recipes,
            };
            Case {
                // Citus refuses a row without a value to distribute it by.
                rows: rows
                    .into_iter()
                    .map(|row| Row {
                        recipe: row.recipe.or((kind == Kind::DistributedByRecipe).then_some(0)),
                        status: status_of(row.status),
                        ..row
                    })
                    .collect(),
                policies: obeyed(policies, &statuses, recipes),
                only_status: only_status.filter(|status| statuses.contains(status)),
                statuses,
                without_account,
                without_status,
                include_held,
                emergency,
                only_recipe: named(recipes, only_recipe),
                only_type,
                id_type,
                two_ids,
                recipes,
                recipe_type,
                status_type,
                messages,
                time_type,
                hostile,
                index: index && !matches!(kind, Kind::Foreign | Kind::PartlyForeign),
                time_zone,
                kind,
                expressions,
            }
        },
    )
}

fn recipe_of(case: &Case, row: &Row) -> Recipe {
    of_kind(case.recipes, (row.recipe, row.part))
}

/// The place of the policy that a row has.
fn policy_of(case: &Case, row: &Row) -> usize {
    let is_for = |policy: &Policy| {
        policy.recipe.is_none_or(|recipe| recipe_of(case, row) == recipe)
            && policy.failure_type.is_none_or(|kind| row.failure_type == Some(kind))
            && policy.status.is_none_or(|status| row.status == status)
    };
    let matching = (0..case.policies.len()).filter(|place| is_for(&case.policies[*place]));
    let names = |place: &usize| {
        let policy = &case.policies[*place];
        (policy.recipe.is_some(), policy.failure_type.is_some(), policy.status.is_some())
    };
    matching.max_by_key(names).expect("the default policy")
}

fn is_in_scope(case: &Case, row: &Row) -> bool {
    (row.ours || case.without_account)
        && case.statuses.contains(&row.status)
        && (!case.without_status || row.age.is_some())
        && (!case.expressions || row.met == Some(true))
}

/// What becomes of a row, whatever a run selects.
fn verdict(case: &Case, place: usize) -> &'static str {
    fate(case, place).0
}

/// The same with the reason, and the row's rank if it has one.
fn fate(case: &Case, place: usize) -> (&'static str, String, Option<usize>) {
    let row = &case.rows[place];
    if !is_in_scope(case, row) {
        let reason = match row {
            Row { ours: false, .. } if !case.without_account => "it is not of account \"system_backlog\"",
            Row { status, .. } if !case.statuses.contains(status) => "its status is none whose rows go",
            Row { age: None, .. } if case.without_status => "is NULL: it has not finished",
            _ => "it does not meet the target's condition",
        };
        return ("out of scope", reason.into(), None);
    }
    let number = policy_of(case, row);
    let policy = &case.policies[number];
    if !policy.enabled {
        let name = name_of(case, policy);
        return match name.as_str() {
            "default" => ("kept", "the default policy is disabled".into(), None),
            _ => ("held", format!("the policy for {name} is a hold"), None),
        };
    }
    let is_expired = |row: &Row| row.age.is_some_and(|age| age > policy.max_age * DAY);
    if !is_expired(row) {
        let reason = if row.age.is_some() { "it has not expired" } else { "is NULL, so it never expires" };
        return ("young", reason.into(), None);
    }
    let newer = newer_of_group(case, place).filter(|other| is_expired(other)).count();
    let keep = policy.keep;
    let is_too_old = policy.max_keep_age.is_some_and(|days| row.age > Some(days * DAY));
    let among = format!("it is among the newest, rank {} of {keep}", newer + 1);
    let (verdict, reason) = match newer {
        _ if newer < keep && !is_too_old => ("kept", among),
        _ if newer < keep => ("removable", format!("{among}, and too old to be kept")),
        _ if keep == 0 => ("removable", "it has expired, and none is kept".into()),
        1 => ("removable", "1 newer one has expired".into()),
        _ => ("removable", format!("{newer} newer ones have expired")),
    };
    (verdict, reason, Some(newer + 1))
}

/// The rows in scope of a row's recipe and policy that are newer, in no order.
fn newer_of_group(case: &Case, place: usize) -> impl Iterator<Item = &Row> {
    let row = &case.rows[place];
    let id = |place: usize| (if case.two_ids { place % 3 } else { 0 }, place);
    let of_group = case.rows.iter().enumerate().filter(move |(_, other)| {
        is_in_scope(case, other)
            && recipe_of(case, other) == recipe_of(case, row)
            && policy_of(case, other) == policy_of(case, row)
            && other.age.is_some()
    });
    let is_newer = move |(other_place, other): &(usize, &Row)| {
        (other.age, std::cmp::Reverse(id(*other_place))) < (row.age, std::cmp::Reverse(id(place)))
    };
    of_group.filter(is_newer).map(|(_, other)| other)
}

/// How long after its time a row expires, and how long after it the row can go if no other comes or goes, in microseconds: the first
/// moment at which the rules of a run would let it.
fn comes_due(case: &Case, place: usize) -> (Option<i64>, Option<i64>) {
    let row = &case.rows[place];
    let policy = &case.policies[policy_of(case, row)];
    let (true, true, Some(age)) = (is_in_scope(case, row), policy.enabled, row.age) else { return (None, None) };
    let expires = |age: i64| policy.max_age * DAY - age;
    let too_old = policy.max_keep_age.map(|days| days * DAY - age);
    let newer: Vec<i64> = newer_of_group(case, place).filter_map(|other| other.age).map(expires).collect();
    let may_go = |now: &i64| {
        let have_expired = newer.iter().filter(|other| *other <= now).count();
        *now >= expires(age) && (have_expired >= policy.keep || too_old.is_some_and(|then| *now >= then))
    };
    let moments = newer.iter().copied().chain([expires(age)]).chain(too_old);
    (Some(expires(age) + age), moments.filter(may_go).min().map(|now| now + age))
}

/// A status as it is written.
fn status_name(case: &Case, status: usize) -> &'static str {
    STATUS_TYPES[case.status_type].1[status]
}

/// The failure type of a job, which policies are written for by that of another.
fn message(case: &Case, kind: bool, job: usize) -> String {
    if case.messages { format!("job {job} is {kind}") } else { kind.to_string() }
}

/// What stands for it.
fn failure_type(case: &Case, kind: bool) -> String {
    if case.messages { format!("job # is {kind}") } else { kind.to_string() }
}

/// What people call a policy.
fn name_of(case: &Case, policy: &Policy) -> String {
    let names = [
        policy.recipe.and_then(|recipe| recipe_id(case, recipe)).map(|id| format!("group \"{id}\"")),
        policy.failure_type.map(|kind| format!("failure type \"{}\"", failure_type(case, kind))),
        policy.status.map(|status| format!("status \"{}\"", status_name(case, status))),
    ];
    let names: Vec<String> = names.into_iter().flatten().collect();
    if names.is_empty() { "default".into() } else { names.join(", ") }
}

/// The places of the rows that stay.
fn oracle(case: &Case) -> BTreeSet<usize> {
    let selected = |row: &Row| {
        case.only_recipe.is_none_or(|recipe| recipe_of(case, row) == of_kind(case.recipes, recipe))
            && case.only_type.is_none_or(|wanted| row.failure_type == Some(wanted))
            && case.only_status.is_none_or(|wanted| row.status == wanted)
    };
    let goes = |place: &usize| {
        selected(&case.rows[*place])
            && match verdict(case, *place) {
                "out of scope" => false,
                "held" => case.emergency && case.include_held,
                verdict => case.emergency || verdict == "removable",
            }
    };
    (0..case.rows.len()).filter(|place| !goes(place)).collect()
}

/// A value of one of the id types, in the order of its number.
fn literal_of(sql_type: &str, number: usize) -> String {
    match sql_type {
        "uuid" => literal(&format!("00000000-0000-0000-0000-{number:012}")),
        "integer" | "bigint" | "numeric" => literal(&number.to_string()),
        _ => literal(&format!("it's {number:05}")),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn unquoted(literal: &str) -> String {
    literal.trim_matches('\'').replace("''", "'")
}

fn or_null(literal: Option<String>) -> String {
    literal.unwrap_or_else(|| "NULL".into())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The table and its columns id, account, recipe, status, time, failure type, the other one of a recipe, and number.
fn names(case: &Case) -> (&'static str, [&'static str; 8]) {
    if case.hostile {
        let columns = [r#"i"d"#, "ac'count", "re;cipe", "Status", "updated at", "-- kind", r#"p"art"#, "n,r"];
        (r#""My ""Schema"."Gen;erations"" x""#, columns)
    } else {
        ("plain.jobs", ["id", "account", "recipe", "status", "at", "kind", "part", "nr"])
    }
}

/// The statements that make the table and its target, and those that make its rows.
fn setup(case: &Case) -> (String, String) {
    let (table, columns) = names(case);
    let [id, account, recipe, status, at, kind, part, number] = columns.map(quoted);
    let Case { id_type, recipe_type, time_type, time_zone, .. } = case;
    let status_type = STATUS_TYPES[case.status_type].0;
    let list = format!(
        "({id} {id_type}, {account} varchar, {recipe} {recipe_type}, {status} {status_type}, {at} {time_type}, {kind} text, met boolean,
          {part} boolean, {number} integer)"
    );
    let distributed =
        |how: &str, by: &str| format!("CREATE TABLE {table} {list}; SELECT create_{how}({}{by})", literal(table));
    let create = match case.kind {
        Kind::Plain => format!("CREATE TABLE {table} {list}"),
        Kind::Partitioned => format!(
            "CREATE TABLE {table} {list} PARTITION BY HASH ({id});
             CREATE TABLE half PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE other PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST ({recipe});
             CREATE TABLE others PARTITION OF other DEFAULT"
        ),
        Kind::Foreign => format!(
            "CREATE TABLE plain.far {list};
             CREATE FOREIGN TABLE {table} {list} SERVER here OPTIONS (schema_name 'plain', table_name 'far')"
        ),
        Kind::PartlyForeign => format!(
            "CREATE TABLE plain.far {list}; CREATE TABLE {table} {list} PARTITION BY HASH ({number});
             CREATE FOREIGN TABLE half PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0)
                 SERVER here OPTIONS (schema_name 'plain', table_name 'far');
             CREATE TABLE other PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
        ),
        Kind::DistributedById => distributed("distributed_table", &format!(", {}", literal(columns[0]))),
        Kind::DistributedByRecipe => distributed("distributed_table", &format!(", {}", literal(columns[2]))),
        Kind::SingleShard => distributed("distributed_table", ", NULL"),
        Kind::Reference => distributed("reference_table", ""),
    };
    let array =
        |names: &[&str]| format!("ARRAY[{}]", names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", "));
    let [id, account, recipe, status, at, kind, part, number] = columns;
    let mut written = vec![
        ("name", literal("case")),
        ("generations_table", literal(table)),
        ("statuses", array(&case.statuses.iter().map(|status| status_name(case, *status)).collect::<Vec<_>>())),
        ("recipes_table", "NULL".into()),
        ("users_table", "NULL".into()),
    ];
    written.push(if case.two_ids { ("id_columns", array(&[id, number])) } else { ("id_column", literal(id)) });
    let account = if case.without_account { "NULL".into() } else { literal(account) };
    written.push(("account_column", account));
    if case.without_account {
        written.extend([("account", "NULL".into()), ("ledger_table", "NULL".into())]);
    }
    let read = |name: &str, expression: &str| {
        literal(&if case.expressions { expression.replace("$1", &quoted(name)) } else { name.to_owned() })
    };
    let of_status = read(status, if status_type == "text" { "(lower($1))" } else { "(coalesce($1, NULL))" });
    written.push(match case.recipes {
        Recipes::OfOneColumn => ("recipe_column", read(recipe, "(coalesce($1, NULL))")),
        Recipes::OfTwoColumns => ("recipe_columns", array(&[recipe, part])),
        Recipes::None => ("recipe_column", "NULL".into()),
    });
    written.extend([
        ("status_column", if case.without_status { "NULL".into() } else { of_status }),
        ("failed_at_column", read(at, "(greatest($1, $1))")),
        ("failure_type_column", read(kind, "($1 || '')")),
        // Nodes of Citus cannot take fingerprints.
        ("fingerprint", (!case.kind.is_distributed()).to_string()),
        ("condition", if case.expressions { literal("(met)") } else { "NULL".into() }),
    ]);
    let (keys, values): (Vec<_>, Vec<_>) = written.into_iter().unzip();
    let made = format!(
        "SET TimeZone = '{time_zone}'; CREATE SCHEMA \"My \"\"Schema\"; CREATE SCHEMA plain;
         CREATE TYPE plain.\"Pha;se\" AS ENUM ('pending', 'failed', 'discarded', 'cancelled'); CREATE DOMAIN plain.word AS text CHECK (VALUE > '');
         {create};
         INSERT INTO backlog_cleanup.target ({}) VALUES ({});\n",
        keys.join(", "),
        values.join(", ")
    );
    let now = if *time_type == "timestamp" { "now() AT TIME ZONE 'UTC'" } else { "now()" };
    let mut filled = String::new();
    for (place, row) in case.rows.iter().enumerate() {
        filled += &format!(
            "INSERT INTO {table} VALUES ({}, '{}', {}, '{}', {}, {}, {}, {}, {place});\n",
            first_id(case, place),
            if row.ours { "system_backlog" } else { "somebody" },
            or_null(row.recipe.map(|recipe| match *recipe_type {
                // Equal values are one recipe.
                "numeric" if place % 2 == 1 => format!("{recipe}.00"),
                _ => literal_of(recipe_type, recipe.into()),
            })),
            status_name(case, row.status),
            or_null(row.age.map(|age| format!("{now} - interval '{age} microseconds'"))),
            or_null(row.failure_type.map(|kind| literal(&message(case, kind, place)))),
            or_null(row.met.map(|met| met.to_string())),
            or_null(row.part.map(|part| part.to_string())),
        );
    }
    (made, filled)
}

/// The value of the id column in a row.
fn first_id(case: &Case, place: usize) -> String {
    literal_of(case.id_type, if case.two_ids { place % 3 } else { place })
}

/// A row's id, as SQL.
fn id(case: &Case, place: usize) -> String {
    let (_, [id, .., number]) = names(case);
    if !case.two_ids {
        return first_id(case, place);
    }
    let document = [(id, case.id_type, first_id(case, place)), (number, "integer", place.to_string())];
    literal(&json(&document))
}

/// A recipe's id; `None` is NULL.
fn recipe_id(case: &Case, recipe: Recipe) -> Option<String> {
    let (column, part) = of_kind(case.recipes, recipe);
    let column = column.map(|column| literal_of(case.recipe_type, column.into()));
    let (_, [_, _, name, _, _, _, part_name, _]) = names(case);
    match case.recipes {
        Recipes::OfTwoColumns => Some(json(&[
            // The shorter key comes first.
            (part_name, "boolean", or_null(part.map(|part| part.to_string())).to_lowercase()),
            (name, case.recipe_type, or_null(column)),
        ])),
        _ => column.map(|column| unquoted(&column)),
    }
}

/// A document of names and values, which have types.
fn json(pairs: &[(&str, &str, String)]) -> String {
    let pairs = pairs.iter().map(|(name, sql_type, value)| {
        let value = match *sql_type {
            _ if value == "NULL" => "null".into(),
            "integer" | "bigint" | "numeric" | "boolean" => unquoted(value),
            _ => serde_json::Value::from(unquoted(value)).to_string(),
        };
        format!("{}: {value}", serde_json::Value::from(*name))
    });
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

/// The arguments that write a policy.
fn arguments(case: &Case, policy: &Policy) -> String {
    let days = |days: i64| format!("interval '{days} days'");
    format!(
        "recipe_id => {}, failure_type => {}, status => {}, max_age => {}, keep => {}, enabled => {}, max_keep_age => {}, target => 'case'",
        or_null(policy.recipe.and_then(|recipe| recipe_id(case, recipe)).map(|id| literal(&id))),
        or_null(policy.failure_type.map(|kind| literal(&message(case, kind, 100)))),
        or_null(policy.status.map(|status| literal(status_name(case, status)))),
        days(policy.max_age),
        policy.keep,
        policy.enabled,
        or_null(policy.max_keep_age.map(days)),
    )
}

/// Numbers of rows by the ids of their recipes.
type PerRecipe = BTreeMap<Option<String>, [i64; 2]>;

/// The rows in scope and, of these, those that `counts`, of each recipe that has some.
fn per_recipe(case: &Case, counts: impl Fn(usize) -> bool) -> PerRecipe {
    let mut recipes = PerRecipe::new();
    for (place, row) in case.rows.iter().enumerate().filter(|(_, row)| is_in_scope(case, row)) {
        let [in_scope, counted] = recipes.entry(recipe_id(case, recipe_of(case, row))).or_default();
        *in_scope += 1;
        *counted += i64::from(counts(place));
    }
    recipes
}

/// The same as a query says it: the recipe's id, rows in scope, rows that count.
fn said_per_recipe(client: &mut Client, query: &str) -> Result<PerRecipe, postgres::Error> {
    Ok(client.query(query, &[])?.iter().map(|row| (row.get(0), [row.get(1), row.get(2)])).collect())
}

/// Checks what the extension says beforehand of each row, and of all.
fn foretold(client: &mut Client, case: &Case) -> Result<(), postgres::Error> {
    let expected = per_recipe(case, |place| verdict(case, place) == "removable");
    for query in [
        "SELECT recipe_id, failed_count, removable_count FROM backlog_cleanup_status('case') WHERE failed_count > 0",
        "SELECT recipe, sum(removable_now + kept_now)::bigint, sum(removable_now)::bigint
         FROM backlog_cleanup_simulate(keep => NULL, target => 'case') GROUP BY recipe",
        "SELECT detail ->> 'recipeId', (detail ->> 'failedCount')::bigint, (detail ->> 'cleanedCount')::bigint
         FROM backlog_cleanup_failed_generations('case', dry_run => true) report,
              jsonb_array_elements(report::jsonb -> 'cleanupDetails') detail",
    ] {
        assert_eq!(said_per_recipe(client, query)?, expected, "{query}: {case:?}");
    }
    let (table, [.., at, _, _, number]) = names(case);
    let (number, at) = (quoted(number), quoted(at));
    for place in 0..case.rows.len() {
        // Not in one statement with the table, which Citus would run where there is no such function.
        let row = format!("SELECT {at}::text FROM {table} WHERE {number} = {place}");
        let at = or_null(client.query_one(&row, &[])?.get::<_, Option<&str>>(0).map(literal));
        let at = format!("{at}::{}", case.time_type);
        let at = if case.time_type == "timestamp" { format!("({at} AT TIME ZONE 'UTC')") } else { at };
        let since = |moment: &str| format!("(extract(epoch FROM {moment} - {at}) * 1000000)::bigint");
        let explain = format!(
            "SELECT verdict, reason, policy, rank, keep, {}, {}
             FROM backlog_cleanup_explain({}, 'case')",
            since("expires_at"),
            since("removable_at"),
            id(case, place)
        );
        let said = client.query_one(&explain, &[])?;
        let (verdict, reason, rank) = fate(case, place);
        assert_eq!(said.get::<_, &str>(0), verdict, "row {place}: {case:?}");
        assert!(
            said.get::<_, &str>(1).ends_with(&reason),
            "row {place}: {:?} {reason}: {case:?}",
            said.get::<_, &str>(1)
        );
        let policy = (verdict != "out of scope").then(|| &case.policies[policy_of(case, &case.rows[place])]);
        assert_eq!(
            said.get::<_, Option<String>>(2),
            policy.map(|policy| name_of(case, policy)),
            "row {place}: {case:?}"
        );
        assert_eq!(said.get::<_, Option<i64>>(3), rank.map(|rank| rank as i64), "row {place}: {case:?}");
        assert_eq!(said.get::<_, Option<i32>>(4), policy.map(|policy| policy.keep as i32), "row {place}: {case:?}");
        let due: (Option<i64>, Option<i64>) = (said.get(5), said.get(6));
        assert_eq!(due, comes_due(case, place), "when row {place} expires, and can go: {case:?}");
    }
    Ok(())
}

/// Numbers of rows by the name of their policy and the id of their recipe.
type PerPolicy = BTreeMap<(String, Option<String>), [i64; 4]>;

/// Checks what is simulated under the last policy: per policy and recipe how many rows go and stay now, and then.
fn simulated(client: &mut Client, now: &Case, then: &Case) -> Result<(), postgres::Error> {
    let last = then.policies.last().expect("the default policy");
    let simulate = format!("SELECT * FROM backlog_cleanup_simulate({})", arguments(then, last));
    let numbers = ["removable_now", "kept_now", "removable_then", "kept_then"];
    let said = client.query(&simulate, &[])?;
    let said = said.iter().map(|row| ((row.get("policy"), row.get("recipe")), numbers.map(|number| row.get(number))));
    let mut expected = PerPolicy::new();
    for (case, first) in [(now, 0), (then, 2)] {
        for (place, row) in case.rows.iter().enumerate().filter(|(_, row)| is_in_scope(case, row)) {
            let policy = name_of(case, &case.policies[policy_of(case, row)]);
            let group = expected.entry((policy, recipe_id(case, recipe_of(case, row)))).or_default();
            group[first + usize::from(verdict(case, place) != "removable")] += 1;
        }
    }
    assert_eq!(said.collect::<PerPolicy>(), expected, "{simulate}: {then:?}");
    Ok(())
}

/// Checks the rows in scope and the removed rows that a regular run has counted for each policy and each status.
fn counted(client: &mut Client, case: &Case) -> Result<(), postgres::Error> {
    let stays = oracle(case);
    let counts = |is_of: &dyn Fn(&Row) -> bool| {
        let in_scope = |(_, row): &(usize, &Row)| is_in_scope(case, row) && is_of(row);
        let rows: Vec<usize> = case.rows.iter().enumerate().filter(in_scope).map(|(place, _)| place).collect();
        [rows.len() as i64, rows.iter().filter(|place| !stays.contains(place)).count() as i64]
    };
    let last = "run_id = (SELECT max(id) FROM backlog_cleanup.run)";
    let mut said = BTreeMap::new();
    let policies = format!(
        "SELECT recipe_id, failure_type, status, in_scope, removed FROM backlog_cleanup.run_policy WHERE {last}"
    );
    for row in client.query(&policies, &[])? {
        let names: [Option<String>; 3] = [row.get(0), row.get(1), row.get(2)];
        said.insert(names, [row.get::<_, i64>(3), row.get::<_, i64>(4)]);
    }
    let of_policy = |place: usize| {
        let policy = &case.policies[place];
        let recipe = policy.recipe.and_then(|recipe| recipe_id(case, recipe));
        let names = [
            recipe,
            policy.failure_type.map(|kind| failure_type(case, kind)),
            policy.status.map(|status| status_name(case, status).into()),
        ];
        (names, counts(&|row| policy_of(case, row) == place))
    };
    let expected: BTreeMap<_, _> = (0..case.policies.len()).map(of_policy).collect();
    assert_eq!(said, expected, "per policy: {case:?}");
    let statuses = format!("SELECT status, in_scope, removed FROM backlog_cleanup.run_status WHERE {last}");
    let of_status = |status: &usize| {
        let name = (!case.without_status).then(|| status_name(case, *status).to_owned());
        (name, counts(&|row| row.status == *status))
    };
    let expected = case.statuses.iter().map(of_status);
    assert_eq!(said_per_recipe(client, &statuses)?, expected.collect(), "per status: {case:?}");
    Ok(())
}

/// What a run has left and how many rows it says to have removed, as the ledger does.
struct Outcome {
    left: BTreeSet<usize>,
    removed: usize,
}

fn outcome(client: &mut Client, case: &Case, batches: Batches) -> Result<Outcome, postgres::Error> {
    let (made, filled) = setup(case);
    client.batch_execute(&made)?;
    client.batch_execute(&filled)?;
    if case.index {
        let create: String = client.query_one("SELECT backlog_cleanup_index_sql('case')", &[])?.get(0);
        client.batch_execute(&create.replace(" CONCURRENTLY", ""))?;
    }
    let (last, others) = case.policies.split_last().expect("the default policy");
    for policy in others {
        client.batch_execute(&format!("SELECT backlog_cleanup_set_policy({})", arguments(case, policy)))?;
    }
    let mut before = Case { policies: others.to_vec(), ..case.clone() };
    if others.is_empty() {
        let (max_age, keep) = (1, 10);
        let default =
            Policy { recipe: None, failure_type: None, status: None, max_age, keep, max_keep_age: None, enabled: true };
        before.policies.push(default);
    }
    simulated(client, &before, case)?;
    client.batch_execute(&format!("SELECT backlog_cleanup_set_policy({})", arguments(case, last)))?;
    if batches.is_none() {
        simulated(client, case, case)?;
        foretold(client, case)?;
    }
    let (function, mode) = if case.emergency { ("emergency", "emergency") } else { ("failed_generations", "regular") };
    let only_recipe = or_null(case.only_recipe.and_then(|recipe| recipe_id(case, recipe)).map(|id| literal(&id)));
    let only_type = or_null(case.only_type.map(|kind| literal(&message(case, kind, 101))));
    let only_status =
        case.only_status.map_or("".into(), |status| format!(", status => {}", literal(status_name(case, status))));
    let include_held = if case.emergency && case.include_held { ", include_held => true" } else { "" };
    let run = |client: &mut Client, is_dry: bool| -> Result<i64, postgres::Error> {
        let run = format!(
            "SELECT coalesce(report ->> 'cleanedUpGenerations', report ->> 'removedCount')::bigint
             FROM backlog_cleanup_{function}('case', {only_recipe}, {only_type}{only_status}, dry_run => {is_dry}{include_held}) AS report"
        );
        Ok(client.query_one(&run, &[])?.get(0))
    };
    let would_remove = run(client, true)?;
    let removed = match batches {
        None => run(client, false)?,
        Some((batch_size, workers)) => {
            client.batch_execute(&format!(
                "CALL backlog_cleanup_run('case', '{mode}', {batch_size}, workers => {workers},
                                          recipe_id => {only_recipe}, failure_type => {only_type}{only_status}{include_held})"
            ))?;
            number(client, "SELECT removed FROM backlog_cleanup.run ORDER BY id DESC LIMIT 1")
        }
    };
    assert_eq!(would_remove, removed, "a dry run reports what a real one does: {case:?}, {batches:?}");
    let stays = oracle(case);
    let gone = "SELECT recipe_id, 0::bigint, cleaned_count::bigint FROM backlog_cleanup.run_recipe
                WHERE cleaned_count > 0 AND run_id = (SELECT max(id) FROM backlog_cleanup.run)";
    let mut expected = per_recipe(case, |place| !stays.contains(&place));
    expected.retain(|_, [in_scope, gone]| {
        *in_scope = 0;
        *gone > 0
    });
    assert_eq!(said_per_recipe(client, gone)?, expected, "the history: {case:?}");
    if !case.emergency {
        counted(client, case)?;
    }
    assert_eq!(run(client, false)?, 0, "a second run removes nothing");
    if !case.without_account {
        assert_eq!(number(client, "SELECT sum(amount) FROM credit_transactions"), removed, "the ledger");
    }
    let (table, [.., place]) = names(case);
    let left: Vec<i32> = column(client, &format!("SELECT {} FROM {table}", quoted(place)));
    Ok(Outcome { left: left.into_iter().map(|place| place as usize).collect(), removed: removed as usize })
}

fn must_be_exact(case: &Case, outcome: Result<Outcome, postgres::Error>) -> Result<(), TestCaseError> {
    let outcome = outcome.map_err(|failure| TestCaseError::fail(format!("{:?}", failure.as_db_error())))?;
    let expected = oracle(case);
    prop_assert_eq!(outcome.removed, case.rows.len() - expected.len());
    prop_assert_eq!(outcome.left, expected);
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn exactly_the_removable_rows_go() {
    let cluster = Cluster::start("");
    let client = RefCell::new(cluster.platform());
    let each = |case| {
        let client = &mut *client.borrow_mut();
        client.batch_execute("BEGIN").unwrap();
        let outcome = outcome(client, &case, None);
        client.batch_execute("ROLLBACK").unwrap();
        must_be_exact(&case, outcome)
    };
    runner(190).run(&case(&[Kind::Plain, Kind::Partitioned]), each).unwrap();
}

/// Runs cases with foreign tables of the same server.
fn each_is_exact(cases: u32, kinds: &'static [Kind], batches: impl Strategy<Value = Batches>) {
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(&cluster.as_server("here", "postgres")).unwrap();
    each_is_exact_for(client, cases, kinds, batches);
}

/// Runs cases that are committed, so that time goes by between the rows and the run.
fn each_is_exact_for(client: Client, cases: u32, kinds: &'static [Kind], batches: impl Strategy<Value = Batches>) {
    const HOUR: i64 = DAY / 24;
    let client = RefCell::new(client);
    let each = |(mut case, batches): (Case, Batches)| {
        for age in case.rows.iter_mut().filter_map(|row| row.age.as_mut()) {
            if let Some(days) = (0..5).find(|days| (*age - days * DAY).abs() < HOUR) {
                *age = if *age > days * DAY { days * DAY + HOUR } else { days * DAY - HOUR };
            }
        }
        let client = &mut *client.borrow_mut();
        let outcome = outcome(client, &case, batches);
        client
            .batch_execute(
                "DELETE FROM backlog_cleanup.target WHERE name = 'case'; TRUNCATE credit_transactions;
                 DROP SCHEMA IF EXISTS \"My \"\"Schema\", plain CASCADE",
            )
            .unwrap();
        must_be_exact(&case, outcome)
    };
    runner(cases).run(&(case(kinds), batches), each).unwrap();
}

#[test]
fn exactly_the_removable_rows_go_in_batches() {
    let batches = (1..20i32, 1..=2i32).prop_map(Some);
    each_is_exact(60, &[Kind::Plain, Kind::Partitioned], batches);
}

#[test]
fn exactly_the_removable_rows_go_by_key() {
    let batches = prop::option::of((1..20i32, 1..=2i32));
    each_is_exact(50, &[Kind::Foreign, Kind::PartlyForeign], batches);
}

/// Runs cases of tables that Citus distributes, on its coordinator.
pub fn exactly_the_removable_rows_go_from_distributed_tables(client: Client, cases: u32) {
    let kinds = &[Kind::DistributedById, Kind::DistributedByRecipe, Kind::Reference, Kind::SingleShard];
    each_is_exact_for(client, cases, kinds, prop::option::of((1..20i32, 1..=2i32)));
}
