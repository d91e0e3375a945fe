//! What the extension says, as plain data: the JSON reports and ages in words; how often a schedule fires.
//! Pure code, never linked to PostgreSQL.

mod age;
mod duration;
mod report;
mod schedule;

pub use age::age_in_words;
pub use duration::DURATION_BOUNDS;
pub use report::{
    BatchMilliseconds, Batched, CleanupDetail, EmergencyReport, RecipeFailures, RegularReport, StatusReport, Warning,
    recipe_id,
};
pub use schedule::longest_gap;
