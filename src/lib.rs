//! Keeps a table of job attempts from filling up with failures. One direction:
//! target, sweep, books, report.

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

mod books;
mod cleanup;
mod error;
mod index;
mod owner;
mod status;
mod sweep;
mod target;

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../sql/privileges.sql", name = "privileges", finalize);
