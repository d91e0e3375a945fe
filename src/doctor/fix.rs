use pgrx::pg_sys::NodeTag;

use crate::postgres::parse::parse;

/// What stands in hints for a value that only the reader knows.
const PLACEHOLDERS: [&str; 5] =
    ["'...'", "'column'", "'schema.table'", "'a timestamp or timestamptz column'", "'schema, pg_temp'"];

/// Whether a fix can be typed as it stands, alone: it is one statement.
pub fn is_statement(fix: &str) -> bool {
    parse(fix).is_some_and(|statements| statements.kinds.len() == 1)
}

/// The fix that an error's hint is: a change of a target or a policy. Another hint is for somebody who looks first. To forget who
/// has named a target's tables gives that role theirs.
pub fn of_hint(hint: &str) -> Option<String> {
    let kinds = parse(hint)?.kinds;
    let changes = matches!(kinds[..], [NodeTag::T_UpdateStmt] | [NodeTag::T_InsertStmt]);
    let is_whole = !PLACEHOLDERS.iter().any(|placeholder| hint.contains(placeholder));
    (changes && is_whole && !hint.contains("named_by")).then(|| hint.to_owned())
}
