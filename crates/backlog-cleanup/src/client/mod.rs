//! The database: how to connect to it, and what to ask it. Knows neither terminal nor HTTP.

pub mod alerts;
pub mod analytics;
pub mod calls;
pub mod columns;
pub mod connect;
pub mod deliveries;
pub mod history;
pub mod policies;
pub mod statement;
pub mod targets;
pub mod warnings;
pub mod watched;
