//! The layers around all handlers, and the caller of a request. Knows no route.

mod caller;
pub mod guard;
pub mod headers;
pub mod limit;
pub mod log;

pub use caller::Caller;
