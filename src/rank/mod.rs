//! Finds in one pass which rows go. Knows nothing of how they are removed.

pub mod count;
pub mod grouped;
pub mod held;
pub mod index;
pub mod lost;
pub mod newest;
pub mod on_shards;
pub mod one_pass;
pub mod position;
pub mod removable;
pub mod tally;
