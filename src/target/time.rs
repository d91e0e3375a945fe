use pgrx::pg_sys;
use pgrx::spi::quote_literal;

use crate::postgres::table::Column;
use crate::target::Target;

impl Target {
    /// The condition on a row `g` that it failed before an instant.
    pub fn failed_before(&self, instant: &str) -> String {
        format!("{} OPERATOR(pg_catalog.<) ({})", self.failed_at.of_row(), self.as_failed_at(instant))
    }

    /// An instant (`timestamptz` as text) as a constant of the failed-at column's type. Every time before the constant is
    /// before the instant.
    pub fn as_failed_at(&self, instant: &str) -> String {
        let instant = format!("pg_catalog.timestamptz {}", quote_literal(instant));
        let local = self.in_time_zone(&self.failed_at, &instant);
        if local == instant {
            return instant;
        }
        // When clocks go back, the times of one hour come twice, and PostgreSQL reads them as of the second pass. During the
        // first pass the constant is the minute in which that hour starts.
        format!(
            "CASE WHEN {} OPERATOR(pg_catalog.>) {instant}
             THEN (SELECT pg_catalog.min(minute)
                   FROM pg_catalog.generate_series(
                       pg_catalog.date_trunc('minute', {local}) OPERATOR(pg_catalog.-) interval '3 hours', {local},
                       interval '1 minute') AS minute
                   WHERE {} OPERATOR(pg_catalog.>) {instant})
             ELSE {local} END",
            self.in_time_zone(&self.failed_at, &local),
            self.in_time_zone(&self.failed_at, "minute"),
        )
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
