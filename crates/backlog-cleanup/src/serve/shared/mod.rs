//! What requests share: queries in progress, answers that are given again, limits; pg_cron's schedules; the light.
//! Knows no role and no route.

pub mod cron;
pub mod flights;
pub mod idempotency;
pub mod light;
pub mod limits;
pub mod places;
