use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::now::rows_now;

/// What a rule has measured.
pub enum Measured {
    /// A subject without a value has none to alert of.
    Known(Vec<Value>),
    /// Why it cannot be known now.
    Unknown(String),
}

/// A value, what it means in a sentence, and the statement that mends it.
#[derive(Clone, Deserialize)]
pub struct Value {
    /// A recipe; `None` if the rule is about none.
    #[serde(default)]
    pub subject: Option<String>,
    pub value: f64,
    pub sentence: String,
    #[serde(default)]
    pub fix: Option<String>,
    /// Whether an alert may open for it; one that is open stays or resolves by the value.
    #[serde(default = "always")]
    pub opens: bool,
}

fn always() -> bool {
    true
}

impl Measured {
    /// Runs a statement on the extension's own tables that returns `value`, `sentence` and `fix`, a row of `jsonb` each. Without a
    /// row the value is not known, for the reason given.
    pub fn by(statement: &'static str, arguments: &[DatumWithOid], unknown: &str) -> Result<Measured> {
        let values: Vec<Value> = measured(statement, arguments)?;
        Ok(if values.is_empty() { Measured::Unknown(unknown.into()) } else { Measured::Known(values) })
    }
}

/// The rows of such a statement.
pub fn measured<T: DeserializeOwned>(statement: &'static str, arguments: &[DatumWithOid]) -> Result<Vec<T>> {
    let rows = extension::as_owner(|| rows_now(statement, arguments, |row| row.get::<JsonB>(1)))?;
    Ok(rows.into_iter().flatten().filter_map(|JsonB(row)| serde_json::from_value(row).ok()).collect())
}
