//! The pages of the documentation show what is printed: `make docs` writes them anew, and tests compare them.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../receiver/mod.rs"]
mod receiver;
#[path = "../server/mod.rs"]
mod server;

mod command_line;
mod http;
mod outage;
