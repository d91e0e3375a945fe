//! What requests share: queries under way, answers that are given again, limits. Knows no role and no route.

pub mod flights;
pub mod idempotency;
pub mod limits;
