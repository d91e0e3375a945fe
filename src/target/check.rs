use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::read::read_one;
use crate::target::Target;

/// Checks that the tables, columns and values that a target names exist and can be used. Errors: those of
/// `Target::load`, 22P02 (a value that its column cannot have), 23514 (two statuses are
/// the same value), 22023 (time zone), what its throttle query raises.
#[pg_extern(stable)]
fn backlog_cleanup_check(target: Option<&str>) -> Result<()> {
    let target = Target::load(target)?;
    target.accepts(&target.account_column, &target.account)?;
    target.statuses_are_values()?;
    target.throttle()?;
    time_zone(&target.time_zone)
}

fn time_zone(time_zone: &str) -> Result<()> {
    let unknown = format!("time zone \"{time_zone}\" is not known");
    let time_zone = time_zone.to_owned();
    PgTryBuilder::new(move || {
        read_one::<TimestampWithTimeZone>(
            "SELECT pg_catalog.timezone($1, timestamp '2000-01-01')",
            &[time_zone.as_str().into()],
        )
        .map(drop)
    })
    .catch_when(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, move |_| {
        let hint = "SELECT name FROM pg_timezone_names";
        Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, unknown.clone(), hint.into()))
    })
    .execute()
}
