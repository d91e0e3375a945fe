//! What a row must be to go: policies, selections, and how much a run may remove. Knows nothing of ranks.

pub mod breaker;
pub mod policy;
pub mod selection;
