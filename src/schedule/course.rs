//! What becomes of each statement of a job's command, by those around it: pg_cron does a command as one text.

use std::collections::HashMap;

use crate::postgres::parse::{Call, Statement};
use crate::postgres::step::{Setting, Step};
use crate::postgres::value::Value;

/// What a statement is executed under, or why it has no effect.
#[derive(Clone, Default)]
pub struct Fate {
    pub fails: Option<String>,
    /// Where names without a schema are found, if the command says so.
    pub search_path: Option<Vec<String>>,
    /// The role that the command has become.
    pub role: Option<String>,
}

const UNREACHED: &str = "is never reached, since nothing executes or fetches it";
const ROLLED_BACK: &str = "is rolled back";
const UNCOMMITTED: &str = "is rolled back, since no COMMIT follows its BEGIN";
const IN_WORKER: &str = "is rolled back: a background worker of pg_cron does its command in one transaction, which BEGIN, SAVEPOINT and ROLLBACK undo";

/// The fates of the statements of a command. To a background worker COMMIT means nothing, and BEGIN, SAVEPOINT and ROLLBACK undo also
/// what comes behind them. A connection does a command as that of any client.
pub fn fates(statements: &[Statement], in_worker: bool) -> Vec<Fate> {
    let unreached = Fate { fails: Some(UNREACHED.into()), ..Fate::default() };
    let mut course = Course { in_worker, fates: vec![unreached; statements.len()], ..Course::default() };
    for (place, statement) in statements.iter().enumerate() {
        course.step(place, statement);
        if let Some(why) = fails(statement, statements) {
            course.undo(0, &why);
            course.failed = Some(why);
        }
    }
    if course.is_open {
        course.undo(0, if in_worker { IN_WORKER } else { UNCOMMITTED });
    }
    course.fates
}

/// Why a statement fails among these, and so ends the command.
fn fails(statement: &Statement, all: &[Statement]) -> Option<String> {
    let is_there = |made: &&String| !all.iter().any(|statement| statement.drops.contains(made));
    match statement.step {
        Step::Alone(what) if all.len() > 1 => Some(format!("stands beside {what}, which fails in a transaction")),
        _ => {
            let made = statement.makes.as_ref().filter(is_there)?;
            Some(format!("stands in what makes table \"{made}\", or beside it: the table is there the next time"))
        }
    }
}

#[derive(Default)]
struct Course<'a> {
    in_worker: bool,
    fates: Vec<Fate>,
    /// The statements that were executed since the last COMMIT.
    done: Vec<usize>,
    /// What PREPARE and DECLARE keep.
    kept: HashMap<&'a str, usize>,
    savepoints: Vec<(&'a str, usize)>,
    settings: Vec<Setting>,
    /// Whether what is done is undone unless a COMMIT follows.
    is_open: bool,
    failed: Option<String>,
}

impl<'a> Course<'a> {
    fn step(&mut self, place: usize, statement: &'a Statement) {
        match &statement.step {
            Step::Run | Step::Alone(_) => self.execute(place),
            Step::Never(why) => self.fates[place].fails = Some((*why).into()),
            Step::Keep(name) => {
                self.kept.insert(name, place);
            }
            Step::Use(name) => {
                if let Some(kept) = self.kept.get(name.as_str()) {
                    self.execute(*kept);
                }
            }
            Step::Set(settings) => self.settings.extend(settings.iter().cloned()),
            Step::Commit { .. } if self.in_worker => {}
            Step::Begin(_) | Step::Savepoint(_) | Step::RollbackTo(_) | Step::Rollback { .. } if self.in_worker => {
                self.is_open = true;
            }
            Step::Begin(settings) => {
                self.is_open = true;
                self.settings.extend(settings.iter().cloned());
            }
            Step::Commit { chains } => {
                self.done.clear();
                self.begin_next(*chains);
            }
            Step::Rollback { chains } => {
                self.undo(0, ROLLED_BACK);
                self.settings.clear();
                self.begin_next(*chains);
            }
            Step::Savepoint(name) => self.savepoints.push((name, self.done.len())),
            Step::RollbackTo(name) => {
                let savepoint = self.savepoints.iter().rev().find(|(known, _)| known == name);
                if let Some((_, done)) = savepoint {
                    self.undo(*done, ROLLED_BACK);
                }
            }
        }
        self.settings.extend(statement.calls.iter().filter_map(set_config));
    }

    fn execute(&mut self, place: usize) {
        self.fates[place] = self.under_settings();
        self.fates[place].fails = self.failed.clone().or(self.fates[place].fails.take());
        self.done.push(place);
    }

    fn undo(&mut self, from: usize, why: &str) {
        for place in self.done.drain(from..) {
            self.fates[place].fails.get_or_insert_with(|| why.into());
        }
    }

    fn begin_next(&mut self, is_open: bool) {
        self.is_open = is_open;
        self.savepoints.clear();
        self.settings.retain(|setting| !setting.is_local && setting.name.as_deref() != Some("transaction_read_only"));
        if self.is_on("default_transaction_read_only") {
            let (name, values) = (Some("transaction_read_only".into()), Some(vec![Value::Bool(true)]));
            self.settings.push(Setting { name, values, is_local: true });
        }
    }

    /// The values that a setting has got, and that were not taken back.
    fn setting(&self, names: &[&str]) -> Option<&[Value]> {
        let is_meant = |setting: &&Setting| match &setting.name {
            Some(name) => names.contains(&name.as_str()),
            // RESET ALL takes no role back.
            None => !names.contains(&"role"),
        };
        self.settings.iter().rev().find(is_meant)?.values.as_deref()
    }

    fn is_on(&self, name: &str) -> bool {
        let is_on = |value: &Value| !value.is_false() && *value != Value::Number(0);
        self.setting(&[name]).is_some_and(|values| values.iter().any(is_on))
    }

    fn under_settings(&self) -> Fate {
        let text = |names: &[&str]| match self.setting(names) {
            Some([Value::Text(text)]) => Some(text.clone()),
            _ => None,
        };
        let is_replica = text(&["session_replication_role"]).is_some_and(|role| role.eq_ignore_ascii_case("replica"));
        let fails = if is_replica {
            Some("stands behind session_replication_role = replica, under which runs are refused")
        } else {
            self.is_on("transaction_read_only").then_some("stands in a read-only transaction")
        };
        let name = |value: &Value| if let Value::Text(name) = value { Some(name.clone()) } else { None };
        Fate {
            fails: fails.map(str::to_owned),
            search_path: self.setting(&["search_path"]).and_then(|values| values.iter().map(name).collect()),
            role: text(&["role", "session_authorization"]).filter(|role| role != "none"),
        }
    }
}

/// What a call of `set_config` sets, as far as its text tells.
fn set_config(call: &Call) -> Option<Setting> {
    let [Some(Value::Text(name)), Some(Value::Text(value))] = [0, 1].map(|place| call.argument(place, "")) else {
        return None;
    };
    let name = Some(name.to_ascii_lowercase()).filter(|_| call.function == "set_config")?;
    let is_local = call.argument(2, "") == Some(&Value::Bool(true));
    let values = match name.as_str() {
        "search_path" => value.split(',').map(|schema| Value::Text(unquoted(schema.trim()))).collect(),
        _ => vec![Value::Text(value.clone())],
    };
    Some(Setting { name: Some(name), values: Some(values), is_local })
}

fn unquoted(name: &str) -> String {
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    quoted.map_or_else(|| name.to_ascii_lowercase(), |name| name.replace("\"\"", "\""))
}
