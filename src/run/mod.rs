//! Runs: in one transaction, in batches, by workers.

pub mod arguments;
pub mod batch;
pub mod batched;
pub mod begin;
pub mod cancel;
pub mod early;
pub mod failure;
pub mod governor;
pub mod ground;
pub mod lock;
pub mod one_transaction;
pub mod parts;
pub mod prepare;
pub mod refused;
mod smaller;
pub mod stop;
mod tempo;
pub mod ticks;
pub mod wait;
pub mod worker;
mod workers;
