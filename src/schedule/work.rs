use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

use backlog_cleanup_report::{DEFAULT_TARGET, Mode};
use pgrx::pg_sys::{self, NodeTag};
use pgrx::spi::{quote_identifier, quote_literal};

use crate::postgres::block::{self, Block};
use crate::postgres::parse::{Call, Statement, parse};
use crate::postgres::value::{Literal, Value};
use crate::schedule::course::{Fate, fates};
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
    /// The role that its command becomes before.
    pub role: Option<String>,
}

impl Work {
    /// A run of which only the job's execution would tell more.
    fn unclear(function: &'static str) -> Work {
        let mode = if function == EMERGENCY { Mode::Emergency } else { Mode::Regular };
        Work { function, target: None, mode, is_selective: false, is_alone: false, fails: None, role: None }
    }

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
    let told = if command.len() > LONGEST { unread(command) } else { read(command, schema) };
    TOLD.with_borrow_mut(|known| {
        if known.len() == REMEMBERED {
            known.clear();
        }
        known.insert(key, told.clone());
    });
    told
}

/// What a command tells that is too long to be parsed: what it mentions.
fn unread(command: &str) -> Told {
    let named = [FAILED_GENERATIONS, EMERGENCY, RUN].into_iter().find(|function| command.contains(function));
    Told {
        works: named.map(Work::unclear).into_iter().collect(),
        ticks: command.contains(TICK),
        elsewhere: Vec::new(),
        tables: Vec::new(),
    }
}

/// What the calls of a command tell: with any arguments, in whatever statement executes them, in DO, among others. What a function of
/// somebody else calls is not seen. Neither a dry run nor a rehearsal is a run.
fn read(command: &str, schema: &str) -> Told {
    let statements = parse(command).unwrap_or_default();
    let mut told = Told { works: Vec::new(), ticks: false, elsewhere: Vec::new(), tables: tables(&statements) };
    let is_alone = statements.len() == 1;
    for (statement, fate) in statements.iter().zip(fates(&statements, has_background_workers())) {
        let mut calls: Vec<(&Call, Option<String>)> = Vec::new();
        for (place, call) in statement.calls.iter().enumerate() {
            let is_called = place == 0 && statement.kind == NodeTag::T_CallStmt;
            let fails = match call.function == RUN {
                true if !is_called => Some("stands in no CALL: it is a procedure"),
                true => (!is_alone).then_some(BESIDE),
                false => is_called.then_some("stands in a CALL: it is no procedure"),
            };
            calls.push((call, fails.map(str::to_owned)));
        }
        let block = statement.block.as_ref().and_then(|body| block::read(body));
        if let Some(block) = &block {
            calls.extend(block.calls.iter().map(|call| (call, in_block(call, block, is_alone))));
            told.works.extend(mentioned(block));
        }
        for (call, fails) in calls {
            told.elsewhere.extend(elsewhere(call, schema));
            if !is_ours(call, schema) {
                continue;
            }
            let fails = fails.or_else(|| fate.fails.clone()).or_else(|| not_found(call, &fate, schema));
            told.ticks |= call.function == TICK && fails.is_none();
            told.works.extend(work(call).map(|work| Work {
                fails: fails.or(work.fails),
                role: fate.role.clone(),
                is_alone: is_alone
                    && statement.kind == NodeTag::T_SelectStmt
                    && statement.calls.len() == 1
                    && call.has_at_most(1),
                ..work
            }));
        }
    }
    told
}

/// Whether pg_cron does commands in background workers. That changes only when the server starts.
fn has_background_workers() -> bool {
    // SAFETY: the names are C strings; what it returns, if anything, is one, too.
    let value = unsafe { pg_sys::GetConfigOption(c"cron.use_background_workers".as_ptr(), true, false) };
    // SAFETY: the same.
    !value.is_null() && unsafe { CStr::from_ptr(value) } == c"on"
}

