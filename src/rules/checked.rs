use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::{Map, Value};

use crate::extension;
use crate::postgres::acting::who;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::rules::named::{look_at_policies, lost};
use crate::target::check::find;
use crate::target::leaf::leaves;
use crate::target::limits::beyond;
use crate::target::mistake::Mistake;
use crate::target::row::{row, row_of};
use crate::target::{Target, TargetRow};

/// Checks a target that a statement has written, as `backlog_cleanup_check` does, with a hint that corrects that statement: `before` is the
/// row before it as JSON, an empty object if the statement inserts it. Beside mistakes tells of the policies that would not be for the same
/// rows any more. Writes its expressions as PostgreSQL has understood them, so that they mean the same tomorrow. Warns of what nothing
/// limits, and of values that nothing uses. Errors: those of `backlog_cleanup_check`.
#[pg_extern(sql = false)]
fn check_written_target(target: Option<&str>, before: Option<&str>) -> Result<()> {
    let Some(target) = found(row(target)?, before, Vec::new())? else { return Ok(()) };
    leaves(&target)?;
    if target.write_expressions()? {
        // That has checked it once more.
        return Ok(());
    }
    let warn = |message: String, hint: String| {
        let warning = ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "backlog_cleanup");
        warning.set_hint(hint).report(PgLogLevel::WARNING);
    };
    if let Some((message, hint)) = target.without_limit() {
        warn(message, hint);
    }
    for unused in target.unused()? {
        let refusal = target.refusal(&[unused], None);
        warn(refusal.message().to_owned(), refusal.hint().unwrap_or_default().to_owned());
    }
    Ok(())
}

/// Tells at once all limits that a row of `target` is beyond, and what else is wrong in it: PostgreSQL would end the statement at the first
/// limit, before the row can be checked. `row` and `before`, an empty object if the row is new, are JSON objects. What else is wrong is told to
/// whoever may name the tables. Errors: 23514, 23502.
#[pg_extern(sql = false)]
fn check_limits_of_target(row: Option<&str>, before: Option<&str>) -> Result<()> {
    let Some(Ok(mut row)) = row.map(serde_json::from_str::<Map<String, Value>>) else { return Ok(()) };
    let mistakes = beyond(&mut row)?;
    if mistakes.is_empty() {
        return Ok(());
    }
    let name = row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut row = row_of(&name, row)?;
    let tables = [&row.recipes_table, &row.users_table, &row.ledger_table];
    let tables = tables.into_iter().flatten().chain([&row.generations_table]).cloned().collect::<Vec<_>>();
    let namer = namer(tables)?;
    if namer.as_ref().is_some_and(|(_, may_name)| !may_name) {
        return Err(row.refusal(&mistakes, before));
    }
    if let Some((role, _)) = namer {
        row.named_by = Some(role);
    }
    found(row, before, mistakes).map(drop)
}

/// What a row names, if nothing is wrong with it.
fn found(row: TargetRow, before: Option<&str>, wrong: Vec<Mistake>) -> Result<Option<Target>> {
    let (target, mut mistakes) = find(&row, wrong)?;
    if mistakes.is_empty() {
        return Ok(target);
    }
    match briefly(|| of_policies(&row, before, &mistakes)) {
        Ok(of_policies) => mistakes.extend(of_policies),
        Err(failure) if is_cancel(&failure) => failure.rethrow(),
        // What is wrong with the row comes first.
        Err(_) => {}
    }
    Err(row.refusal(&mistakes, before))
}

/// The policies that would not be for the same rows any more if all else were right. Of a table that nobody has named, nothing is read: the
/// search path and the expressions were written for another owner.
fn of_policies(row: &TargetRow, before: Option<&str>, mistakes: &[Mistake]) -> Result<Vec<Mistake>> {
    let before: Map<String, Value> = before.and_then(|before| serde_json::from_str(before).ok()).unwrap_or_default();
    if before.is_empty() || mistakes.iter().any(|mistake| mistake.column.ends_with("_table")) {
        return Ok(Vec::new());
    }
    let before = row_of(&row.name, before)?;
    let Ok(target) = Target::find(&corrected(row, mistakes, &before)?)? else { return Ok(Vec::new()) };
    let mistake = |(column, wrong)| {
        let look = look_at_policies(&target.name);
        Mistake::new(PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST, column, wrong, look)
    };
    Ok(lost(&target, &before)?.into_iter().map(mistake).collect())
}

/// The role that calls, unless it is a superuser, and whether it may name all of these tables that there are: whoever calls could say that
/// another role has named what a row has.
fn namer(tables: Vec<String>) -> Result<Option<(String, bool)>> {
    const NAMER: &str = "
        SELECT jsonb_build_array(rolname, NOT EXISTS (
            SELECT FROM unnest($2) named JOIN pg_class c ON c.oid = to_regclass(named) WHERE NOT pg_has_role($1, relowner, 'USAGE')))
        FROM pg_roles WHERE oid = $1 AND NOT rolsuper";
    let (caller, _) = who();
    let namer = extension::as_owner(|| read_one::<JsonB>(NAMER, &[caller.into(), tables.into()]))?;
    Ok(namer.and_then(|JsonB(namer)| serde_json::from_value(namer).ok()))
}

/// A row without its mistakes: with what is right, or else what was `before`. Unless a superuser calls, it is named by whoever does.
fn corrected(row: &TargetRow, mistakes: &[Mistake], before: &TargetRow) -> Result<TargetRow> {
    let mut corrected = row.document.as_object().cloned().unwrap_or_default();
    for mistake in mistakes {
        let right = mistake.correct().or(before.document.get(&*mistake.column));
        corrected.insert(mistake.column.to_string(), right.cloned().unwrap_or_default());
    }
    let named_by = namer(Vec::new())?.map(|(role, _)| role).or_else(|| row.named_by.clone());
    Ok(TargetRow { named_by, ..row_of(&row.name, corrected)? })
}
