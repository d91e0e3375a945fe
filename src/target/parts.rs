use std::cell::OnceCell;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::OwnedPreparedStatement;

use crate::postgres::datum::values_of_record;
use crate::postgres::error::spi;
use crate::postgres::subtransaction::raise;
use crate::postgres::table::Column;
use crate::target::Target;
use crate::target::column::document_of;

/// The columns of a recipe of several. To make their document takes longer than anything else that is done with a row: rows carry
/// the values instead, and the document is made once per recipe.
pub struct Parts {
    types: Vec<pg_sys::Oid>,
    /// Makes the document of the values `$1`, `$2` and so on.
    statement: String,
    prepared: OnceCell<OwnedPreparedStatement>,
}

impl Parts {
    /// `None` if the recipe is one column, an expression, or none.
    pub fn of(target: &Target) -> Option<Parts> {
        let columns = target.recipe_parts()?;
        let values = columns.iter().zip(1..).map(|((name, column), number)| (*name, *column, format!("${number}")));
        let statement = format!("SELECT {}", document_of(values));
        let types = columns.iter().map(|(_, column)| column.type_oid).collect();
        Some(Parts { types, statement, prepared: OnceCell::new() })
    }

    /// The document of a row's values.
    ///
    /// # Safety
    ///
    /// `record` is a value of `Target::recipe_key`.
    pub unsafe fn document(&self, record: pg_sys::Datum) -> String {
        // SAFETY: the caller's.
        let values = unsafe { values_of_record(record, self.types.len()) };
        let argument = |(value, of): (Option<pg_sys::Datum>, &pg_sys::Oid)| match value {
            // SAFETY: the record has a value of each of the types.
            Some(value) => unsafe { DatumWithOid::new(value, *of) },
            None => DatumWithOid::null_oid(*of),
        };
        let values: Vec<DatumWithOid> = values.into_iter().zip(&self.types).map(argument).collect();
        let made = Spi::connect(|client| {
            let statement = match self.prepared.get() {
                Some(statement) => statement,
                None => {
                    let types: Vec<PgOid> = self.types.iter().map(|of| PgOid::from(*of)).collect();
                    let prepared = client.prepare(self.statement.as_str(), &types)?.keep();
                    self.prepared.get_or_init(|| prepared)
                }
            };
            client.select(statement, Some(1), &values)?.first().get_one::<String>()
        });
        // A document is never NULL.
        made.map_or_else(|failure| raise(spi(failure)), Option::unwrap_or_default)
    }
}

impl Target {
    /// What tells the recipe of a row `g`: of several columns their values as a record, of which `Parts` makes the recipe's id, and else
    /// the recipe as a bigint or a text.
    pub fn recipe_key(&self) -> String {
        let Some(columns) = self.recipe_parts() else { return self.recipe.as_key() };
        let values: Vec<String> = columns.iter().map(|(_, column)| column.of_row()).collect();
        format!("ROW({})", values.join(", "))
    }

    /// The columns of a recipe of several, with their names without quotes.
    pub fn recipe_parts(&self) -> Option<Vec<(&str, &Column)>> {
        let names = self.recipe_columns.as_ref()?;
        let column = |name: &String| self.reads.iter().find(|(read, _)| read == name);
        Some(names.iter().filter_map(column).map(|(name, column)| (name.as_str(), column)).collect())
    }
}
