use std::cell::RefCell;
use std::collections::HashMap;

use backlog_cleanup_report::{DEFAULT_TARGET, Mode};
use pgrx::pg_sys::NodeTag;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::postgres::block;
use crate::postgres::parse::{Call, Statements, Value, parse};
use crate::target::pace::Pace;

/// The functions that run a target, as its first argument says, and where the others have what tells their runs apart.
const FAILED_GENERATIONS: &str = "backlog_cleanup_failed_generations";
const EMERGENCY: &str = "backlog_cleanup_emergency";
const RUN: &str = "backlog_cleanup_run";

const TICK: &str = "backlog_cleanup_tick";

/// Their arguments, in order.
const REGULAR_ARGUMENTS: [&str; 7] = ["target", "recipe_id", "failure_type", "dry_run", "force", "rehearse", "status"];
const EMERGENCY_ARGUMENTS: [&str; 7] =
    ["target", "recipe_id", "failure_type", "dry_run", "rehearse", "include_held", "status"];
const RUN_ARGUMENTS: [&str; 14] = [
    "target",
    "mode",
    "batch_size",
    "pause",
    "max_duration",
    "max_rows",
    "workers",
    "recipe_id",
    "failure_type",
    "force",
    "include_held",
    "max_rows_per_second",
    "status",
    "report",
];

/// The place of the argument of `backlog_cleanup_run` that it returns.
const REPORT: usize = 13;

const BESIDE: &str = "stands beside other statements, with which it is one transaction";

/// One run that a job does.
#[derive(Clone, PartialEq)]
pub struct Work {
    function: &'static str,
    /// `None` if only the job's execution would tell.
    pub target: Option<String>,
    pub mode: Mode,
    /// Limited to a recipe or a failure type.
    pub is_selective: bool,
    /// Whether the command is a SELECT of its call and nothing else, and the call says the target and nothing else.
    pub is_alone: bool,
    /// Why it fails each time, or removes nothing.
    pub fails: Option<String>,
}

impl Work {
    /// Whether it is a regular run of the whole target.
    pub fn is_regular_run_of(&self, target: &str) -> bool {
        self.target.as_deref() == Some(target) && self.mode == Mode::Regular && !self.is_selective
    }

    /// Whether it is a run in one transaction.
    pub fn is_one_transaction(&self) -> bool {
        self.function != RUN
    }

    /// Whether it is a run that works only within `run_between`.
    pub fn waits_for_window(&self) -> bool {
        self.mode == Mode::Regular && !self.is_one_transaction()
    }

    pub fn function(&self) -> &'static str {
        self.function
    }

    /// The call as far as a run is told by it: what else stands in a command is its role's alone.
    pub fn call(&self) -> String {
        format!("{}({})", self.function, self.target.as_ref().map_or("...".into(), quote_literal))
    }
}

/// Longer commands are not parsed, in bytes: anybody with a job could take memory and time of whoever looks at it.
const LONGEST: usize = 2_048;

/// So many commands are remembered with their runs.
const REMEMBERED: usize = 2_000;

thread_local! {
    /// By the extension's schema and the command: a report asks for all jobs several times, and a job runs every night.
    static TOLD: RefCell<HashMap<(String, String), Told>> = RefCell::default();
}

/// What the command of a job tells.
#[derive(Clone)]
pub struct Told {
    pub works: Vec<Work>,
    /// Whether it ticks.
    pub ticks: bool,
    /// Functions of our names in other schemas: of an extension that had another one, or somebody's own.
    pub elsewhere: Vec<String>,
    /// The tables that have to be there for its only statement, with their schemas.
    pub tables: Vec<(Option<String>, String)>,
}

/// What a command tells, read once per session. `schema` is the extension's, quoted.
pub fn told(command: &str, schema: &str) -> Told {
    let key = (schema.to_owned(), command.to_owned());
    if let Some(told) = TOLD.with_borrow(|known| known.get(&key).cloned()) {
        return told;
    }
    let told = Told {
        works: works(command, schema),
        ticks: ticks(command, schema),
        elsewhere: calls_elsewhere(command, schema),
        tables: tables(command),
    };
    TOLD.with_borrow_mut(|known| {
        if known.len() == REMEMBERED {
            known.clear();
        }
        known.insert(key, told.clone());
    });
    told
}

