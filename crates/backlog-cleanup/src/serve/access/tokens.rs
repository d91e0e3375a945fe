use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Access, Level};
use crate::failure::{Failure, Result};

/// The SHA-256 of a token: all that the server keeps of it.
pub type Hash = [u8; 32];

/// Shorter ones could be guessed.
const SHORTEST: usize = 24;

pub struct Token {
    pub hash: Hash,
    pub access: Arc<Access>,
}

pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}

/// Reads a file of tokens: per line a level, a role, and the token or `sha256:` and its SHA-256 in hex; `#` starts a
/// comment. Errors: others may read the file, a line is none, a level is unknown, a token is short or there twice.
pub fn read(file: &Path) -> Result<Vec<(Level, String, Hash)>> {
    let name = file.display();
    let failure =
        |error: std::io::Error| Failure::usage(format!("could not read the file of tokens \"{name}\": {error}"));
    let mode = std::fs::metadata(file).map_err(failure)?.permissions().mode();
    // systemd hands a credential over by an access control list, which shows as a right of the group.
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| file.starts_with(directory));
    if mode & if is_credential { 0o007 } else { 0o077 } != 0 {
        return Err(Failure::usage(format!("others may read the file of tokens \"{name}\""))
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
        let level = Level::named(level).ok_or_else(|| refuse("has none of the levels monitor, operator, admin"))?;
        let hash = match secret.strip_prefix("sha256:") {
            Some(hex) => from_hex(hex).ok_or_else(|| refuse("has a SHA-256 that is not 64 digits in hex"))?,
            None if secret.len() >= SHORTEST => hash(secret),
            None => return Err(refuse(&format!("has a token shorter than {SHORTEST} characters"))),
        };
        if tokens.iter().any(|(_, _, known)| *known == hash) {
            return Err(refuse("has a token that an earlier line has"));
        }
        tokens.push((level, role.to_owned(), hash));
    }
    if tokens.is_empty() {
        return Err(Failure::usage(format!("the file of tokens \"{name}\" has none")));
    }
    Ok(tokens)
}

/// The token of this text. Compares digests, all of them and each to its last byte, so that the time says nothing.
pub fn find<'a>(tokens: &'a [Token], secret: &str) -> Option<&'a Token> {
    let hash = self::hash(secret);
    tokens.iter().fold(None, |found, token| if token.hash.ct_eq(&hash).into() { Some(token) } else { found })
}

fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}
