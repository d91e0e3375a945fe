use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::serve::response::Problem;

pub const HEADER: &str = "idempotency-key";
/// How long an answer is kept, unless there is no room.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Bytes of answers that are kept.
const ROOM: usize = 64 * 1024 * 1024;
/// Answers that are kept.
const MOST: usize = 10_000;

/// The SHA-256 of a request.
pub type Fingerprint = [u8; 32];

/// A key, and the role whose it is.
type Name = (String, String);

/// An answer that is given again.
#[derive(Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub location: Option<String>,
    pub body: Bytes,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], self.body).into_response();
        if let Some(location) = self.location.and_then(|it| HeaderValue::try_from(it).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

struct Entry {
    request: Fingerprint,
    since: Instant,
    /// `None` while the first request is at work.
    answer: Option<Answer>,
}

/// What requests with a key were answered. A restart forgets all of it.
#[derive(Default)]
pub struct Keys(Mutex<HashMap<Name, Entry>>);

/// A key's first request: what it is answered is kept by `keep`; where it fails, the key is free again.
pub struct First {
    keys: Arc<Keys>,
    name: Name,
}

pub enum Begun {
    First(First),
    Again(Answer),
}

/// The key of a request, if it has one. Errors: 400 where it is none.
pub fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(key) = headers.get(HEADER) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Problem::bad_request("Idempotency-Key is not 1 to 255 printable characters")),
    }
}

impl Keys {
    /// Begins a request. Errors: 422 where the key had another request, 409 where the first is at work.
    pub fn begin(self: &Arc<Self>, role: &str, key: &str, request: Fingerprint) -> Result<Begun, Problem> {
        let name = (role.to_owned(), key.to_owned());
        let mut entries = self.0.lock().expect("no panic holds it");
        entries.retain(|_, entry| entry.since.elapsed() < LIFE);
        match entries.get(&name) {
            Some(entry) if entry.request != request => {
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Idempotency-Key has been used for another request")
                    .hint("a new key for a new request"))
            }
            Some(Entry { answer: Some(answer), .. }) => Ok(Begun::Again(answer.clone())),
            Some(_) => {
                Err(Problem::new(StatusCode::CONFLICT, "the first request with this Idempotency-Key is at work")
                    .hint("try again in a moment"))
            }
            None => {
                entries.insert(name.clone(), Entry { request, since: Instant::now(), answer: None });
                Ok(Begun::First(First { keys: Arc::clone(self), name }))
            }
        }
    }
}

impl First {
    pub fn keep(&self, answer: &Answer) {
        let mut entries = self.keys.0.lock().expect("no panic holds it");
        let size = |entry: &Entry| entry.answer.as_ref().map_or(0, |answer| answer.body.len());
        while entries.len() > MOST || entries.values().map(size).sum::<usize>() + answer.body.len() > ROOM {
            let answered = entries.iter().filter(|(_, entry)| entry.answer.is_some());
            let Some(oldest) = answered.min_by_key(|(_, entry)| entry.since).map(|(name, _)| name.clone()) else {
                break;
            };
            entries.remove(&oldest);
        }
        if let Some(entry) = entries.get_mut(&self.name) {
            entry.answer = Some(answer.clone());
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let mut entries = self.keys.0.lock().expect("no panic holds it");
        if entries.get(&self.name).is_some_and(|entry| entry.answer.is_none()) {
            entries.remove(&self.name);
        }
    }
}
