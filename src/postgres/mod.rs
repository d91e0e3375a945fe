//! What PostgreSQL gives: errors, statements, tables, roles, subtransactions. Knows nothing of this extension's tables.

pub mod advisory;
pub mod block;
pub mod datum;
pub mod delete;
pub mod discretion;
pub mod error;
pub mod executor;
pub mod expression;
pub mod json;
pub mod met;
pub mod now;
pub mod owner;
pub mod parse;
pub mod prepared;
pub mod read;
pub mod role;
pub mod search_path;
pub mod session;
pub mod settings;
pub mod snapshot;
pub mod sqlstate;
pub mod statements;
pub mod stream;
pub mod subtransaction;
pub mod table;
