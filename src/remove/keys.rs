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

/// Recipes per statement on a distributed table.
const MANY: usize = 500;

/// Removes rows of a leaf where a position in the heap means nothing: of the recipes in `range` (places in the list) what
/// is older than their cutoffs. Returns the place behind the last recipe that it came to, having removed `limit` rows or
/// more, or the range's end.
pub fn remove(rules: &Rules, leaf: &Leaf, range: Range<usize>, limit: usize, tally: &mut Tally) -> Result<usize> {
    let mut removed = 0;
    // One recipe per statement is what postgres_fdw can send as it is; Citus takes many at once.
    let at_once = if leaf.table.is_foreign() { 1 } else { MANY };
    let mut place = range.start;
    while place < range.end && removed < limit {
        let next = (place + at_once).min(range.end);
        let (without, with): (Vec<&RecipeCount>, Vec<&RecipeCount>) = tally.list[place..next]
            .iter()
            .filter(|recipe| recipe.cutoff.is_some())
            .partition(|recipe| recipe.recipe_id.is_none());
        let statements: Vec<String> = [without, with]
            .iter()
            .filter(|losing| !losing.is_empty())
            .map(|losing| statement(rules, leaf, losing))
            .collect();
        for delete in statements {
            stream_returning(&delete, |row| {
                let recipe = tally.of_row(row);
                tally.list[recipe].removed += 1;
                removed += 1;
            })?;
        }
        place = next;
    }
    Ok(place)
}

/// Removes by ranges of keys. Has only constants beside the columns, so that another server can take the statement.
fn statement(rules: &Rules, leaf: &Leaf, recipes: &[&RecipeCount]) -> String {
    let Target { id: id_column, failed_at, recipe, .. } = rules.target;
    let row = |counted: &&RecipeCount| {
        let recipe_id = counted.recipe_id.as_deref().map_or("NULL".into(), quote_literal);
        let cutoff = counted.cutoff.unwrap_or(Position::NEWEST);
        // SAFETY: the id of a position is of the id column's type.
        let id = cutoff.id.map(|id| quote_literal(unsafe { text_of(id, id_column.type_oid) }));
        format!(
            "({recipe_id}::{}, {}::{}, {}::{})",
            recipe.sql_type,
            quote_literal(instant_as_text(cutoff.at, failed_at.type_oid)),
            failed_at.sql_type,
            id.unwrap_or("NULL".into()),
            id_column.sql_type
        )
    };
    let is_its = match recipes.iter().any(|recipe| recipe.recipe_id.is_none()) {
        true => format!("g.{} IS NULL", recipe.name),
        false => format!("g.{} OPERATOR(pg_catalog.=) c.recipe", recipe.name),
    };
    format!(
        "DELETE FROM {table} g USING (VALUES {rows}) c (recipe, at, id)
         WHERE {is_its} AND {condition}
           AND (g.{at} OPERATOR(pg_catalog.<) c.at
                OR g.{at} OPERATOR(pg_catalog.=) c.at AND (g.{id} OPERATOR(pg_catalog.<) c.id
                                                           OR c.id IS NULL AND g.{id} IS NOT NULL))
         RETURNING {key}",
        key = recipe.as_key(),
        condition = rules.condition(),
        table = leaf.table.name,
        rows = recipes.iter().map(row).collect::<Vec<_>>().join(", "),
        at = failed_at.name,
        id = id_column.name,
    )
}
