use std::path::PathBuf;

use serde::Deserialize;

use crate::failure::Failure;
use crate::private;

/// A value that nobody is shown: as it is written, or `{ file = "/path" }`, or `{ env = "NAME" }`.
#[derive(Deserialize)]
#[serde(try_from = "Written")]
pub struct Secret(String);

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a text, { file = \"/path\" } or { env = \"NAME\" }")]
enum Written {
    Itself(String),
    Elsewhere(Place),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    File(PathBuf),
    Env(String),
}

impl Secret {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it has as the value of a header Authorization: all of it, and what comes after the scheme.
    pub fn credentials(&self) -> impl Iterator<Item = String> {
        let token = self.0.split_once(' ').map(|(_, token)| token.trim().to_owned());
        [self.0.clone()].into_iter().chain(token).filter(|secret| !secret.is_empty())
    }
}

impl TryFrom<Written> for Secret {
    type Error = String;

    fn try_from(written: Written) -> Result<Secret, String> {
        let secret = match written {
            Written::Itself(secret) => secret,
            Written::Elsewhere(Place::File(file)) => {
                private::read(&file, "the secret").map_err(|Failure { message, .. }| message)?
            }
            Written::Elsewhere(Place::Env(name)) => {
                std::env::var(&name).map_err(|_| format!("environment variable \"{name}\" is not set"))?
            }
        };
        match secret.trim() {
            "" => Err("a secret is empty".into()),
            secret => Ok(Secret(secret.to_owned())),
        }
    }
}
