use std::collections::BTreeMap;
use std::time::Duration;

use backlog_cleanup_report::{Mode, State};
use sqlx::Executor;

use crate::client::statement::query_as;
use crate::client::targets::extension_version;
use crate::client::watched::{Watched, watched};
use crate::serve::access::Access;

/// Lets the database end a query that takes too long, so that none is left waiting there.
const END_QUERY: &str = "SET LOCAL statement_timeout = '2 s'";

/// If the database does not answer at all for this time, a scrape shows what the last one read.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the runs did, as of the last scrape that could read it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Whether the last scrape could.
    pub up: bool,
    pub extension: Option<String>,
    /// By target, when the last regular run without a selection was completed, in seconds since 1970.
    pub last_success: BTreeMap<String, Option<f64>>,
    pub totals: Vec<Total>,
    pub watched: Watched,
}

/// A row of `backlog_cleanup.total`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Total {
    pub target: String,
    #[sqlx(try_from = "String")]
    pub mode: Mode,
    #[sqlx(try_from = "String")]
    pub state: State,
    pub seconds_up_to: Option<f64>,
    pub runs: i64,
    pub removed: i64,
    pub seconds: Option<f64>,
    pub wal_bytes: i64,
}

const LAST_SUCCESS: &str = "
    SELECT t.name, extract(epoch FROM max(r.finished_at))::float8
    FROM backlog_cleanup.target t
    LEFT JOIN backlog_cleanup.run r
           ON r.target = t.name AND r.mode = 'regular' AND r.state = 'completed'
          AND r.recipe_id IS NULL AND r.failure_type IS NULL AND r.status IS NULL
    GROUP BY t.name";

const TOTALS: &str =
    "SELECT target, mode, state, seconds_up_to, runs, removed, seconds, wal_bytes FROM backlog_cleanup.total";

impl History {
    /// The same after a scrape that could not read it.
    pub fn unreachable(&self) -> History {
        History { up: false, ..self.clone() }
    }
}

/// Reads the history. Errors: the database does not answer in time.
pub async fn ask(access: &Access) -> sqlx::Result<History> {
    let asked = async {
        let mut transaction = access.begin().await?;
        transaction.execute(END_QUERY).await?;
        let extension = extension_version(&mut transaction).await?;
        let last_success: Vec<(String, Option<f64>)> = query_as(LAST_SUCCESS).fetch_all(&mut *transaction).await?;
        let totals = query_as(TOTALS).fetch_all(&mut *transaction).await?;
        let watched = watched(&mut transaction).await?;
        Ok(History { up: true, extension, last_success: last_success.into_iter().collect(), totals, watched })
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
