use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Postgres, Transaction};
use tokio::select;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::calls::{FromReport, Mark, Removal};
use crate::client::connect::{Server, begin, settle};
use crate::client::history;
use crate::failure::{Exit, Failure, Result};
use crate::signals::Signals;
use crate::terminal::output::Output;

/// How long the second connection may take: a pooler may have no server connection for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection for a long statement, and a second one to watch and cancel it.
pub struct Connections {
    first: PgConnection,
    second: PgConnection,
    mark: Mark,
}

impl Connections {
    pub async fn open(server: &Server) -> Result<Connections> {
        let (first, second) = (server.connect().await?, server.connect().await?);
        Ok(Connections { first, second, mark: Mark::new()? })
    }

    /// What marks the long statement.
    pub fn mark(&self) -> Mark {
        self.mark.clone()
    }

    pub fn second(&mut self) -> &mut PgConnection {
        &mut self.second
    }

    /// Begins a transaction of the second connection.
    pub async fn begin(&mut self) -> Result<Transaction<'_, Postgres>> {
        Ok(begin(&mut self.second).await?)
    }

    /// Removes in one transaction, which signals cancel.
    pub async fn in_one_transaction<T: FromReport>(&mut self, removal: Removal, output: &Output) -> Result<T> {
        let removal = removal.marked(&self.mark);
        let call = async |first: &mut PgConnection| {
            let mut work = begin(first).await?;
            let report = removal.report(&mut work).await?;
            work.commit().await?;
            Ok(report)
        };
        self.cancellable(call, output, async |_, _| ()).await
    }

    /// Removes in batches, until signals cancel it.
    pub async fn in_batches<T: FromReport>(
        &mut self,
        removal: Removal,
        output: &Output,
        watch: impl AsyncFnMut(&mut PgConnection, bool),
    ) -> Result<T> {
        let removal = removal.marked(&self.mark);
        self.cancellable(async |first: &mut PgConnection| removal.report(first).await, output, watch).await
    }

    /// Executes a marked statement on the first connection, and lets signals cancel it: see [`Watcher`].
    pub async fn cancellable<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
        output: &Output,
        watch: impl AsyncFnMut(&mut PgConnection, bool),
    ) -> Result<T> {
        let ended = CancellationToken::new();
        let done = {
            let watcher = Watcher { mark: &self.mark, second: &mut self.second, output, signals: Signals::listen()? };
            let mut watching = std::pin::pin!(watcher.watch(watch, &ended));
            let done = select! {
                biased;
                done = statement(&mut self.first) => done,
                failure = &mut watching => return Err(failure.unwrap_or_else(|| Failure::error("stopped waiting"))),
            };
            ended.cancel();
            watching.await;
            done
        };
        end_by_signals()?;
        if done.is_err() {
            settle(&mut self.first).await;
            timeout(PATIENCE, self.cancel_what_is_left()).await.ok();
        }
        Ok(done?)
    }

    /// A pooler that gives a statement up leaves the server at work on it.
    async fn cancel_what_is_left(&mut self) -> sqlx::Result<()> {
        let mut work = begin(&mut self.second).await?;
        history::cancel(&mut work, &self.mark).await?;
        work.commit().await
    }
}

/// From here on a signal ends the program again.
fn end_by_signals() -> Result<()> {
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(Exit::Error as i32);
    });
    Ok(())
}

/// Watches a statement, and cancels it.
struct Watcher<'a> {
    mark: &'a Mark,
    second: &'a mut PgConnection,
    output: &'a Output,
    signals: Signals,
}

impl Watcher<'_> {
    /// Ctrl-C, SIGTERM and SIGHUP cancel the statement, over the second connection; another signal ends the wait. Calls `watch`
    /// four times a second with the second connection, in a transaction, and a last time with true before it cancels.
    /// Returns `None` when the statement has ended, and else why it no longer waits.
    async fn watch(
        mut self,
        mut watch: impl AsyncFnMut(&mut PgConnection, bool),
        ended: &CancellationToken,
    ) -> Option<Failure> {
        let mut ticks = interval(Duration::from_millis(250));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_cancelled = false;
        loop {
            let stops = select! {
                biased;
                () = ended.cancelled() => return None,
                () = self.signals.next() => true,
                _ = ticks.tick() => false,
            };
            if stops && is_cancelled {
                let failure = Failure::error("stopped waiting; the statement may still be running on the server");
                return Some(failure.hint("backlog-cleanup runs, and backlog-cleanup stop RUN"));
            }
            if stops {
                // The terminal has echoed ^C at the cursor.
                self.output.note("\ncancelling; committed batches are permanent");
            }
            let looks = !is_cancelled;
            is_cancelled |= stops;
            let look = async {
                // A failed look is repeated at the next tick.
                if looks {
                    let mut work = begin(self.second).await?;
                    watch(&mut work, stops).await;
                    work.commit().await?;
                }
                if is_cancelled {
                    // Repeated, because a cancel request between two statements has no effect.
                    let mut work = begin(self.second).await?;
                    history::cancel(&mut work, self.mark).await?;
                    work.commit().await?;
                }
                Ok(())
            };
            let failed: sqlx::Result<()> = timeout(PATIENCE, look).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
            if let (Err(error), true) = (failed, stops) {
                self.output.failure(&Failure::from(error).or_hint("again to stop waiting"));
            }
        }
    }
}