/// Why a call in a block fails, or removes nothing, by what else is in the block.
fn in_block(call: &Call, block: &Block, is_alone: bool) -> Option<String> {
    let has = |word: &str| block.words.iter().any(|of| of.eq_ignore_ascii_case(word));
    if !is_alone && (call.function == RUN || has("commit")) {
        return Some(BESIDE.into());
    }
    if call.function != RUN {
        // Without branches, all of it is rolled back.
        let is_undone = has("rollback") && !["commit", "if", "case", "loop", "exception"].into_iter().any(has);
        return is_undone.then(|| "is rolled back".into());
    }
    if has("exception") {
        return Some("stands in a block with EXCEPTION, which cannot commit".into());
    }
    let has_variable = call.argument(REPORT, "report").is_some();
    (!has_variable).then(|| "gives PL/pgSQL no variable for \"report\"".into())
}

/// The runs that a block mentions in no call that was found: in an expression, or in a string for EXECUTE.
fn mentioned(block: &Block) -> impl Iterator<Item = Work> {
    let is_mentioned = |function: &&str| {
        let mentioned = block.words.iter().filter(|word| word.to_ascii_lowercase().contains(*function)).count();
        mentioned > block.calls.iter().filter(|call| call.function == **function).count()
    };
    [FAILED_GENERATIONS, EMERGENCY, RUN]
        .into_iter()
        .filter(is_mentioned)
        .map(Work::unclear)
        .collect::<Vec<_>>()
        .into_iter()
}

fn is_ours(call: &Call, schema: &str) -> bool {
    call.schema.as_deref().is_none_or(|name| quote_identifier(name) == schema)
}

/// Why a call without a schema finds no function, if the command says where to look.
fn not_found(call: &Call, fate: &Fate, schema: &str) -> Option<String> {
    let path = fate.search_path.as_ref().filter(|_| call.schema.is_none())?;
    let is_there = path.iter().any(|name| name == "$user" || quote_identifier(name) == schema);
    (!is_there).then(|| format!("names no schema, and its command sets a search_path without {schema}"))
}

/// The function that a call names by one of these names in another schema than the extension's, qualified and quoted.
fn elsewhere(call: &Call, schema: &str) -> Option<String> {
    let is_one = [FAILED_GENERATIONS, EMERGENCY, RUN, TICK].contains(&call.function.as_str());
    (is_one && !is_ours(call, schema))
        .then(|| format!("{}.{}", quote_identifier(call.schema.as_deref().unwrap_or_default()), call.function))
}

/// The tables that a command of one statement names. Statements before another may create tables for it.
fn tables(statements: &[Statement]) -> Vec<(Option<String>, String)> {
    let [Statement { tables, with, .. }] = statements else { return Vec::new() };
    tables.iter().filter(|(schema, name)| schema.is_some() || !with.contains(name)).cloned().collect()
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

/// The first argument with a value of a type that is not its own, nor becomes it without a cast.
fn mistyped(arguments: &[&str], call: &Call) -> Option<String> {
    let is_mistyped = |(place, argument): &(usize, &&str)| {
        call.literal(*place, argument).is_some_and(|literal| match **argument {
            "dry_run" | "rehearse" | "force" | "include_held" => literal != Literal::Boolean,
            "batch_size" | "workers" | "max_rows" | "max_rows_per_second" => literal != Literal::Integer,
            _ => true,
        })
    };
    let (_, argument) = arguments.iter().enumerate().find(is_mistyped)?;
    Some(format!("has a value of \"{argument}\" of another type"))
}

fn work(call: &Call) -> Option<Work> {
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
    let is_trial = ["dry_run", "rehearse"].iter().any(|name| given(name).is_some_and(|value| !value.is_false()));
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
    let fails = unread
        .or(unknown)
        .or_else(|| mistyped(arguments, call))
        .or_else(|| refused(arguments, |name| given(name).cloned(), mode));
    (!is_trial).then_some(Work { target, is_selective, fails, mode, ..Work::unclear(function) })
}
