use pgrx::pg_sys;
use pgrx::spi::quote_literal;

use crate::postgres::table::Column;
use crate::target::Target;

impl Target {
    /// The condition on a row `g` that it failed before an instant.
    pub fn failed_before(&self, instant: &str) -> String {
        format!("g.{} OPERATOR(pg_catalog.<) ({})", self.failed_at.name, self.as_failed_at(instant))
    }

    /// An instant (`timestamptz` as text) as a constant of the failed-at column's type: what is before the constant is
    /// before the instant.
    pub fn as_failed_at(&self, instant: &str) -> String {
        let instant = format!("pg_catalog.timestamptz {}", quote_literal(instant));
        let local = self.in_time_zone(&self.failed_at, &instant);
        if local == instant {
            return instant;
        }
        // When clocks go back, an hour's times come twice, and PostgreSQL reads them as of the second pass. During the first,
        // the constant is the minute in which that hour starts.
        format!(
            "CASE WHEN {} OPERATOR(pg_catalog.>) {instant}
             THEN (SELECT pg_catalog.min(minute)
                   FROM pg_catalog.generate_series(
                       pg_catalog.date_trunc('minute', {local}) OPERATOR(pg_catalog.-) interval '3 hours', {local},
                       interval '1 minute') AS minute
                   WHERE {} OPERATOR(pg_catalog.>) {instant})
             ELSE {local} END",
            self.instant(&local),
            self.instant("minute"),
        )
    }

    /// The `timestamptz` that a failed-at expression means: a `timestamp` is read in the target's time zone.
    pub fn instant(&self, failed_at: &str) -> String {
        self.in_time_zone(&self.failed_at, failed_at)
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
