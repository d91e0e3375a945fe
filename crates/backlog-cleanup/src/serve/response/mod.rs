//! What every handler answers with. Knows no route, no role and no database.

mod json;
mod problem;
mod problems;

pub use json::json;
pub use problem::{Problem, as_problem};
pub use problems::Problems;
