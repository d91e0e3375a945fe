//! The week of a target on one page: `facts.rs` reads it, `page.rs` puts it into words, `text.rs` and `markdown.rs` print it.

mod draw;
mod facts;
mod markdown;
mod page;
mod text;

use pgrx::datum::Interval;
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error, required};
use crate::postgres::read::read_one;
use crate::schedule::call;
use crate::target::row::exists;

/// Tells what has happened to a target in the last so long, by its samples, runs and alerts: a page of at most 80 columns for psql,
/// or the same as Markdown. Reads none of the target's rows. Errors: 22004, 22023 (`since` is not from 1 hour to 3 years; an unknown
/// `format`), 42704 (unknown target).
#[pg_extern(stable)]
fn backlog_cleanup_report(
    since: default!(Option<Interval>, "'7 days'"),
    target: default!(Option<&str>, "'generations'"),
    format: default!(Option<&str>, "'text'"),
) -> Result<String> {
    let target = exists(target)?;
    let hint = call("report(since => '7 days', format => 'text')")?;
    let since = required(since, "since", &hint)?;
    let format = required(format, "format", &hint)?;
    let invalid = |message: &str| error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message.into(), hint.clone());
    let print = match format {
        "text" => text::print,
        "markdown" => markdown::print,
        _ => return Err(invalid("argument \"format\" must be text or markdown")),
    };
    const IN_RANGE: &str = "SELECT $1 BETWEEN interval '1 hour' AND interval '3 years'";
    if extension::as_owner(|| read_one::<bool>(IN_RANGE, &[since.into()]))? != Some(true) {
        return Err(invalid("argument \"since\" must be from 1 hour to 3 years"));
    }
    Ok(print(&page::page(&facts::facts(&target, since)?)))
}
