use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::postgres::table::Column;
use crate::target::Target;

/// How the rows of a target are read. The saved ranks of a run depend on it: with another account, status, column or time zone
/// they would belong to other rows.
#[derive(PartialEq, Serialize, Deserialize)]
pub struct Reading {
    table: u32,
    account: String,
    failed_status: String,
    time_zone: String,
    /// Account, recipe, failed-at, id, failure type and, if there is one, status: the name, the `attnum`, the type and its
    /// collation.
    columns: Vec<(String, i16, u32, u32)>,
}

impl Reading {
    pub fn of(target: &Target) -> Reading {
        let Target { table, account_column, status, recipe, failed_at, id, failure_type, .. } = target;
        let number = |oid: pg_sys::Oid| oid.to_u32();
        let column = |c: &Column| (c.name.clone(), c.number, number(c.type_oid), number(c.collation));
        Reading {
            table: number(table.oid),
            account: target.account.clone(),
            failed_status: target.failed_status.clone(),
            time_zone: target.time_zone.clone(),
            columns: [account_column, recipe, failed_at, id, failure_type]
                .into_iter()
                .chain(status)
                .map(column)
                .collect(),
        }
    }
}
