//! The pages of the documentation show what is printed: `make docs` writes them anew, and tests compare them.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../server/mod.rs"]
mod server;

mod command_line;
mod http;
