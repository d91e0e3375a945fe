use backlog_cleanup_report::State;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::prepared;
use crate::postgres::read::read_one;
use crate::postgres::sqlstate::raise_as;

/// What a run worked on: in words, and the tables whose rows a DETAIL may show.
pub struct At {
    pub words: String,
    pub tables: Vec<pg_sys::Oid>,
}

/// Ends a running run with an error: its row says so. The DETAIL, which may show values of rows, is kept apart for roles with
/// the rights of the tables' owners, and so is a HINT that is not the extension's own. Of each text the beginning: it is anybody's, and every report has it.
pub fn write(
    run_id: i64,
    state: State,
    sqlstate: &str,
    (failure, hint_is_own): (&ErrorReport, bool),
    at: Option<&At>,
) -> Result<()> {
    const END: &str = "
        UPDATE backlog_cleanup.run
        SET state = $2, error_sqlstate = $3, error_message = left($4, 10000), error_at = $5, waiting_for = NULL,
            finished_at = clock_timestamp()
        WHERE id = $1 AND state = 'running'
        RETURNING true";
    const DETAIL: &str = "
        INSERT INTO backlog_cleanup.run_error (run_id, detail, hint, tables, hint_is_own)
        VALUES ($1, left($2, 10000), left($3, 10000), $4, $5)";
    extension::as_owner(|| {
        let arguments = [
            run_id.into(),
            state.as_str().into(),
            sqlstate.into(),
            failure.message().into(),
            at.map(|at| at.words.as_str()).into(),
        ];
        if prepared::get_one::<bool>(END, &arguments)?.is_none() {
            return Ok(());
        }
        let tables = at.map(|at| at.tables.clone()).unwrap_or_default();
        let detail = failure.detail().filter(|_| !tables.is_empty());
        let arguments = [run_id.into(), detail.into(), failure.hint().into(), tables.into(), hint_is_own.into()];
        Spi::run_with_args(DETAIL, &arguments).map_err(spi)
    })
}

/// The error that a run's row has, to be raised at once by the process that waited for its workers.
pub fn of_run(run_id: i64) -> Result<ErrorReport> {
    const ERROR: &str = "
        SELECT ARRAY[r.error_sqlstate, r.error_message, e.hint]
        FROM backlog_cleanup.run r LEFT JOIN backlog_cleanup.run_error e ON e.run_id = r.id
        WHERE r.id = $1";
    let error = extension::as_owner(|| read_one::<Vec<Option<String>>>(ERROR, &[run_id.into()]))?.unwrap_or_default();
    let part = |place: usize| error.get(place).cloned().flatten();
    let sqlstate = part(0).unwrap_or_else(|| "XX000".into());
    let sqlstate = code(&sqlstate);
    raise_as(sqlstate);
    let report = ErrorReport::new(PgSqlErrorCode::from(sqlstate), part(1).unwrap_or_default(), "backlog_cleanup");
    Ok(match part(2) {
        Some(hint) => report.set_hint(hint),
        None => report,
    })
}

/// The code of a SQLSTATE (`MAKE_SQLSTATE` of utils/elog.h).
fn code(sqlstate: &str) -> i32 {
    sqlstate.bytes().rev().fold(0, |code, byte| code << 6 | i32::from(byte.wrapping_sub(b'0') & 0x3f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::sqlstate::exact;

    #[test]
    fn a_sqlstate_is_the_code_that_postgresql_has() {
        for code_of in [PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION, PgSqlErrorCode::ERRCODE_QUERY_CANCELED] {
            assert_eq!(code(&exact(code_of)), code_of as i32);
        }
    }
}
