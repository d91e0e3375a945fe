use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use backlog_cleanup_report::{Nouns, capitalized};
use pgrx::direct_function_call;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde_json::Value;

use crate::postgres::elsewhere::{elsewhere, forget};
use crate::postgres::error::{Result, error};
use crate::postgres::met::is_about_a_row;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::retold::OWN;
use crate::postgres::sqlstate::exact;
use crate::postgres::stream::stream;
use crate::postgres::subtransaction::{briefly, raise_again, reported, said, sqlstate};
use crate::target::column::document_of;
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
    /// Whether reports have the ids of its recipes as numbers or objects, and not as strings.
    pub fn has_json_recipes(&self) -> bool {
        self.recipe.is_number() || self.recipe_columns.is_some()
    }

    /// The condition on a row `g` that it is of a recipe, which may be `bounded`.
    pub fn is_of_recipe(&self, recipe_id: &str) -> String {
        self.has_sha256_of(recipe_id).unwrap_or_else(|| self.recipe.identifies(recipe_id))
    }

    /// The same, by the recipe's text, whatever its type can read.
    pub fn has_text_of_recipe(&self, recipe_id: &str) -> String {
        self.has_sha256_of(recipe_id).unwrap_or_else(|| self.recipe.has_text(recipe_id))
    }

    fn has_sha256_of(&self, recipe_id: &str) -> Option<String> {
        let hash = sha256(recipe_id)?;
        let bytes = format!("pg_catalog.convert_to({}, 'UTF8')", self.recipe.as_text());
        Some(format!(
            "pg_catalog.encode(pg_catalog.sha256({bytes}), 'hex') OPERATOR(pg_catalog.=) {}",
            quote_literal(hash)
        ))
    }

    /// A recipe as rows have it, `bounded`. Errors: 22P02 and 22023 (no row can have it).
    pub fn written_recipe(&self, recipe_id: &str) -> Result<String> {
        let refused = |reason: &str| {
            error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!(
                    "\"{}\" is no {} of target \"{}\", {reason}",
                    bounded(recipe_id),
                    self.nouns.group_word,
                    self.name
                ),
                format!("SELECT * FROM backlog_cleanup_status({})", quote_literal(&self.name)),
            )
        };
        let value = if sha256(recipe_id).is_some() && !self.recipe.is_integer() {
            return Ok(recipe_id.to_owned());
        } else if let Some(columns) = self.recipe_parts() {
            let keys: BTreeSet<&str> = columns.iter().map(|(name, _)| *name).collect();
            let Ok(Value::Object(document)) = serde_json::from_str(recipe_id) else {
                return Err(refused("whose ids are JSON documents"));
            };
            if document.keys().map(String::as_str).collect::<BTreeSet<_>>() != keys {
                let keys: Vec<&str> = keys.into_iter().collect();
                return Err(refused(&format!("whose ids have the keys {}", keys.join(", "))));
            }
            let mut values = Vec::new();
            for (name, column) in columns {
                let text = format!(
                    "SELECT {}::pg_catalog.jsonb OPERATOR(pg_catalog.->>) {}",
                    quote_literal(recipe_id),
                    quote_literal(name)
                );
                let text = read_one::<String>(&text, &[])?;
                text.as_ref().map_or(Ok(()), |text| self.accepts(column, text))?;
                let value = text.map_or_else(|| format!("NULL::{}", column.sql_type), |text| column.literal(&text));
                values.push((name, column, format!("({value})")));
            }
            document_of(values.into_iter())
        } else if self.recipe_column.is_none() {
            return Err(refused("which has neither a recipe_column nor recipe_columns"));
        } else {
            self.accepts(&self.recipe, recipe_id)?;
            self.recipe.text_of(&self.recipe.literal(recipe_id))
        };
        let written = reading_as_owner_of(&self.table, || read_one::<String>(&format!("SELECT {value}"), &[]))?;
        // A cast of somebody's may show NULL, which is no recipe and not all of them.
        let written = written.ok_or_else(|| refused("whose type shows it as NULL"))?;
        Ok(bounded(&written).into_owned())
    }
}

