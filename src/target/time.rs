use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use pgrx::{direct_function_call, pg_sys};

use crate::postgres::datum::instant_as_text;
use crate::postgres::table::Column;
use crate::target::Target;

/// In microseconds.
const MINUTE: i64 = 60_000_000;

/// A `timestamptz` as PostgreSQL has it.
fn read_instant(text: &str) -> i64 {
    let text = std::ffi::CString::new(text).unwrap_or_default();
    let arguments = [text.as_c_str().into_datum(), pg_sys::InvalidOid.into_datum(), (-1).into_datum()];
    // SAFETY: an input function takes a C string, an oid and an integer. It returns 64 bits.
    unsafe { direct_function_call(pg_sys::timestamptz_in, &arguments) }.unwrap_or_default()
}

/// # Safety
///
/// `function` takes a text and 64 bits, and returns 64 bits.
unsafe fn converted(function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum, time_zone: &str, at: i64) -> i64 {
    // SAFETY: the caller's.
    unsafe { direct_function_call(function, &[time_zone.into_datum(), at.into_datum()]) }.unwrap_or_default()
}

impl Target {
    /// The condition on a row `g` that it failed before an instant.
    pub fn failed_before(&self, instant: &str) -> String {
        format!("{} OPERATOR(pg_catalog.<) ({})", self.failed_at.of_row(), self.as_failed_at(instant))
    }

    /// An instant (`timestamptz` as text) as a literal of the failed-at column's type, which another server can read, too. Every time
    /// before the literal is before the instant.
    pub fn as_failed_at(&self, instant: &str) -> String {
        let type_oid = self.failed_at.type_oid;
        let at = read_instant(instant);
        let at = if type_oid == pg_sys::TIMESTAMPOID { self.local_time(at) } else { at };
        format!("{}::{}", quote_literal(instant_as_text(at, type_oid)), self.failed_at.sql_type)
    }

    /// The local time of an instant in the target's time zone. When clocks go back, the times of one hour come twice, and PostgreSQL
    /// reads them as of the second pass. During the first pass it is the minute in which that hour starts.
    fn local_time(&self, instant: i64) -> i64 {
        // SAFETY: both functions take a text and the 64 bits of a time, and return those of another.
        let local = |at: i64| unsafe { converted(pg_sys::timestamptz_zone, &self.time_zone, at) };
        // SAFETY: the same.
        let is_later = |at: &i64| unsafe { converted(pg_sys::timestamp_zone, &self.time_zone, *at) } > instant;
        let at = local(instant);
        if !is_later(&at) {
            return at;
        }
        let first = at - at.rem_euclid(MINUTE) - 180 * MINUTE;
        (first..=at).step_by(MINUTE as usize).find(is_later).unwrap_or(at)
    }

    /// The condition that the local time of an instant is that of another one, too: clocks go back. Of a failed-at in that time nobody can
    /// tell which it is.
    pub fn comes_twice(&self, instant: &str) -> String {
        let instant = format!("pg_catalog.timestamptz {}", quote_literal(instant));
        let near = format!("({instant} OPERATOR(pg_catalog.+) away)");
        format!(
            "(SELECT pg_catalog.bool_or({} OPERATOR(pg_catalog.=) {})
              FROM (SELECT minutes OPERATOR(pg_catalog.*) interval '1 minute' AS away
                    FROM pg_catalog.generate_series(-180, 180, 30) AS minutes WHERE minutes OPERATOR(pg_catalog.<>) 0) near)",
            self.in_time_zone(&self.failed_at, &near),
            self.in_time_zone(&self.failed_at, &instant),
        )
    }

    /// The `timestamptz` that a failed-at means: a `timestamp` is read in the target's time zone. Near both ends of what a
    /// `timestamp` can be it is another one, since the one in UTC may be beyond.
    pub fn instant(&self, failed_at: &str) -> String {
        match self.failed_at.type_oid {
            pg_sys::TIMESTAMPOID => self.in_time_zone(
                &self.failed_at,
                &format!(
                    "CASE WHEN pg_catalog.isfinite({failed_at})
                     THEN GREATEST(LEAST({failed_at}, timestamp '294276-01-01'), timestamp '4713-01-01 BC') ELSE {failed_at} END"
                ),
            ),
            _ => failed_at.to_owned(),
        }
    }

    /// Converts between `timestamptz` and the type of `column`, either way.
    pub fn in_time_zone(&self, column: &Column, expression: &str) -> String {
        match column.type_oid {
            pg_sys::TIMESTAMPOID => {
                format!("pg_catalog.timezone({}, {expression})", quote_literal(&self.time_zone))
            }
            _ => expression.to_owned(),
        }
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::target::Target;

    #[pg_test]
    fn a_cutoff_in_the_hour_that_comes_twice_is_the_start_of_that_hour_in_its_first_pass() {
        Spi::run(include_str!("../../demo/platform.sql")).expect("the platform's tables");
        Spi::run("UPDATE backlog_cleanup.target SET time_zone = 'Europe/Berlin'").expect("a time zone");
        let target = Target::load(Some("generations")).expect("a target");
        for (instant, failed_at) in [
            ("2026-10-24T23:59:00Z", "2026-10-25 01:59:00"),
            ("2026-10-25T00:30:00Z", "2026-10-25 02:00:00"),
            ("2026-10-25T01:30:00Z", "2026-10-25 02:30:00"),
            ("2026-10-25T02:30:00Z", "2026-10-25 03:30:00"),
            // An hour that does not come.
            ("2026-03-29T01:30:00Z", "2026-03-29 03:30:00"),
        ] {
            let constant = format!("SELECT ({})::text", target.as_failed_at(instant));
            assert_eq!(Spi::get_one::<String>(&constant), Ok(Some(failed_at.to_owned())), "{instant}");
        }
    }

    #[pg_test]
    fn local_times_come_twice_in_the_hour_before_and_after_clocks_go_back() {
        Spi::run(include_str!("../../demo/platform.sql")).expect("the platform's tables");
        Spi::run("UPDATE backlog_cleanup.target SET time_zone = 'Europe/Berlin'").expect("a time zone");
        let target = Target::load(Some("generations")).expect("a target");
        for (instant, comes_twice) in [
            ("2026-10-24T23:59:59Z", false),
            ("2026-10-25T00:00:00Z", true),
            ("2026-10-25T01:59:59Z", true),
            ("2026-10-25T02:00:00Z", false),
            ("2026-03-29T01:30:00Z", false),
        ] {
            let condition = format!("SELECT {}", target.comes_twice(instant));
            assert_eq!(Spi::get_one::<bool>(&condition), Ok(Some(comes_twice)), "{instant}");
        }
    }
}
