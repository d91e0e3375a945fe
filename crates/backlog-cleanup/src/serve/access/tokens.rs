use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backlog_cleanup_report::{Level, UnknownWord};
use tokio::sync::Semaphore;

use super::Access;
use super::secret::{Hash, hash};
use super::sessions::Sessions;
use crate::failure::{Failure, Result};
use crate::private;

/// A shorter token could be guessed, and so could one of fewer different characters.
const SHORTEST: usize = 24;
const FEWEST: usize = 8;
/// Concurrent streams of events of one token.
const STREAMS: usize = 40;

/// A token, with what it has begun: none takes the place of another.
pub struct Token {
    pub hash: Hash,
    pub access: Arc<Access>,
    pub sessions: Sessions,
    pub streams: Arc<Semaphore>,
}

impl Token {
    pub fn new(hash: Hash, access: Arc<Access>) -> Arc<Token> {
        Arc::new(Token { hash, access, sessions: Sessions::default(), streams: Arc::new(Semaphore::new(STREAMS)) })
    }
}

/// Reads a file of tokens. Each line has a level, a role, and the token or `sha256:` and its SHA-256 in hex; `#` starts a
/// comment. Errors: other users may read the file; a line is not valid; a token is easy to guess, or repeated. How easy a
/// token is to guess does not show in its SHA-256.
pub fn read(file: &Path) -> Result<Vec<(Level, String, Hash)>> {
    let name = file.display();
    let mut tokens: Vec<(Level, String, Hash)> = Vec::new();
    for (number, line) in private::read(file, "the file of tokens")?.lines().enumerate() {
        let refuse = |what: &str| {
            Failure::usage(format!("line {} of the file of tokens \"{name}\" {what}", number + 1))
                .hint("monitor backlog_monitor sha256:<SHA-256 of the token in hex>")
        };
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let [level, role, secret] = words[..] else {
            if words.is_empty() {
                continue;
            }
            return Err(refuse("is not a level, a role and a token"));
        };
        let level = level.parse().map_err(|unknown: UnknownWord| refuse(&format!("is wrong: {unknown}")))?;
        let hash = match secret.strip_prefix("sha256:") {
            Some(digits) => from_hex(digits).ok_or_else(|| refuse("has a SHA-256 that is not 64 hex digits"))?,
            None if secret.len() < SHORTEST => {
                return Err(refuse(&format!("has a token shorter than {SHORTEST} characters")));
            }
            None if secret.chars().collect::<BTreeSet<_>>().len() < FEWEST => {
                return Err(refuse(&format!("has a token of fewer than {FEWEST} different characters"))
                    .hint("openssl rand -hex 24"));
            }
            None => hash(secret),
        };
        if tokens.iter().any(|(_, _, known)| *known == hash) {
            return Err(refuse("repeats the token of an earlier line"));
        }
        tokens.push((level, role.to_owned(), hash));
    }
    if tokens.is_empty() {
        return Err(Failure::usage(format!("the file of tokens \"{name}\" has no tokens")));
    }
    Ok(tokens)
}

fn from_hex(digits: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(digits, &mut hash).ok().map(|()| hash)
}
