//! The ground moves: whatever somebody does to a table, its leaves, its target or its policies around a run, no row goes that
//! must stay, the run ends well or with an error that says why, and the next run finishes.
//!
//! `named` has the cases that were found by attack; `every_change` makes one of each change, form and moment.

mod change;
mod every_change;
mod form;
mod named;
mod oracle;
mod ranks;
mod scene;
