use sqlx::postgres::PgConnection;
use sqlx::{Executor, FromRow};

use super::{Setup, Step};
use crate::client::calls;
use crate::client::connect::{Server, begin};
use crate::client::statement::{query_as, query_scalar};
use crate::failure::{Failure, Result};
use crate::terminal::bar::bar;
use crate::terminal::interrupt::Connections;
use crate::terminal::output::Output;

/// Builds the partial index if doctor reports that it is missing.
pub async fn set_up(setup: &Setup, server: &Server, output: &Output) -> Result<Step> {
    let mut connections = Connections::open(server).await?;
    let mut work = connections.begin().await?;
    let findings = calls::doctor(&mut work, &setup.target.name).await?;
    work.commit().await?;
    let Some(finding) = findings.iter().find(|finding| finding.check == "index") else {
        // There is no check of the index without a target; the first finding says what is wrong with it.
        let why = findings.first().map(|finding| finding.detail.clone()).unwrap_or_default();
        return Ok(Step::to_do("index", &Failure::error(why), Vec::new()));
    };
    let Some(statement) = finding.fix.as_deref().filter(|_| finding.status != "ok") else {
        return Ok(Step::new("index", "kept", &finding.detail));
    };
    let question = "The index of a partitioned table blocks writes while it is built. Build it?";
    if !statement.contains("CONCURRENTLY") && !setup.agrees(setup.yes, "--yes", question, output)? {
        let why = Failure::error("building it blocks writes to the table");
        return Ok(Step::to_do("index", &why, vec![statement.to_owned()]));
    }
    match build(statement, &mut connections, output).await {
        Ok(()) => Ok(Step::new("index", "created", statement)),
        Err(failure) if failure.sqlstate.as_deref() == Some("42501") => {
            Ok(Step::to_do("index", &failure, vec![statement.to_owned()]))
        }
        Err(failure) => Err(failure),
    }
}

/// The progress of the build, from `pg_stat_progress_create_index`.
#[derive(FromRow)]
struct Progress {
    phase: String,
    /// In blocks, rows or transactions to wait for, by the phase.
    done: i64,
    total: i64,
    /// The index, once it is in the catalog.
    index: Option<String>,
}

const PROGRESS: &str = "
    SELECT phase,
           CASE WHEN lockers_total > lockers_done THEN lockers_done WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END AS done,
           CASE WHEN lockers_total > lockers_done THEN lockers_total WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END AS total,
           (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = index_relid) AS index
    FROM pg_stat_progress_create_index
    WHERE pid = (SELECT pid FROM pg_stat_activity WHERE state = 'active' AND starts_with(query, $1))";

async fn build(statement: &str, connections: &mut Connections, output: &Output) -> Result<()> {
    let mark = connections.mark();
    let bar = bar(0);
    let mut index = None;
    let marked = mark.on(statement);
    let build = async |first: &mut PgConnection| first.execute(marked.as_str()).await.map(drop);
    let watch = async |second: &mut PgConnection, _| {
        let progress = query_as::<Progress>(PROGRESS).bind(mark.as_str()).fetch_optional(second).await;
        if let Ok(Some(progress)) = progress {
            bar.set_length(progress.total.max(0) as u64);
            bar.set_position(progress.done.max(0) as u64);
            bar.set_message(progress.phase);
            index = progress.index.or(index.take());
        }
    };
    let built = connections.cancellable(build, output, watch).await;
    bar.finish_and_clear();
    if let (Err(_), Some(index)) = (&built, &index) {
        remove_if_invalid(connections.second(), index).await?;
    }
    built
}

/// Drops the invalid index of a build that failed or was cancelled: it would slow down every write.
async fn remove_if_invalid(connection: &mut PgConnection, index: &str) -> Result<()> {
    let is_invalid = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";
    let mut work = begin(connection).await?;
    let is_invalid = query_scalar::<bool>(is_invalid).bind(index).fetch_optional(&mut *work).await?;
    work.commit().await?;
    if is_invalid == Some(true) {
        connection.execute(format!("DROP INDEX CONCURRENTLY {index}").as_str()).await?;
    }
    Ok(())
}