/// The runs of a job, by what its command calls: with any arguments, in SELECT, CALL, a DO block, among other statements.
/// What a function of somebody else calls is not seen. Neither a dry run
/// nor a rehearsal is one.
fn works(command: &str, schema: &str) -> Vec<Work> {
    if command.len() > LONGEST {
        let named = [FAILED_GENERATIONS, EMERGENCY, RUN].into_iter().find(|function| command.contains(function));
        let mode = |function| if function == EMERGENCY { Mode::Emergency } else { Mode::Regular };
        return named
            .map(|function| Work {
                function,
                target: None,
                mode: mode(function),
                is_selective: false,
                is_alone: false,
                fails: None,
            })
            .into_iter()
            .collect();
    }
    let Some(statements) = parse(command) else { return Vec::new() };
    let mut works: Vec<Work> = statements.calls.iter().filter_map(|call| work(call, schema)).collect();
    for work in &mut works {
        if statements.rolls_back {
            work.fails = Some("is rolled back".into());
        } else if statements.is_replica {
            work.fails = Some("stands behind session_replication_role = replica, under which runs are refused".into());
        } else if statements.is_read_only {
            work.fails = Some("stands in a read-only transaction".into());
        } else if statements.is_idle && statements.kinds.len() == 1 {
            work.fails = Some("is never reached, by its WHERE or LIMIT".into());
        } else if work.function == RUN && statements.kinds.len() > 1 {
            work.fails = Some(BESIDE.into());
        }
    }
    if let ([NodeTag::T_SelectStmt], [call], [work]) = (&statements.kinds[..], &statements.calls[..], &mut works[..]) {
        work.is_alone = call.has_at_most(1);
    }
    for body in &statements.blocks {
        let Some(block) = block::read(body) else { continue };
        let has = |word: &str| block.words.iter().any(|of| of.eq_ignore_ascii_case(word));
        let has_handler = has("exception");
        // Without branches, all of it is rolled back.
        let rolls_back = has("rollback") && !["commit", "if", "case", "loop", "exception"].into_iter().any(has);
        let in_block = |call: &Call| {
            let mut work = work(call, schema)?;
            if work.function == RUN && work.fails.is_none() {
                work.fails = match call.argument(REPORT, "report") {
                    _ if statements.kinds.len() > 1 => Some(BESIDE.into()),
                    _ if has_handler => Some("stands in a block with EXCEPTION, which cannot commit".into()),
                    None => Some("gives PL/pgSQL no variable for \"report\"".into()),
                    Some(_) => None,
                };
            }
            if rolls_back && work.function != RUN {
                work.fails = Some("is rolled back".into());
            }
            Some(work)
        };
        let found: Vec<Work> = block.calls.iter().filter_map(in_block).collect();
        for function in [FAILED_GENERATIONS, EMERGENCY, RUN] {
            // A name that stands in no call that was found: in an expression, or in a string for EXECUTE.
            let mentioned = block.words.iter().filter(|word| word.to_ascii_lowercase().contains(function)).count();
            if mentioned > block.calls.iter().filter(|call| call.function == function).count() {
                let mode = if function == EMERGENCY { Mode::Emergency } else { Mode::Regular };
                works.push(Work { function, target: None, mode, is_selective: false, is_alone: false, fails: None });
            }
        }
        works.extend(found);
    }
    works
}

/// Whether a command calls the tick.
fn ticks(command: &str, schema: &str) -> bool {
    let Some(statements) = Some(command).filter(|command| command.len() <= LONGEST).and_then(parse) else {
        return command.contains(TICK);
    };
    let in_blocks = statements.blocks.iter().filter_map(|body| block::read(body)).flat_map(|block| block.calls);
    let is_tick = |call: Call| call.function == TICK && call.schema.is_none_or(|name| quote_identifier(name) == schema);
    statements.calls.into_iter().chain(in_blocks).any(is_tick)
}

