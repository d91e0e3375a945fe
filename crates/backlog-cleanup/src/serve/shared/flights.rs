use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::timeout;

use crate::serve::response::Problem;

/// What is asked, and as which role.
type Question = (String, &'static str, String);
type Answer = Result<Bytes, Problem>;
type Flight = Shared<BoxFuture<'static, Answer>>;

/// One query at a time per question. Whoever asks while one is at work shares the next with all others who do, so that
/// requests never stack, and nobody gets an answer that is older than the question.
pub struct Flights {
    queues: Mutex<HashMap<Question, Queue>>,
    /// How long a query may take, also where the database says nothing at all.
    limit: Duration,
}

#[derive(Default)]
struct Queue {
    turn: Arc<tokio::sync::Mutex<()>>,
    next: Option<Flight>,
}

impl Flights {
    pub fn new(limit: Duration) -> Flights {
        Flights { queues: Mutex::default(), limit }
    }

    /// The answer to a question, by a query that starts after the call.
    pub async fn join(
        self: &Arc<Self>,
        question: Question,
        query: impl Future<Output = Answer> + Send + 'static,
    ) -> Answer {
        let flight = {
            let mut queues = self.queues.lock().expect("no panic holds it");
            let queue = queues.entry(question.clone()).or_default();
            match &queue.next {
                Some(next) => next.clone(),
                None => {
                    let flight = Arc::clone(self).fly(question, Arc::clone(&queue.turn), query);
                    queue.next.insert(flight).clone()
                }
            }
        };
        flight.await
    }

    /// Goes on when all who wait for it have gone: the query would go on, too.
    fn fly(
        self: Arc<Self>,
        question: Question,
        turn: Arc<tokio::sync::Mutex<()>>,
        query: impl Future<Output = Answer> + Send + 'static,
    ) -> Flight {
        let flight = tokio::spawn(async move {
            let turn = turn.lock_owned().await;
            if let Some(queue) = self.queues.lock().expect("no panic holds it").get_mut(&question) {
                queue.next = None;
            }
            let answer = timeout(self.limit, query)
                .await
                .unwrap_or_else(|_| Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "the database does not answer")));
            let mut queues = self.queues.lock().expect("no panic holds it");
            if queues.get(&question).is_some_and(|queue| queue.next.is_none()) {
                queues.remove(&question);
            }
            drop(turn);
            answer
        });
        let answer = flight.map(|done| {
            done.unwrap_or_else(|_| Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the query was lost")))
        });
        answer.boxed().shared()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_while_a_query_is_at_work_share_the_next() {
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
        assert!(flights.queues.lock().unwrap().is_empty());
    }
}
