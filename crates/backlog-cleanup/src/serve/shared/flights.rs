use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::serve::response::Problem;

/// A role, what it asks, and of which target.
type Question = (String, &'static str, String);
type Answer<T> = Result<T, Problem>;
type Flight<T> = Shared<BoxFuture<'static, Answer<T>>>;

/// Runs one query at a time per question. Requests that come while a query runs share the next one: queries do not pile up,
/// and no answer is older than its request.
pub struct Flights<T: Clone> {
    queues: Mutex<HashMap<Question, Queue<T>>>,
    /// The longest time for a query, even if the database does not answer.
    limit: Duration,
}

struct Queue<T: Clone> {
    turn: Arc<tokio::sync::Mutex<()>>,
    next: Option<Flight<T>>,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    pub fn new(limit: Duration) -> Flights<T> {
        Flights { queues: Mutex::default(), limit }
    }

    /// Answers a question by a query that starts after the call.
    pub async fn join(
        self: &Arc<Self>,
        question: Question,
        query: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let flight = {
            let mut queues = self.queues.lock();
            let queue = queues.entry(question.clone()).or_insert_with(|| Queue { turn: Arc::default(), next: None });
            match &queue.next {
                Some(next) => next.clone(),
                None => {
                    let flight = Arc::clone(self).start(question, Arc::clone(&queue.turn), query);
                    queue.next.insert(flight).clone()
                }
            }
        };
        flight.await
    }

    /// Runs the query in a task of its own: without waiting requests it would still run in the database.
    fn start(
        self: Arc<Self>,
        question: Question,
        turn: Arc<tokio::sync::Mutex<()>>,
        query: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Flight<T> {
        let flight = tokio::spawn(async move {
            let turn = turn.lock_owned().await;
            if let Some(queue) = self.queues.lock().get_mut(&question) {
                queue.next = None;
            }
            let answer = timeout(self.limit, query)
                .await
                .unwrap_or_else(|_| Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "the database does not answer")));
            let mut queues = self.queues.lock();
            if queues.get(&question).is_some_and(|queue| queue.next.is_none()) {
                queues.remove(&question);
            }
            drop(turn);
            answer
        });
        let answer = flight.map(|done| {
            done.unwrap_or_else(|_| Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the query's task panicked")))
        });
        answer.boxed().shared()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Bytes;
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn requests_during_a_query_share_the_next_one() {
        let flights = Arc::new(Flights::new(Duration::from_secs(60)));
        let started = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (flights, started) = (Arc::clone(&flights), Arc::clone(&started));
            tokio::spawn(async move {
                let query = async move {
                    let number = started.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(Bytes::from(number.to_string()))
                };
                flights.join(("role".into(), "status", "generations".into()), query).await.unwrap()
            })
        };
        let first = ask();
        while started.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others = join_all((0..100).map(|_| ask())).await;
        assert_eq!(first.await.unwrap(), "0");
        assert!(others.into_iter().all(|answer| answer.unwrap() == "1"));
        assert!(flights.queues.lock().is_empty());
    }
}
