use std::ops::Range;

use pgrx::spi::quote_literal;

use crate::postgres::datum::{instant_as_text, text_of};
use crate::postgres::error::Result;
use crate::postgres::stream::stream_returning;
use crate::rank::position::Position;
use crate::rank::tally::{RecipeCount, Tally};
use crate::rules::Rules;
use crate::target::Target;
use crate::target::leaf::Leaf;

/// Removes rows of a leaf that has no usable positions: for each recipe in `range` (indexes in the tally), the rows older
/// than its cutoff. Stops once it has removed `limit` rows. Returns the index of the next recipe, or the range's end.
pub fn remove(rules: &Rules, leaf: &Leaf, range: Range<usize>, limit: usize, tally: &mut Tally) -> Result<usize> {
    let mut removed = 0;
    let mut place = range.start;
    while place < range.end && removed < limit {
        if let Some(cutoff) = tally.list[place].cutoff {
            stream_returning(&statement(rules, leaf, &tally.list[place], cutoff), |row| {
                let recipe = tally.of_row(row);
                tally.list[recipe].removed += 1;
                removed += 1;
            })?;
        }
        place += 1;
    }
    Ok(place)
}

/// The DELETE of a recipe's rows before a cutoff. It has only columns and constants, so that another server can run it.
fn statement(rules: &Rules, leaf: &Leaf, recipe: &RecipeCount, cutoff: Position) -> String {
    let Target { id: id_column, failed_at, recipe: recipe_column, .. } = rules.target;
    let is_its = match &recipe.recipe_id {
        None => format!("g.{} IS NULL", recipe_column.name),
        Some(recipe_id) => recipe_column.is(recipe_id),
    };
    let at = format!("{}::{}", quote_literal(instant_as_text(cutoff.at, failed_at.type_oid)), failed_at.sql_type);
    // NULL is the newest id.
    let is_older = match cutoff.id {
        None => format!("g.{} IS NOT NULL", id_column.name),
        Some(id) => {
            // SAFETY: the id of a position is of the id column's type.
            let id = unsafe { text_of(id, id_column.type_oid) };
            format!("g.{} OPERATOR(pg_catalog.<) {}", id_column.name, id_column.literal(&id))
        }
    };
    format!(
        "DELETE FROM {table} g
         WHERE {is_its} AND {condition}
           AND (g.{column} OPERATOR(pg_catalog.<) {at} OR g.{column} OPERATOR(pg_catalog.=) {at} AND {is_older})
         RETURNING {key}",
        column = failed_at.name,
        key = recipe_column.as_key(),
        condition = rules.condition(),
        table = leaf.rows(),
    )
}
