//! What handlers answer: JSON and problems. Knows no route and no role.

mod json;
mod problem;
mod problems;

pub use json::{bytes, json, read};
pub use problem::{Problem, as_problem, refused};
pub use problems::Problems;
