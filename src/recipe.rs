use std::collections::HashMap;

use pgrx::prelude::*;

use crate::error::{Result, spi};
use crate::owner::acting_as;
use crate::target::Target;

/// The recipes' names by their ids as text.
pub fn names(target: &Target) -> Result<HashMap<String, String>> {
    let Some(recipes) = &target.recipes else {
        return Ok(HashMap::new());
    };
    acting_as(recipes.table.owner, &recipes.table.search_path, || {
        Spi::connect(|client| {
            client
                .select(
                    &format!(
                        "SELECT r.{}::pg_catalog.text, r.{}::pg_catalog.text FROM {} r",
                        recipes.key, recipes.name, recipes.table.name
                    ),
                    None,
                    &[],
                )?
                .map(|row| Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default())))
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}

/// A recipe's name as reports have it.
pub fn name(names: &HashMap<String, String>, id: Option<&str>) -> String {
    match id {
        None => "No recipe".into(),
        Some(id) => names.get(id).cloned().unwrap_or_else(|| "Unknown Recipe".into()),
    }
}
