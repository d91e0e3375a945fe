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

/// What is wrong, and the statement that fixes it. With status `Ok` it is only a remark.
pub struct Problem {
    pub status: Status,
    pub detail: String,
    pub fix: Option<String>,
}

/// Runs a statement on the catalogs and the extension's own tables that returns problems: `status, detail, fix`.
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
