//! What every request passes before a handler sees it, and who sends it. Knows no route.

mod caller;
pub mod guard;
pub mod headers;
pub mod limit;
pub mod log;

pub use caller::Caller;
