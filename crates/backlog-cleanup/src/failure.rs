use std::process::ExitCode;

use backlog_cleanup_report::Level;
use serde::{Serialize, Serializer};
use sqlx::postgres::PgDatabaseError;

pub type Result<T> = std::result::Result<T, Failure>;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Error = 1,
    Usage = 2,
    /// Another run is in progress, the breaker refused the run, or the server is read-only.
    Blocked = 3,
    /// A check of doctor or of `status --check` failed.
    Unhealthy = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl Serialize for Exit {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// An error; where PostgreSQL raised it, in its words.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    #[serde(rename = "exitCode")]
    pub exit: Exit,
    /// Only of errors that the database raised, and of lost connections.
    pub sqlstate: Option<String>,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Failure {
    pub fn error(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Error, sqlstate: None, message: message.into(), detail: None, hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, ..Failure::error(message) }
    }

    /// Where a privilege is missing, hints at granting the role the level that the command needs.
    pub fn of_level(self, level: Level, role: &str) -> Failure {
        match grant(self.sqlstate.as_deref(), &self.message, level, role) {
            Some(grant) => self.hint(grant),
            None => self,
        }
    }

    /// Whether the database has answered, and refused.
    pub fn is_of_database(&self) -> bool {
        self.sqlstate.as_ref().is_some_and(|code| !code.starts_with("08"))
    }

    /// Adds a hint if there is none.
    pub fn or_hint(self, hint: impl Into<String>) -> Failure {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        match error.as_database_error().map(|error| error.downcast_ref::<PgDatabaseError>()) {
            Some(error) => Failure {
                exit: match error.code() {
                    // lock_not_available: a run in progress; read_only_sql_transaction: a standby
                    "55P03" | "25006" => Exit::Blocked,
                    // program_limit_exceeded: also of an index, a stack ...; the breaker's own hint has its argument
                    "54000" if error.hint().is_some_and(|hint| hint.contains("force => true")) => Exit::Blocked,
                    _ => Exit::Error,
                },
                sqlstate: Some(error.code().into()),
                message: error.message().into(),
                detail: error.detail().map(Into::into),
                hint: error.hint().map(Into::into).or_else(|| usual_hint(error)),
            },
            None => {
                use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
                let is_away = matches!(error, Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | PoolClosed | WorkerCrashed);
                Failure {
                    // connection_failure
                    sqlstate: is_away.then(|| "08006".into()),
                    ..Failure::error(format!("could not talk to the database: {error}"))
                }
            }
        }
    }
}

/// The statement that gives a role a level, if the lack of it is what an error is about.
pub fn grant(sqlstate: Option<&str>, message: &str, level: Level, role: &str) -> Option<String> {
    let is_level = sqlstate == Some("42501") && message.starts_with("permission denied for");
    is_level.then(|| format!("SELECT backlog_cleanup_grant('{}', '{level}')", role.replace('\'', "''")))
}

/// The hint of an error to which PostgreSQL itself gives none.
fn usual_hint(error: &PgDatabaseError) -> Option<String> {
    match error.code() {
        // query_canceled, behind a pooler
        "57014" if error.message().contains("statement timeout") => Some(
            "ALTER ROLE CURRENT_USER SET statement_timeout = 0; or connect to the server, not to its pooler".into(),
        ),
        // unique_violation: an INSERT of a target that there is, for which PostgreSQL asks no trigger
        "23505" if error.constraint() == Some("target_pkey") => Some("SELECT name FROM backlog_cleanup.target".into()),
        _ => None,
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::error(error.to_string())
    }
}
