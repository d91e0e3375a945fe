use backlog_cleanup_report::DEFAULT_TARGET;
use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::postgres::table::Table;
use crate::target::TargetRow;
use crate::target::instead::{other_targets, read_by, tables_like};
use crate::target::mistake::Mistake;

impl TargetRow {
    /// Finds the table `written`, the value of column `key`, of one of these kinds (`pg_class.relkind`).
    pub fn find(&self, key: &'static str, written: &str, kinds: &str) -> Result<std::result::Result<Table, Mistake>> {
        let look = "SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'p', 'f')";
        let mistake = |sqlstate, wrong| Mistake::new(sqlstate, key, wrong, look.into());
        let Some(found) = Table::find(written)? else {
            let wrong = match written {
                // What `sql/dump.sql` writes.
                "not_restored" => {
                    "a dump has brought its policies, and not the target: restore backlog_cleanup.target of that dump"
                        .to_owned()
                }
                _ => format!("table \"{written}\" does not exist"),
            };
            let wrong = mistake(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, wrong);
            let like = tables_like(written, kinds)?;
            // Of several, none is more likely than another.
            let wrong = wrong.there_are("tables of such a name", &like, "").or_only(&like);
            return Ok(Err(match (self.name.as_str(), written) {
                // As CREATE EXTENSION makes it.
                (DEFAULT_TARGET, "public.generations") if like.is_empty() => {
                    wrong.or_another_target(other_targets(&self.name)?)
                }
                _ => wrong,
            }));
        };
        if !kinds.contains(found.kind as u8 as char) {
            let kind = kind(found.kind);
            let wrong =
                mistake(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{written}\" is {kind}, not a table"));
            let read = read_by(&found, kinds)?;
            return Ok(Err(wrong.there_are("tables that it reads", &read, written).or_only(&read)));
        }
        // After DROP and CREATE, or if a schema was renamed, the name means another table.
        let Some(named_by) = &self.named_by else { return Ok(Ok(found)) };
        let may = "SELECT pg_has_role(oid, $2, 'USAGE') FROM pg_roles WHERE rolname::text = $1";
        if one_now::<bool>(may, &[named_by.as_str().into(), found.owner.into()])? == Some(true) {
            return Ok(Ok(found));
        }
        let wrong = match named_by.as_str() {
            "" => format!("the role that named table \"{written}\" does not exist any more"),
            role => format!("table \"{written}\" does not belong to role \"{role}\", which named it"),
        };
        // For a superuser, after a look at the table. What else the role wrote was allowed by the same right.
        let look = self.set("named_by", "NULL, throttle_query = NULL, search_path = NULL");
        Ok(Err(Mistake::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, key, wrong, look)))
    }
}

fn kind(relkind: i8) -> &'static str {
    match relkind as u8 {
        b'v' => "a view",
        b'm' => "a materialized view",
        b'S' => "a sequence",
        b'i' | b'I' => "an index",
        b'c' => "a composite type",
        _ => "something else",
    }
}
