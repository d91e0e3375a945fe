//! The parts of the extension that need no server, with their own tests.

#[path = "../../src/rank/newest.rs"]
#[allow(dead_code)] // its callers are the extension's
mod newest;
#[path = "../../src/rank/spread.rs"]
mod spread;
