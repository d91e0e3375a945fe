use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use backlog_cleanup_report::Level;
use subtle::ConstantTimeEq;

use super::Access;
use super::secret::{Hash, hash};
use super::tokens::{self, Token};
use crate::client::connect::Server;
use crate::failure::{Failure, Result};
use crate::serve::settings::Settings;

/// Who is let in.
pub struct Keyring {
    tokens: Vec<Arc<Token>>,
    /// By level, lowest first.
    pub accesses: Vec<Arc<Access>>,
    /// What all callers have, if there is no file of tokens.
    pub everybody: Option<Arc<Token>>,
}

impl Keyring {
    /// Reads the file of tokens; what `before` has of it stays, with its sessions and connections. Without a file there is one
    /// access, that of the server's own role. Errors: the file; without one, an address that is not loopback.
    pub fn load(settings: &Settings, server: &Server, before: Option<&Keyring>) -> Result<Keyring> {
        let Some(file) = &settings.tokens else {
            if !settings.listen.ip().is_loopback() {
                let message =
                    format!("without --tokens the server listens on loopback only, not on {}", settings.listen);
                return Err(
                    Failure::usage(message).hint("backlog-cleanup serve --listen 127.0.0.1:8642 --insecure-no-auth")
                );
            }
            let options = server.options()?;
            let role = options.get_username().to_owned();
            let access = Arc::new(Access::new(Level::Admin, role, options, settings));
            let everybody = Some(Token::new(Hash::default(), Arc::clone(&access)));
            return Ok(Keyring { tokens: Vec::new(), accesses: vec![access], everybody });
        };
        let (known_tokens, known_accesses) = before.map_or((&[][..], &[][..]), |it| (&it.tokens, &it.accesses));
        let mut kept = Vec::new();
        let mut accesses: BTreeMap<(Level, String), Arc<Access>> = BTreeMap::new();
        for (level, role, hash) in tokens::read(file)? {
            let access = match accesses.entry((level, role)) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(unknown) => {
                    let role = unknown.key().1.clone();
                    let access = match known_accesses.iter().find(|it| it.level == level && it.role == role) {
                        Some(known) => Arc::clone(known),
                        None => {
                            let options = server.as_role(&role).options()?;
                            Arc::new(Access::new(level, role, options, settings))
                        }
                    };
                    Arc::clone(unknown.insert(access))
                }
            };
            let known = known_tokens.iter().find(|it| it.hash == hash && Arc::ptr_eq(&it.access, &access));
            kept.push(known.map_or_else(|| Token::new(hash, access), Arc::clone));
        }
        Ok(Keyring { tokens: kept, accesses: accesses.into_values().collect(), everybody: None })
    }

    /// Connects once as each role. Errors: those of [`Access::check`], except that the database is away: the pools reconnect.
    pub async fn check(&self) -> Result<()> {
        for access in &self.accesses {
            match access.check().await {
                Err(failure) if failure.sqlstate.as_deref() == Some("08006") => {
                    tracing::warn!(role = access.role, "the database is away: {}", failure.message);
                }
                checked => checked?,
            }
        }
        Ok(())
    }

    /// The access with the lowest level, for the server's own queries: readiness, metrics.
    pub fn lowest(&self) -> &Arc<Access> {
        &self.accesses[0]
    }

    /// The access of the lowest level that may deliver alerts.
    pub fn deliverer(&self) -> Option<&Arc<Access>> {
        self.accesses.iter().find(|access| access.level >= Level::Operator)
    }

    /// Finds a token. Compares all digests, each to its last byte, so that the time does not reveal how far they match.
    pub fn find(&self, secret: &str) -> Option<&Arc<Token>> {
        let hash = hash(secret);
        self.tokens.iter().fold(None, |found, token| if token.hash.ct_eq(&hash).into() { Some(token) } else { found })
    }

    /// The token that has begun a session that has not ended.
    pub fn of_session(&self, secret: &Hash) -> Option<&Arc<Token>> {
        self.tokens.iter().find(|token| token.sessions.has(secret))
    }

    /// Whether a token is still one of these.
    pub fn has(&self, token: &Arc<Token>) -> bool {
        self.everybody.iter().chain(&self.tokens).any(|known| Arc::ptr_eq(known, token))
    }
}
