//! What a batched run has to do, saved where a crash cannot lose it. Knows nothing of workers.

pub mod cutoff;
pub mod part;
