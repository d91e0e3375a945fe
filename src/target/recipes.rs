use std::borrow::Cow;
use std::collections::HashMap;

use pgrx::direct_function_call;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::stream;
use crate::target::{RecipeTable, Target};

/// Longer ids are shortened, in bytes: whoever writes rows decides how long they are, and all of them are kept and reported.
const LONGEST: usize = 1_000;

/// How a shortened id ends, which no other may.
const SHORTENED: &str = " bytes)";

/// A recipe's id as it is counted and reported. Of a long one that is the beginning, the SHA-256, by which it differs from all
/// others, and the length.
pub fn bounded(id: &str) -> Cow<'_, str> {
    if id.len() <= LONGEST && !id.ends_with(SHORTENED) {
        return Cow::Borrowed(id);
    }
    // SAFETY: sha256_bytea takes a bytea and returns one.
    let hash: Option<Vec<u8>> = unsafe { direct_function_call(pg_sys::sha256_bytea, &[id.as_bytes().into_datum()]) };
    let hash: String = hash.iter().flatten().map(|byte| format!("{byte:02x}")).collect();
    let beginning: String = id.chars().take(100).collect();
    Cow::Owned(format!("{beginning}... (SHA-256 {hash} of {}{SHORTENED}", id.len()))
}

impl Target {
    /// The condition on a row `g` that it is of a recipe, which may be `bounded`.
    pub fn is_of_recipe(&self, recipe_id: &str) -> String {
        let Some(hash) = sha256(recipe_id) else { return self.recipe.identifies(recipe_id) };
        let bytes = format!("pg_catalog.convert_to({}, 'UTF8')", self.recipe.as_text());
        format!("pg_catalog.encode(pg_catalog.sha256({bytes}), 'hex') OPERATOR(pg_catalog.=) {}", quote_literal(hash))
    }
}

/// The SHA-256 of an id that `bounded` has shortened.
fn sha256(id: &str) -> Option<&str> {
    let (_, hash) = id.strip_suffix(SHORTENED)?.rsplit_once("(SHA-256 ")?;
    hash.split(' ').next()
}

/// The recipes' names by their ids, both `bounded`; `None` if the target has no table that names them.
#[derive(Default)]
pub struct RecipeNames(Option<HashMap<String, String>>);

impl RecipeNames {
    pub fn of(target: &Target) -> Result<RecipeNames> {
        let Some(RecipeTable { table, key, name }) = &target.recipes else {
            return Ok(RecipeNames(None));
        };
        let read = format!("SELECT r.{key}::pg_catalog.text, r.{name}::pg_catalog.text FROM {} r", table.name);
        let mut names = HashMap::new();
        reading_as_owner_of(table, || {
            stream(&read, |row| {
                // SAFETY: both columns are cast to text.
                let text = |column| bounded(unsafe { row.text(column) }.unwrap_or_default()).into_owned();
                names.insert(text(0), text(1));
            })
        })?;
        Ok(RecipeNames(Some(names)))
    }

    /// A recipe's name as reports show it.
    pub fn name(&self, id: Option<&str>) -> String {
        match (id, &self.0) {
            (None, _) => "No recipe".into(),
            (Some(id), None) => id.into(),
            (Some(id), Some(names)) => names.get(id).cloned().unwrap_or_else(|| "Unknown Recipe".into()),
        }
    }
}
