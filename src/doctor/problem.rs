use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

/// What is wrong, and the statement that mends it. A remark if its status is `Ok`.
pub struct Problem {
    pub status: Status,
    pub detail: String,
    pub fix: Option<String>,
}

/// Runs a statement on catalogs and the extension's own tables, whose rows are problems: `status, detail, fix text`.
pub fn problems(statement: &str, arguments: &[DatumWithOid]) -> Result<Vec<Problem>> {
    extension::as_owner(|| {
        Spi::connect(|client| {
            client
                .select(statement, None, arguments)?
                .map(|row| {
                    let status = match row.get::<&str>(1)? {
                        Some("ok") => Status::Ok,
                        Some("warn") => Status::Warn,
                        _ => Status::Fail,
                    };
                    Ok(Problem { status, detail: row.get(2)?.unwrap_or_default(), fix: row.get(3)? })
                })
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}
