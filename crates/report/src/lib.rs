//! What the extension says, as plain data: the JSON reports and ages in words.
//! Pure code, never linked to PostgreSQL.

mod age;
mod report;

pub use age::age_in_words;
pub use report::{
    BatchMilliseconds, Batched, CleanupDetail, EmergencyReport, RecipeFailures, RegularReport, StatusReport, Warning,
    recipe_id,
};
