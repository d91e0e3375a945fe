use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use serde_json::Value;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::postgres::search_path::names;
use crate::target::mistake::Mistake;
use crate::target::nearest::nearest;
use crate::target::{Target, TargetRow};

/// What a row has by default where nothing uses it.
const ID: &str = "id";
const RECIPE: &str = "recipe_id";
const RECIPE_KEY: &str = "id";
const RECIPE_NAME: &str = "name";

impl Target {
    /// The values of its row that nothing obeys: whoever writes them is warned, and the doctor tells of them.
    pub fn unused(&self) -> Result<Vec<Mistake>> {
        let mut found = Vec::new();
        let written = self.recipe_column.as_ref().filter(|written| *written != RECIPE);
        if let (Some(_), Some(recipe)) = (&self.recipe_columns, written) {
            let wrong = format!("nothing uses \"{recipe}\" beside recipe_columns");
            found.push(unused("recipe_column", wrong, RECIPE.into()));
        }
        if self.id_columns.is_some() && self.id_column != ID {
            let wrong = format!("nothing uses \"{}\" beside id_columns", self.id_column);
            found.push(unused("id_column", wrong, ID.into()));
        }
        let mut note = |column, value: &str, without: &str, right: Value| {
            found.push(unused(column, format!("nothing uses \"{value}\" without {without}"), right));
        };
        if self.recipes_table.is_none() {
            for (column, value, default) in [
                ("recipe_key_column", &self.recipe_key_column, RECIPE_KEY),
                ("recipe_name_column", &self.recipe_name_column, RECIPE_NAME),
            ] {
                if value != default {
                    note(column, value, "a recipes_table", default.into());
                }
            }
        }
        if self.status_column.is_none() {
            let defaults = ["failed", "completed", "pending", "processing"];
            for ((_, column, values), default) in self.lists().into_iter().zip(defaults) {
                if !matches!(values, [only] if only == default) && !values.is_empty() {
                    note(column, &values.join(", "), "a status_column", [default].as_slice().into());
                }
            }
        }
        found.extend(self.unused_schemas()?);
        Ok(found)
    }

    /// Schemas of the search path that the table's owner does not reach: PostgreSQL passes over them.
    fn unused_schemas(&self) -> Result<Option<Mistake>> {
        const REACHED: &str = "
            SELECT array_agg(nspname::text) FROM pg_namespace WHERE has_schema_privilege($1, oid, 'USAGE')";
        let Some(names) = self.search_path.as_deref().and_then(names) else { return Ok(None) };
        let owner = [self.table.owner.into()];
        let reached = extension::as_owner(|| one_now::<Vec<String>>(REACHED, &owner))?.unwrap_or_default();
        let is_reached = |name: &String| name == "$user" || name == "pg_temp" || reached.contains(name);
        let unused_names: Vec<&String> = names.iter().filter(|name| !is_reached(name)).collect();
        if unused_names.is_empty() {
            return Ok(None);
        }
        let meant = names.iter().filter_map(|name| if is_reached(name) { Some(name) } else { nearest(name, &reached) });
        let right: Vec<String> = meant.map(quote_identifier).collect();
        let right = if right.is_empty() { Value::Null } else { right.join(", ").into() };
        let quoted: Vec<String> = unused_names.iter().map(|name| format!("\"{name}\"")).collect();
        let wrong =
            format!("schema {} does not exist, or the owner of {} may not use it", quoted.join(", "), self.table.name);
        Ok(Some(unused("search_path", wrong, right)))
    }
}

fn unused(column: &'static str, wrong: String, right: Value) -> Mistake {
    let look = "SELECT * FROM backlog_cleanup.target".into();
    Mistake::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, column, wrong, look).or(right)
}

impl TargetRow {
    /// The columns with which this row limits batched runs, and no others.
    pub fn limits_of_batches(&self) -> Result<Vec<String>> {
        // What to_jsonb shows where a column limits nothing.
        const LIMITS: &str = "
            SELECT array_agg(key ORDER BY place)
            FROM backlog_cleanup.target t
            CROSS JOIN jsonb_each_text(to_jsonb(t))
            JOIN (VALUES (1, 'max_replica_lag', '^$'), (2, 'max_transaction_age', '^$'), (3, 'yield_to_autovacuum', '^false$'),
                         (4, 'max_wal_rate', '^$'), (5, 'throttle_query', '^$'), (6, 'max_duration', '^$'), (7, 'max_rows', '^$'),
                         (8, 'max_rows_per_second', '^$'), (9, 'pause', '^[^1-9]*$'), (10, 'batch_size', '^10000$'),
                         (11, 'workers', '^1$'), (12, 'run_between', '^$')) limits (place, key, is_off) USING (key)
            WHERE t.name = $1 AND value !~ is_off";
        let found = extension::as_owner(|| one_now::<Vec<String>>(LIMITS, &[self.name.as_str().into()]))?;
        Ok(found.unwrap_or_default())
    }
}
