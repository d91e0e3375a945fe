//! What requests share: queries in progress, answers that are given again, limits; and pg_cron's schedules. Knows no role
//! and no route.

pub mod cron;
pub mod flights;
pub mod idempotency;
pub mod limits;
pub mod places;
