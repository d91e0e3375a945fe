//! What a run writes: its row, its batches, the ledger, its report. Knows nothing of locks and workers.

pub mod batches;
pub mod books;
pub mod details;
pub mod error;
pub mod failures;
pub mod housekeeping;
pub mod ledger;
pub mod nights;
pub mod report;
pub mod run;
pub mod samples;
pub mod total;
