//! Keeps a table of job attempts from filling up with failures. This file is the map: the storeys, and the order of the
//! install script. README.md beside it explains them.

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

// From the ground up: spread, postgres, extension, target, rules, schedule, rank, remove, plan, history, obstacles, grant, run, doctor, status, tick.
// A file imports from its own storey and from those below (src/storeys; `make lint` checks it).
mod doctor;
mod extension;
mod grant;
mod history;
mod obstacles;
mod plan;
mod postgres;
mod rank;
mod remove;
mod rules;
mod run;
mod schedule;
mod spread;
mod status;
mod target;
mod tick;

/// What `cargo pgrx test` asks of a crate.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        Vec::new()
    }
}

/// Keeps pgrx from putting Rust backtraces into error details, whatever RUST_BACKTRACE is in the server's environment.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: runs when the library is loaded, before this process has another thread.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    postgres::names::install();
    postgres::settings::restrict();
}

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../sql/encoding.sql", name = "encoding", requires = ["tables"]);
extension_sql_file!("../sql/dump.sql", name = "dump", requires = ["tables"]);
extension_sql_file!("../sql/tick.sql", name = "tick", requires = ["dump"]);
extension_sql_file!("../sql/checks.sql", name = "checks", requires = ["dump", target::check::backlog_cleanup_check]);
extension_sql_file!("../sql/policies.sql", name = "policies", requires = ["checks"]);
extension_sql_file!("../sql/run.sql", name = "run", requires = ["tables"]);
extension_sql_file!("../sql/history.sql", name = "history", requires = ["run"]);
extension_sql_file!("../sql/total.sql", name = "total", requires = ["tables"]);
extension_sql_file!("../sql/alerts.sql", name = "alerts", requires = ["tick"]);
extension_sql_file!("../sql/delivery.sql", name = "delivery", requires = ["alerts"]);
extension_sql_file!("../sql/analytics.sql", name = "analytics", requires = ["history", "tick"]);
extension_sql_file!("../sql/finish.sql", name = "finish", finalize);
