//! Failures of PostgreSQL that are told again with less. What they say is a text of anybody's code, of any length.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::*;

/// The function of PostgreSQL that ends a statement or a session. Code can raise the same SQLSTATEs.
pub const ENDS: &str = "ProcessInterrupts";

/// The function of PL/pgSQL that raises what code on a row says, with an SQLSTATE of its choice.
pub const RAISED: &str = "exec_stmt_raise";

/// The function that an error about a name gives as its own. A run ends with it; code that raises the same SQLSTATE keeps a row back.
pub const REPLACED: &str = "backlog_cleanup names";

/// The function that this extension's errors give as their own.
pub const OWN: &str = "backlog_cleanup";

/// The functions that tell failures of one SQLSTATE apart.
const TELLING: [&str; 4] = [ENDS, RAISED, REPLACED, OWN];

/// The most characters of each text of a failure.
const LONGEST: usize = 10_000;

/// A failure with the beginning of each of its texts.
pub fn bounded(failure: CaughtError) -> CaughtError {
    match &failure {
        CaughtError::PostgresError(report) if is_long(report) => retold(report, report.detail(), report.hint()),
        _ => failure,
    }
}

fn is_long(report: &ErrorReportWithLevel) -> bool {
    [Some(report.message()), report.detail(), report.hint()].into_iter().flatten().any(|text| text.len() > LONGEST)
}

/// A failure of PostgreSQL for a caller without the rights of a table's owner. Its DETAIL has values of rows, and its hint, if it is not this
/// extension's, may be somebody's code's.
pub fn discreet(report: &ErrorReportWithLevel) -> CaughtError {
    let is_own = report.function_name().is_some_and(|function| [REPLACED, OWN].contains(&function));
    retold(report, None, report.hint().filter(|_| is_own))
}

/// The same failure, still of PostgreSQL and of the same function, with another DETAIL and hint.
fn retold(report: &ErrorReportWithLevel, detail: Option<&str>, hint: Option<&str>) -> CaughtError {
    let beginning = |text: &str| text.chars().take(LONGEST).collect::<String>();
    let function = TELLING.into_iter().find(|function| report.function_name() == Some(function)).unwrap_or("code");
    let mut again = ErrorReport::new(report.sql_error_code(), beginning(report.message()), function);
    if let Some(detail) = detail {
        again = again.set_detail(beginning(detail));
    }
    if let Some(hint) = hint {
        again = again.set_hint(beginning(hint));
    }
    // pgrx makes what is caught from what is raised only.
    let raised = PgTryBuilder::new(AssertUnwindSafe(|| {
        again.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }))
    .catch_others(|caught| caught)
    .execute();
    match raised {
        CaughtError::ErrorReport(report) => CaughtError::PostgresError(report),
        other => other,
    }
}
