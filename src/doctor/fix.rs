use pgrx::pg_sys::NodeTag;

use crate::postgres::parse::{Statement, parse};

/// What stands in hints for a value that only the reader knows.
const PLACEHOLDERS: [&str; 5] =
    ["'...'", "'column'", "'schema.table'", "'a timestamp or timestamptz column'", "'schema, pg_temp'"];

/// Nobody types a longer fix. It could nest too deep for whoever looks into it.
const LONGEST: usize = 10_000;

fn parsed(text: &str) -> Option<Vec<Statement>> {
    if text.len() > LONGEST { None } else { parse(text) }
}

/// Whether a fix can be typed as it stands, alone: it is one statement.
pub fn is_statement(fix: &str) -> bool {
    parsed(fix).is_some_and(|statements| statements.len() == 1)
}

/// What an error's hint is worth as a fix.
pub enum Hint {
    Fix,
    /// A right of a table's owner, or a change of a target that somebody has to complete, or has to think about first: to forget who
    /// has named a target's tables gives that role theirs.
    Decision,
    /// Prose, or a statement that gives something away.
    Advice,
}

pub fn of_hint(hint: &str) -> Hint {
    let statements = parsed(hint).unwrap_or_default();
    let kind = if let [statement] = &statements[..] { Some(statement.kind) } else { None };
    if kind == Some(NodeTag::T_GrantStmt) {
        return Hint::Decision;
    }
    let changes = matches!(kind, Some(NodeTag::T_UpdateStmt | NodeTag::T_InsertStmt));
    let is_whole = !PLACEHOLDERS.iter().any(|placeholder| hint.contains(placeholder));
    match (changes, is_whole && !hint.contains("named_by")) {
        (true, true) => Hint::Fix,
        (true, false) => Hint::Decision,
        _ => Hint::Advice,
    }
}
