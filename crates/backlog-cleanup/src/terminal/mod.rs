//! What a person sees and types: lines, tables, bars, Ctrl-C. Knows no command.

pub mod ask;
pub mod bar;
pub mod interrupt;
pub mod log;
pub mod output;
pub mod report;
pub mod screen;
mod size;
