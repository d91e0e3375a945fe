use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::serve::response::{Problem, json};

pub const HEADER: &str = "idempotency-key";
/// How long an answer is kept.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Bytes of answers that are kept; beyond that the least recently used ones go.
const ROOM: u64 = 64 * 1024 * 1024;
/// Bytes of an entry beside its body, about.
const ENTRY: u32 = 1024;

/// The SHA-256 of a request.
pub type Fingerprint = [u8; 32];

/// A role, and its key.
type Name = (String, String);

/// An answer that can be given again.
#[derive(Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub location: Option<String>,
    pub body: Bytes,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, json(self.body)).into_response();
        if let Some(location) = self.location.and_then(|it| HeaderValue::try_from(it).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// The answers to requests with an idempotency key. They are forgotten when the process ends.
pub struct Keys {
    /// Requests that have no answer yet.
    unanswered: Mutex<HashMap<Name, Fingerprint>>,
    answers: Cache<Name, (Fingerprint, Answer)>,
}

/// The first request with a key. Dropped without `keep`, as when the request fails, it frees the key.
pub struct First {
    keys: Arc<Keys>,
    name: Name,
    request: Fingerprint,
}

pub enum Begun {
    First(First),
    Again(Answer),
}

/// The key of a request, if it has one. Errors: 400 if it is not valid.
pub fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(key) = headers.get(HEADER) else { return Ok(None) };
    valid(key.to_str().unwrap_or_default()).map(Some)
}

/// A key that is valid. Errors: 400.
pub fn valid(key: &str) -> Result<&str, Problem> {
    match (1..=255).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        true => Ok(key),
        false => Err(Problem::bad_request("Idempotency-Key must be 1 to 255 printable characters")),
    }
}

impl Default for Keys {
    fn default() -> Keys {
        let weight = |_: &Name, (_, answer): &(Fingerprint, Answer)| {
            u32::try_from(answer.body.len()).unwrap_or(u32::MAX).saturating_add(ENTRY)
        };
        let answers = Cache::builder().max_capacity(ROOM).weigher(weight);
        let answers = answers.eviction_policy(EvictionPolicy::lru()).time_to_live(LIFE);
        Keys { unanswered: Mutex::default(), answers: answers.build() }
    }
}

impl Keys {
    /// Begins a request. Errors: 422 if the key was used for another request, 409 if the first has no answer yet.
    pub fn begin(self: &Arc<Self>, role: &str, key: &str, request: Fingerprint) -> Result<Begun, Problem> {
        let name = (role.to_owned(), key.to_owned());
        // A request leaves `unanswered` only after its answer was kept, so under the lock it is found in one of the two.
        let mut unanswered = self.unanswered.lock();
        let answered = self.answers.get(&name);
        match unanswered.get(&name).or(answered.as_ref().map(|(first, _)| first)) {
            Some(first) if *first != request => {
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Idempotency-Key was used for another request")
                    .hint("a new key for a new request"))
            }
            Some(_) => match answered {
                Some((_, answer)) => Ok(Begun::Again(answer)),
                None => {
                    Err(Problem::new(StatusCode::CONFLICT, "the first request with this Idempotency-Key has not ended")
                        .hint("try again in a moment"))
                }
            },
            None => {
                unanswered.insert(name.clone(), request);
                Ok(Begun::First(First { keys: Arc::clone(self), name, request }))
            }
        }
    }
}

impl First {
    /// Keeps the answer for those who ask again.
    pub fn keep(&self, answer: &Answer) {
        self.keys.answers.insert(self.name.clone(), (self.request, answer.clone()));
    }
}

impl Drop for First {
    fn drop(&mut self) {
        self.keys.unanswered.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(length: usize) -> Answer {
        Answer { status: StatusCode::OK, location: None, body: Bytes::from(vec![0; length]) }
    }

    fn refused(begun: Result<Begun, Problem>) -> Option<StatusCode> {
        begun.err().map(|problem| problem.into_response().status())
    }

    #[test]
    fn a_key_is_one_request_of_one_role_and_free_again_if_it_fails() {
        let keys = Arc::new(Keys::default());
        let begin = |role, request: u8| keys.begin(role, "key", [request; 32]);
        let Ok(Begun::First(first)) = begin("operator", 1) else { panic!("the first") };
        assert_eq!(refused(begin("operator", 1)), Some(StatusCode::CONFLICT));
        assert_eq!(refused(begin("operator", 2)), Some(StatusCode::UNPROCESSABLE_ENTITY));
        drop(first);
        let Ok(Begun::First(first)) = begin("operator", 2) else { panic!("the key is free") };
        first.keep(&answer(1));
        drop(first);
        assert!(matches!(begin("operator", 2), Ok(Begun::Again(again)) if again.body.len() == 1));
        assert_eq!(refused(begin("operator", 1)), Some(StatusCode::UNPROCESSABLE_ENTITY));
        assert!(matches!(begin("admin", 1), Ok(Begun::First(_))));
    }

    #[test]
    fn the_oldest_answers_go_when_there_is_no_room() {
        let keys = Arc::new(Keys::default());
        for key in 0..100 {
            let Ok(Begun::First(first)) = keys.begin("operator", &key.to_string(), [1; 32]) else { panic!("{key}") };
            first.keep(&answer(1024 * 1024));
        }
        keys.answers.run_pending_tasks();
        assert!(keys.answers.weighted_size() <= ROOM);
        assert!(matches!(keys.begin("operator", "99", [1; 32]), Ok(Begun::Again(_))));
        assert!(matches!(keys.begin("operator", "0", [1; 32]), Ok(Begun::First(_))));
    }
}