/// The functions that a command calls by these names in another schema than the extension's, qualified and quoted.
fn calls_elsewhere(command: &str, schema: &str) -> Vec<String> {
    let Some(statements) = Some(command).filter(|command| command.len() <= LONGEST).and_then(parse) else {
        return Vec::new();
    };
    let in_blocks = statements.blocks.iter().filter_map(|body| block::read(body)).flat_map(|block| block.calls);
    let name = |call: Call| {
        let there = quote_identifier(call.schema?);
        let is_one = [FAILED_GENERATIONS, EMERGENCY, RUN, TICK].contains(&call.function.as_str());
        (is_one && there != schema).then(|| format!("{there}.{}", call.function))
    };
    statements.calls.into_iter().chain(in_blocks).filter_map(name).collect()
}

/// The tables that a command of one statement names. Statements before another may create tables for it.
fn tables(command: &str) -> Vec<(Option<String>, String)> {
    let parsed = Some(command).filter(|command| command.len() <= LONGEST).and_then(parse);
    let Some(Statements { kinds, mut tables, with, .. }) = parsed.filter(|parsed| parsed.kinds.len() == 1) else {
        return Vec::new();
    };
    let is_made = kinds == [NodeTag::T_DoStmt];
    tables.retain(|(schema, name)| !is_made && (schema.is_some() || !with.contains(name)));
    tables
}

/// The first argument whose value the run refuses.
fn refused(arguments: &[&str], given: impl Fn(&str) -> Option<Value>, mode: Mode) -> Option<String> {
    let is_refused = |argument: &&&str| match (**argument, given(argument)) {
        ("mode", Some(Value::Text(mode))) => mode.parse::<Mode>().is_err(),
        (argument, Some(Value::Number(value))) => !Pace::allows(argument, value),
        ("force", Some(Value::Bool(true))) => mode == Mode::Emergency,
        ("include_held", Some(Value::Bool(true))) => mode == Mode::Regular,
        _ => false,
    };
    arguments.iter().find(is_refused).map(|argument| format!("has a value of \"{argument}\" that is refused"))
}

/// Whether a value is false for certain, as PostgreSQL reads a boolean.
fn is_false(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Text(text) => {
            let text = text.trim().to_ascii_lowercase();
            text == "0" || !text.is_empty() && ["false", "no", "off"].iter().any(|word| word.starts_with(&text))
        }
        _ => false,
    }
}

fn work(call: &Call, schema: &str) -> Option<Work> {
    if call.schema.as_deref().is_some_and(|name| quote_identifier(name) != schema) {
        return None;
    }
    let word = |place: usize, name: &str| match call.argument(place, name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let (function, mode, arguments) = match call.function.as_str() {
        FAILED_GENERATIONS => (FAILED_GENERATIONS, Some(Mode::Regular), &REGULAR_ARGUMENTS[..]),
        EMERGENCY => (EMERGENCY, Some(Mode::Emergency), &EMERGENCY_ARGUMENTS[..]),
        RUN => (RUN, None, &RUN_ARGUMENTS[..]),
        _ => return None,
    };
    let given = |name: &str| {
        let place = arguments.iter().position(|argument| *argument == name)?;
        call.argument(place, name)
    };
    let is_trial = ["dry_run", "rehearse"].iter().any(|name| given(name).is_some_and(|value| !is_false(value)));
    let target = match call.argument(0, "target") {
        None => Some(DEFAULT_TARGET.to_owned()),
        Some(Value::Text(target)) => Some(target.clone()),
        Some(_) => None,
    };
    let mode = mode.unwrap_or_else(|| word(1, "mode").and_then(|mode| mode.parse().ok()).unwrap_or(Mode::Regular));
    let is_selective = ["recipe_id", "failure_type", "status"]
        .iter()
        .any(|name| given(name).is_some_and(|value| *value != Value::Null));
    let unknown = call.unknown(arguments).map(|argument| format!("has an argument {argument}, which there is not"));
    let unread = call.is_unread.then(|| "is never reached, since nothing reads it in WITH".to_owned());
    let fails = unread.or(unknown).or_else(|| refused(arguments, |name| given(name).cloned(), mode));
    (!is_trial).then_some(Work { function, target, mode, is_selective, is_alone: false, fails })
}
