//! What runs have removed, by the hour in which rows failed and by failure type.

use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::rank::lost::Failure;

/// The failure types of a run that have rows of their own; the others are one.
pub const TYPES: usize = 20;

/// Failures as arrays.
pub struct Columns {
    pub hours: Vec<Option<i64>>,
    pub failure_types: Vec<Option<String>>,
    pub rows: Vec<i64>,
}

impl Columns {
    pub fn of(failures: Vec<(Failure, i64)>) -> Columns {
        let mut columns = Columns { hours: Vec::new(), failure_types: Vec::new(), rows: Vec::new() };
        for ((hour, failure_type), rows) in failures {
            columns.hours.push(hour);
            columns.failure_types.push(failure_type);
            columns.rows.push(rows);
        }
        columns
    }
}

/// Sums up failures (`hour`, `failure_type`, `removed`) as rows of run `$1`.
pub fn sum_up(failures: &str) -> String {
    format!(
        "INSERT INTO backlog_cleanup.run_failure (run_id, hour, failure_type, removed)
         WITH lost (hour, failure_type, removed) AS ({failures}),
              most AS (SELECT failure_type FROM lost GROUP BY 1 ORDER BY sum(removed) DESC, 1 LIMIT {TYPES})
         SELECT $1, to_timestamp(hour),
                CASE WHEN failure_type IS NULL OR failure_type IN (SELECT failure_type FROM most) THEN failure_type ELSE '(other)' END,
                sum(removed)
         FROM lost
         GROUP BY 2, 3"
    )
}

/// Records what a run of one transaction has removed.
pub fn record(run_id: i64, failures: Vec<(Failure, i64)>) -> Result<()> {
    let Columns { hours, failure_types, rows } = Columns::of(failures);
    let statement = sum_up("SELECT * FROM unnest($2, $3, $4)");
    let values = [run_id.into(), hours.into(), failure_types.into(), rows.into()];
    extension::as_owner(|| Spi::run_with_args(&statement, &values).map_err(spi))
}
