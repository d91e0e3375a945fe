//! What a batched run has to do, saved in tables that survive a crash. Knows nothing of workers.

pub mod cutoff;
pub mod divide;
pub mod part;
pub mod policies;
pub mod statuses;
