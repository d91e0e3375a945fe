//! What PostgreSQL gives: errors, statements, tables, roles, subtransactions. Knows nothing of targets.

pub mod delete;
pub mod error;
pub mod executor;
pub mod owner;
pub mod prepared;
pub mod read;
pub mod stream;
pub mod subtransaction;
pub mod table;
