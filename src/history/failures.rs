//! What runs have removed, by the hour in which rows failed, by failure type and by recipe.

use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::rank::lost::Failure;

/// The failure types and the recipes of a run that have rows of their own; the others are one.
const TYPES: usize = 20;
const RECIPES: usize = 5;

/// Failures as arrays.
#[derive(Default)]
pub struct Columns {
    pub hours: Vec<Option<i64>>,
    pub failure_types: Vec<Option<String>>,
    pub recipe_ids: Vec<Option<String>>,
    pub rows: Vec<i64>,
}

impl Columns {
    pub fn of(failures: Vec<(Failure, i64)>) -> Columns {
        let mut columns = Columns::default();
        for (failure, rows) in failures {
            columns.hours.push(failure.hour);
            columns.failure_types.push(failure.failure_type);
            columns.recipe_ids.push(failure.recipe_id);
            columns.rows.push(rows);
        }
        columns
    }
}

/// Sums up failures (`hour`, `failure_type`, `recipe_id`, `removed`) as rows of run `$1`.
pub fn sum_up(failures: &str) -> String {
    let most = |column: &str, most: usize| {
        format!("SELECT {column} FROM lost GROUP BY 1 ORDER BY sum(removed) DESC, 1 LIMIT {most}")
    };
    let own = |column: &str, list: &str| {
        format!(
            "CASE WHEN {column} IS NULL OR {column} IN (SELECT {column} FROM {list}) THEN {column} ELSE '(other)' END"
        )
    };
    format!(
        "INSERT INTO backlog_cleanup.run_failure (run_id, hour, failure_type, recipe_id, removed)
         WITH lost (hour, failure_type, recipe_id, removed) AS ({failures}),
              types AS ({}), recipes AS ({})
         SELECT $1, to_timestamp(hour), {}, {}, sum(removed)
         FROM lost
         GROUP BY 2, 3, 4",
        most("failure_type", TYPES),
        most("recipe_id", RECIPES),
        own("failure_type", "types"),
        own("recipe_id", "recipes"),
    )
}

/// Records what a run of one transaction has removed.
pub fn record(run_id: i64, failures: Vec<(Failure, i64)>) -> Result<()> {
    let Columns { hours, failure_types, recipe_ids, rows } = Columns::of(failures);
    let statement = sum_up("SELECT * FROM unnest($2, $3, $4, $5)");
    let values = [run_id.into(), hours.into(), failure_types.into(), recipe_ids.into(), rows.into()];
    extension::as_owner(|| Spi::run_with_args(&statement, &values).map_err(spi))
}
