use std::ffi::CStr;
use std::ops::Range;

use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::Result;
use crate::postgres::stream::stream_returning;
use crate::rank::position::Position;
use crate::rank::tally::{Recipes, Swept};
use crate::remove::find::condition;
use crate::rules::policy::Policy;
use crate::rules::selection::Selection;
use crate::target::Target;
use crate::target::leaf::Leaf;

/// Recipes per statement on a distributed table.
const MANY: usize = 500;

/// Removes rows of a leaf where a position in the heap means nothing: of the recipes in `range` (places in the list) what
/// is older than their cutoffs. Returns the place behind the last recipe that it came to, having removed `limit` rows or
/// more, or the range's end.
pub fn remove(
    target: &Target,
    leaf: &Leaf,
    policy: &Policy,
    selection: &Selection,
    range: Range<usize>,
    limit: usize,
    recipes: &mut Recipes,
) -> Result<usize> {
    let condition = condition(target, Some(policy), selection);
    let mut removed = 0;
    // One recipe per statement is what postgres_fdw can send as it is; Citus takes many at once.
    let at_once = if leaf.table.is_foreign() { 1 } else { MANY };
    let mut place = range.start;
    while place < range.end && removed < limit {
        let next = (place + at_once).min(range.end);
        let (without, with): (Vec<&Swept>, Vec<&Swept>) = recipes.list[place..next]
            .iter()
            .filter(|recipe| recipe.cutoff.is_some())
            .partition(|recipe| recipe.recipe_id.is_none());
        let statements: Vec<String> = [without, with]
            .iter()
            .filter(|losing| !losing.is_empty())
            .map(|losing| statement(target, leaf, &condition, losing))
            .collect();
        for delete in statements {
            stream_returning(&delete, |row| {
                let recipe = recipes.of_row(row, 0);
                recipes.list[recipe].removed += 1;
                removed += 1;
            })?;
        }
        place = next;
    }
    Ok(place)
}

/// Removes by ranges of keys: only constants beside the columns, so that another server can take the statement.
fn statement(target: &Target, leaf: &Leaf, condition: &str, recipes: &[&Swept]) -> String {
    let Target { id: id_column, failed_at, recipe, .. } = target;
    let row = |swept: &&Swept| {
        let recipe_id = swept.recipe_id.as_deref().map_or("NULL".into(), quote_literal);
        let cutoff = swept.cutoff.unwrap_or(Position::NEWEST);
        format!(
            "({recipe_id}::{}, {}::{}, {}::{})",
            recipe.sql_type,
            quote_literal(text_of(pg_sys::Datum::from(cutoff.at), failed_at.type_oid)),
            failed_at.sql_type,
            cutoff.id.map_or("NULL".into(), |id| quote_literal(text_of(id, id_column.type_oid))),
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
        table = leaf.table.name,
        rows = recipes.iter().map(row).collect::<Vec<_>>().join(", "),
        at = failed_at.name,
        id = id_column.name,
    )
}

/// A value as text, as its type writes it.
pub fn text_of(value: pg_sys::Datum, type_oid: pg_sys::Oid) -> String {
    unsafe {
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena);
        CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value)).to_string_lossy().into_owned()
    }
}
