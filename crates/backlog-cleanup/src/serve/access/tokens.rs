use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use backlog_cleanup_report::{Level, UnknownWord};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Access;
use crate::failure::{Failure, Result};

/// The SHA-256 of a token; the server does not keep the token itself.
pub type Hash = [u8; 32];

/// A shorter token could be guessed.
const SHORTEST: usize = 24;

pub struct Token {
    pub hash: Hash,
    pub access: Arc<Access>,
}

pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}

/// Reads a file of tokens. Each line has a level, a role, and the token or `sha256:` and its SHA-256 in hex; `#` starts a
/// comment. Errors: other users may read the file; a line is not valid; a token is too short, or repeated.
pub fn read(file: &Path) -> Result<Vec<(Level, String, Hash)>> {
    let name = file.display();
    let failure =
        |error: std::io::Error| Failure::usage(format!("could not read the file of tokens \"{name}\": {error}"));
    let mode = std::fs::metadata(file).map_err(failure)?.permissions().mode();
    // systemd grants access to a credential by an access control list, which shows in the group's bits.
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| file.starts_with(directory));
    if mode & if is_credential { 0o007 } else { 0o077 } != 0 {
        return Err(Failure::usage(format!("other users may read the file of tokens \"{name}\""))
            .hint(format!("chmod 600 '{name}'")));
    }
    let mut tokens: Vec<(Level, String, Hash)> = Vec::new();
    for (number, line) in std::fs::read_to_string(file).map_err(failure)?.lines().enumerate() {
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
            None if secret.len() >= SHORTEST => hash(secret),
            None => return Err(refuse(&format!("has a token shorter than {SHORTEST} characters"))),
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

/// Finds a token. Compares all digests, each to its last byte, so that the time does not reveal how far they match.
pub fn find<'a>(tokens: &'a [Token], secret: &str) -> Option<&'a Token> {
    let hash = self::hash(secret);
    tokens.iter().fold(None, |found, token| if token.hash.ct_eq(&hash).into() { Some(token) } else { found })
}

fn from_hex(digits: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(digits, &mut hash).ok().map(|()| hash)
}