/// The SHA-256 of an id that `bounded` has shortened.
fn sha256(id: &str) -> Option<&str> {
    let (_, hash) = id.strip_suffix(SHORTENED)?.rsplit_once("(SHA-256 ")?;
    let hash = hash.split(' ').next()?;
    (hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(hash)
}

/// A recipe's id as people write it, `bounded`: it may be so already.
pub fn bounded_once(id: String) -> String {
    if sha256(&id).is_some() { id } else { bounded(&id).into_owned() }
}

/// What recipes are called, in the words of their target.
#[derive(Default)]
pub struct RecipeNames {
    /// The names by their ids, both `bounded`; `None` if the target has no table that names them.
    by_id: Option<HashMap<String, String>>,
    nouns: Nouns,
}

impl RecipeNames {
    /// Those of some recipes, `bounded`: of a table or a view of anybody's the others are not kept. Where they cannot be read, ids stand for
    /// them, with a WARNING: they are only shown.
    pub fn of<'a>(target: &Target, ids: impl Iterator<Item = Option<&'a str>>) -> Result<RecipeNames> {
        let by_id = match &target.recipes {
            None => None,
            Some(recipes) => match recipes.names(&ids.flatten().collect()) {
                Ok(names) => Some(names),
                Err(failure) if !is_of_a_name(&failure) => raise_again(failure),
                Err(failure) => {
                    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, recipes.unreadable(&failure), "backlog_cleanup")
                        .set_hint(format!("SELECT * FROM backlog_cleanup_doctor({})", quote_literal(&target.name)))
                        .report(PgLogLevel::WARNING);
                    None
                }
            },
        };
        Ok(RecipeNames { by_id, nouns: target.nouns.clone() })
    }

    /// A recipe's name as reports show it.
    pub fn name(&self, id: Option<&str>) -> String {
        let group_word = &self.nouns.group_word;
        match (id, &self.by_id) {
            (None, _) => format!("No {group_word}"),
            (Some(id), None) => id.into(),
            (Some(id), Some(names)) => {
                names.get(id).cloned().unwrap_or_else(|| format!("Unknown {}", capitalized(group_word)))
            }
        }
    }
}

impl RecipeTable {
    /// The names of some recipes by their ids, both `bounded`. What fails is rolled back.
    fn names(&self, ids: &HashSet<&str>) -> std::result::Result<HashMap<String, String>, CaughtError> {
        let RecipeTable { table, key, name } = self;
        let id = key.text_of(&format!("r.{}", key.name));
        let read = format!("SELECT {id}, r.{name}::pg_catalog.text FROM {} r", table.name);
        let mut names = HashMap::new();
        let take = || {
            stream(&read, |row| {
                // SAFETY: both columns are cast to text.
                let text = |column| bounded(unsafe { row.text(column) }.unwrap_or_default());
                if ids.contains(&*text(0)) {
                    names.insert(text(0).into_owned(), text(1).into_owned());
                }
            })
        };
        let read = briefly(|| elsewhere(|| reading_as_owner_of(table, take)));
        // Nobody is told of it as an error.
        forget();
        read.map(|()| names)
    }

    /// Why names of recipes cannot be read.
    pub fn problem(&self) -> Result<Option<String>> {
        match self.names(&HashSet::new()) {
            Err(failure) if !is_of_a_name(&failure) => raise_again(failure),
            read => Ok(read.err().map(|failure| self.unreadable(&failure))),
        }
    }

    fn unreadable(&self, failure: &CaughtError) -> String {
        format!("the names in {} cannot be read, and reports have ids instead: {}", self.table.name, said(failure))
    }
}

/// Whether one name is to blame for a failure, and not the server, the session, or a privilege; a refusal of this extension is about the
/// code of whoever owns the table or the view.
fn is_of_a_name(failure: &CaughtError) -> bool {
    is_about_a_row(failure, &exact(sqlstate(failure))) && reported(failure).function_name() != Some(OWN)
}
