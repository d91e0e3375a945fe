use std::collections::HashMap;

use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::stream;
use crate::target::{RecipeTable, Target};

/// The recipes' names by their ids as text; `None` if the target has no table that names them.
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
                let text = |column| unsafe { row.text(column) }.unwrap_or_default().to_owned();
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
