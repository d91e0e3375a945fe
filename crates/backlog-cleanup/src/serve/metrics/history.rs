use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::PgPool;

/// A query that the database has not answered by then, it ends itself: it leaves nothing behind that waits on.
const END_QUERY: &str = "SET LOCAL statement_timeout = '2 s'";

/// A scrape shows what was known before rather than wait longer for a database that does not even say so.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the runs did, as of the last scrape that reached the database.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Whether the last one did.
    pub up: bool,
    pub extension: Option<String>,
    /// When the last regular run of everything ended well, per target: seconds since 1970.
    pub last_success: BTreeMap<String, Option<f64>>,
    pub totals: Vec<Total>,
}

/// A row of `backlog_cleanup.total`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Total {
    pub target: String,
    pub mode: String,
    pub state: String,
    pub seconds_up_to: Option<f64>,
    pub runs: i64,
    pub removed: i64,
    pub seconds: Option<f64>,
}

const EXTENSION: &str = "SELECT extversion FROM pg_extension WHERE extname = 'backlog_cleanup'";

const LAST_SUCCESS: &str = "
    SELECT t.name, extract(epoch FROM max(r.finished_at))::float8
    FROM backlog_cleanup.target t
    LEFT JOIN backlog_cleanup.run r
           ON r.target = t.name AND r.mode = 'regular' AND r.state = 'completed'
          AND r.recipe_id IS NULL AND r.failure_type IS NULL
    GROUP BY t.name";

const TOTALS: &str = "SELECT target, mode, state, seconds_up_to, runs, removed, seconds FROM backlog_cleanup.total";

impl History {
    /// The same, as the database does not answer any more.
    pub fn unreachable(&self) -> History {
        History { up: false, ..self.clone() }
    }
}

/// Asks the database. Errors: it does not answer in time.
pub async fn ask(pool: &PgPool) -> sqlx::Result<History> {
    let asked = async {
        let mut transaction = pool.begin().await?;
        transaction.execute(END_QUERY).await?;
        let extension = sqlx::query_scalar(EXTENSION).fetch_optional(&mut *transaction).await?;
        let last_success: Vec<(String, Option<f64>)> =
            sqlx::query_as(LAST_SUCCESS).fetch_all(&mut *transaction).await?;
        let totals = sqlx::query_as(TOTALS).fetch_all(&mut *transaction).await?;
        Ok(History { up: true, extension, last_success: last_success.into_iter().collect(), totals })
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
