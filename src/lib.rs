//! Keeps a table of job attempts from filling up with failures. One direction:
//! target, sweep, books, report.

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

mod balance;
mod batch;
mod batched;
mod begin;
mod books;
mod breaker;
mod cleanup;
mod counts;
mod cutoff;
mod doctor;
mod emergency;
mod error;
mod executor;
mod failures;
mod find;
mod governor;
mod grant;
mod history;
mod index;
mod keys;
mod leaf;
mod lock;
mod newest;
mod owner;
mod part;
mod policy;
mod position;
mod prepared;
mod rank;
mod read;
mod recipe;
mod removable;
mod remove;
mod report;
mod run;
mod run_details;
mod scanned;
mod schedule;
mod selection;
mod status;
mod steady;
mod stop;
mod stream;
mod subtransaction;
mod sweep;
mod table;
mod target;
mod total;
mod wait;
mod worker;

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../sql/encoding.sql", name = "encoding", requires = ["tables"]);
extension_sql_file!("../sql/dump.sql", name = "dump", requires = ["tables"]);
extension_sql_file!("../sql/checks.sql", name = "checks", requires = ["dump", target::backlog_cleanup_check]);
extension_sql_file!(
    "../sql/privileges.sql",
    name = "privileges",
    requires = [
        cleanup::backlog_cleanup_failed_generations,
        cleanup::backlog_cleanup_emergency,
        status::backlog_cleanup_status,
        status::backlog_cleanup_status_json,
        schedule::backlog_cleanup_schedule,
        schedule::backlog_cleanup_unschedule,
        index::backlog_cleanup_index_sql,
        grant::backlog_cleanup_grant,
        grant::backlog_cleanup_revoke,
        doctor::backlog_cleanup_doctor,
        stop::backlog_cleanup_stop,
        failures::backlog_cleanup_failures,
        balance::backlog_cleanup_books,
        run_details::backlog_cleanup_run_details,
    ]
);
extension_sql_file!("../sql/run.sql", name = "run", requires = ["tables"]);
extension_sql_file!("../sql/total.sql", name = "total", requires = ["tables"]);
extension_sql_file!("../sql/strangers.sql", name = "strangers", requires = ["privileges"]);
extension_sql_file!("../sql/register.sql", name = "register", finalize);
