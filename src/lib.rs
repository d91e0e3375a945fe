//! Keeps a table of job attempts from filling up with failures. One direction:
//! target, sweep, books, report.

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

mod doctor;
mod grant;
mod history;
mod plan;
mod postgres;
mod rank;
mod remove;
mod rules;
mod run;
mod schedule;
mod status;
mod target;

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../sql/encoding.sql", name = "encoding", requires = ["tables"]);
extension_sql_file!("../sql/dump.sql", name = "dump", requires = ["tables"]);
extension_sql_file!("../sql/checks.sql", name = "checks", requires = ["dump", target::backlog_cleanup_check]);
extension_sql_file!(
    "../sql/privileges.sql",
    name = "privileges",
    requires = [
        run::one_transaction::backlog_cleanup_failed_generations,
        run::one_transaction::backlog_cleanup_emergency,
        status::backlog_cleanup_status,
        status::backlog_cleanup_status_json,
        schedule::backlog_cleanup_schedule,
        schedule::backlog_cleanup_unschedule,
        rank::index::backlog_cleanup_index_sql,
        grant::backlog_cleanup_grant,
        grant::backlog_cleanup_revoke,
        doctor::backlog_cleanup_doctor,
        run::stop::backlog_cleanup_stop,
        status::failures::backlog_cleanup_failures,
        history::books::backlog_cleanup_books,
        history::details::backlog_cleanup_run_details,
    ]
);
extension_sql_file!("../sql/run.sql", name = "run", requires = ["tables"]);
extension_sql_file!("../sql/total.sql", name = "total", requires = ["tables"]);
extension_sql_file!("../sql/strangers.sql", name = "strangers", requires = ["privileges"]);
extension_sql_file!("../sql/register.sql", name = "register", finalize);
