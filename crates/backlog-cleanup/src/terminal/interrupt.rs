use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::connect::{Server, pid, settle};
use crate::failure::{Exit, Failure, Result};
use crate::signals::Signals;
use crate::terminal::output::Output;

/// A connection for a long statement, and a second one to watch and cancel it.
pub struct Connections {
    first: PgConnection,
    second: PgConnection,
    pid: i32,
}

impl Connections {
    pub async fn open(server: &Server) -> Result<Connections> {
        let (mut first, second) = (server.connect().await?, server.connect().await?);
        let pid = pid(&mut first).await?;
        Ok(Connections { first, second, pid })
    }

    /// The server process that executes the statement.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn first(&mut self) -> &mut PgConnection {
        &mut self.first
    }

    pub fn second(&mut self) -> &mut PgConnection {
        &mut self.second
    }

    /// Executes a statement on the first connection, and lets signals cancel it: see [`wait_for`].
    pub async fn cancellable<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
        output: &Output,
        watch: impl AsyncFnMut(&mut PgConnection, bool),
    ) -> Result<T> {
        let Connections { first, second, pid } = self;
        let done = wait_for(statement(first), *pid, second, output, watch).await?;
        if done.is_err() {
            settle(&mut self.first).await;
        }
        Ok(done?)
    }
}

/// Waits for a statement of the server process `pid`. Ctrl-C, SIGTERM and SIGHUP cancel it, over the `second` connection,
/// and the wait goes on until it has ended; another signal ends the wait. Calls `watch` four times a second with the second
/// connection, and a last time with true before it cancels.
async fn wait_for<T>(
    statement: impl Future<Output = sqlx::Result<T>>,
    pid: i32,
    second: &mut PgConnection,
    output: &Output,
    mut watch: impl AsyncFnMut(&mut PgConnection, bool),
) -> Result<sqlx::Result<T>> {
    let mut statement = std::pin::pin!(statement);
    let mut ticks = interval(Duration::from_millis(250));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut signals = Signals::listen()?;
    let mut is_cancelled = false;
    loop {
        let stops = select! {
            biased;
            done = &mut statement => {
                // From here on a signal ends the program again.
                tokio::spawn(async move {
                    signals.next().await;
                    std::process::exit(Exit::Error as i32);
                });
                return Ok(done);
            }
            () = signals.next() => true,
            _ = ticks.tick() => false,
        };
        if stops && is_cancelled {
            return Err(Failure::error(format!("stopped waiting; process {pid} of the server may still be running"))
                .hint(format!("SELECT pg_terminate_backend({pid})")));
        }
        if !is_cancelled {
            watch(second, stops).await;
        }
        if stops {
            // The terminal has echoed ^C at the cursor.
            output.note("\ncancelling; committed batches are permanent");
        }
        is_cancelled |= stops;
        if is_cancelled {
            // Repeated, because a cancel request between two statements has no effect.
            let cancelled = sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut *second).await;
            if let (Err(error), true) = (cancelled, stops) {
                output.failure(&error.into());
            }
        }
    }
}
