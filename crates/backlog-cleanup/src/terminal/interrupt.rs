use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::QueryScalar;
use sqlx::types::Json;
use sqlx::{Connection, Postgres};
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::connect::Server;
use crate::failure::{Exit, Failure, Result};
use crate::signals::Signals;
use crate::terminal::output::Output;
use crate::terminal::report::Report;

/// A connection on which a statement removes rows, and a second one to look at it and to cancel it.
pub struct Work {
    first: PgConnection,
    second: PgConnection,
    pid: i32,
}

impl Work {
    pub async fn start(server: &Server) -> Result<Work> {
        let (mut first, second) = (server.connect().await?, server.connect().await?);
        let pid = pid(&mut first).await?;
        Ok(Work { first, second, pid })
    }

    /// The server's process that executes the statement.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn second(&mut self) -> &mut PgConnection {
        &mut self.second
    }

    /// Executes a statement that returns a report, as `cancellable` does.
    pub async fn report(
        &mut self,
        statement: QueryScalar<'_, Postgres, Json<Report>, PgArguments>,
        output: &Output,
        watch: impl AsyncFnMut(&mut PgConnection, bool),
    ) -> Result<Report> {
        let Work { first, second, pid } = self;
        let statement = async { Ok(statement.fetch_one(first).await?) };
        let done = cancellable(statement, *pid, second, output, watch).await;
        if done.is_err() {
            // The server says what is wrong before it has ended the transaction.
            self.first.ping().await.ok();
        }
        done.map(|Json(report)| report)
    }
}

/// Waits for a statement that the connection of the process `pid` executes. Ctrl-C, SIGTERM and SIGHUP cancel it on the
/// server, over the `second` connection, and it is waited for its end; a second one gives up waiting. Meanwhile `watch` is
/// called four times a second with the second connection, and a last time, with true, before it is cancelled.
pub async fn cancellable<T>(
    statement: impl Future<Output = Result<T>>,
    pid: i32,
    second: &mut PgConnection,
    output: &Output,
    mut watch: impl AsyncFnMut(&mut PgConnection, bool),
) -> Result<T> {
    let mut statement = std::pin::pin!(statement);
    let mut ticks = interval(Duration::from_millis(250));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut signals = Signals::listen()?;
    let mut is_cancelled = false;
    loop {
        let stops = select! {
            biased;
            done = &mut statement => {
                // From here on they end the program again.
                tokio::spawn(async move {
                    signals.next().await;
                    std::process::exit(Exit::Error as i32);
                });
                return done;
            }
            () = signals.next() => true,
            _ = ticks.tick() => false,
        };
        if stops && is_cancelled {
            return Err(Failure::error(format!("not waited for: process {pid} of the server may go on"))
                .hint(format!("SELECT pg_terminate_backend({pid})")));
        }
        if !is_cancelled {
            watch(second, stops).await;
        }
        if stops {
            // The terminal has shown ^C where the cursor was.
            output.note("\ncancelling; what is committed stays");
        }
        is_cancelled |= stops;
        if is_cancelled {
            // Again and again, since it goes unnoticed between two statements.
            let cancelled = sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut *second).await;
            if let (Err(error), true) = (cancelled, stops) {
                output.failure(&error.into());
            }
        }
    }
}

/// The server's process behind a connection.
pub async fn pid(connection: &mut PgConnection) -> Result<i32> {
    Ok(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await?)
}
