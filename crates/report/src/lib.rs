//! What the extension and its companion both know: the reports, the words and names that they use, how often a schedule
//! fires, what a failure's fingerprint is. Plain data and pure code, never linked to PostgreSQL.

mod age;
mod duration;
mod fingerprint;
mod level;
mod mode;
mod names;
mod nouns;
mod policy;
mod report;
mod schedule;
mod state;
mod statuses;
mod unseen;
mod word;

pub use age::age_in_words;
pub use duration::DURATION_BOUNDS;
pub use fingerprint::fingerprint;
pub use level::Level;
pub use mode::Mode;
pub use names::{DEFAULT_JOB, DEFAULT_SCHEDULE, DEFAULT_TARGET, TICK_JOB, TICK_SCHEDULE, job_name, job_name_in};
pub use nouns::{Nouns, capitalized, counted, plural};
pub use policy::policy_name;
pub use report::{
    BatchMilliseconds, Batched, CleanupDetail, EmergencyReport, Foreseen, PolicyDetail, RecipeFailures, RegularReport,
    StatusDetail, StatusReport, StatusRows, Warning, kept_back_reason, recipe_id,
};
pub use schedule::{is_schedule, longest_gap, never_fires, period, times_of_day};
pub use state::State;
pub use statuses::{STATUSES, StatusCount, StatusCounts};
pub use unseen::is_unseen;
pub use word::UnknownWord;
