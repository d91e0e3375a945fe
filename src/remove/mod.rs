//! Removes rows: by position, by key, or by one DELETE; leaves those that cannot go. Knows nothing of batches.

mod across;
pub mod besides;
pub mod by_position;
mod circles;
pub mod emergency;
pub mod find;
pub mod heap;
pub mod in_time;
pub mod keys;
pub mod left;
pub mod order;
pub mod pieces;
pub mod regular;
mod sample;
mod sought;
pub mod steps;
pub mod watch;
