use backlog_cleanup_report::{DEFAULT_TARGET, Mode};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde::Deserialize;

use crate::postgres::error::{Result, error, required};
use crate::postgres::read::read_one;
use crate::rules::selection::Selection;
use crate::target::pace::Pace;

/// The arguments of `backlog_cleanup_run`, as its procedure passes them on.
#[derive(Deserialize)]
pub struct Arguments {
    pub target: Option<String>,
    mode: Option<String>,
    recipe_id: Option<String>,
    failure_type: Option<String>,
    status: Option<String>,
    force: Option<bool>,
    include_held: Option<bool>,
    #[serde(flatten)]
    pub pace: Pace,
}

impl Arguments {
    /// From a `json`. Errors: 22004, 22023, 22P05.
    pub fn read(arguments: Option<&str>) -> Result<Arguments> {
        let look = "SELECT name FROM backlog_cleanup.target";
        let arguments: Arguments =
            serde_json::from_str(required(arguments, "arguments", look)?).map_err(|failure| {
                let message = format!("argument \"arguments\" cannot be read: {failure}");
                error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, look.into())
            })?;
        arguments.check()?;
        Ok(arguments)
    }

    fn check(&self) -> Result<()> {
        let texts = [
            ("target", &self.target),
            ("recipe_id", &self.recipe_id),
            ("failure_type", &self.failure_type),
            ("status", &self.status),
        ];
        if let Some((argument, _)) =
            texts.iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.contains('\0')))
        {
            return Err(error(
                PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
                format!("argument \"{argument}\" has a character \\u0000, which no text of PostgreSQL can have"),
                "SELECT name FROM backlog_cleanup.target".into(),
            ));
        }
        let mode = required(self.mode.as_deref(), "mode", &self.call("mode => 'regular'"))?;
        let force = required(self.force, "force", &self.call("force => false"))?;
        let include_held = required(self.include_held, "include_held", &self.call("include_held => false"))?;
        let Pace { batch_size, pause, max_rows_per_second, max_duration, max_rows, workers } = &self.pace;
        let pause = pause.as_deref().map(seconds).transpose()?;
        let duration = max_duration.as_deref().map(seconds).transpose()?;
        let is_within = |what: bool, argument: &str, valid: &str| {
            let message = format!("argument \"{argument}\" is out of range");
            let out_of_range = || error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, valid.into());
            what.then_some(()).ok_or_else(out_of_range)
        };
        let is_allowed = |argument: &str, value: Option<i64>, valid: &str| {
            is_within(value.is_none_or(|value| Pace::allows(argument, value)), argument, valid)
        };
        let valid = self.call("pause => '100 ms'") + "; -- from 0 to 1 day";
        is_within(pause.is_none_or(|seconds| (0.0..=86_400.0).contains(&seconds)), "pause", &valid)?;
        let valid = self.call("max_rows_per_second => 1000") + "; -- above 0";
        is_allowed("max_rows_per_second", *max_rows_per_second, &valid)?;
        let valid = self.call("max_duration => '1 hour'") + "; -- above 0, and finite";
        is_within(duration.is_none_or(|seconds| seconds > 0.0 && seconds.is_finite()), "max_duration", &valid)?;
        let valid = self.call("max_rows => 100000") + "; -- above 0";
        is_allowed("max_rows", *max_rows, &valid)?;
        let valid = self.call("batch_size => 10000") + "; -- from 1 to 1000000";
        is_allowed("batch_size", *batch_size, &valid)?;
        let valid = self.call("workers => 2") + "; -- from 1 to 64";
        is_allowed("workers", workers.map(i64::from), &valid)?;
        let valid = self.call("mode => 'regular'") + "; -- or 'emergency'";
        is_within(mode.parse::<Mode>().is_ok(), "mode", &valid)?;
        let no_meaning = |argument: &str| {
            let message = format!("argument \"{argument}\" means nothing to a run of mode \"{mode}\"");
            Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                message,
                self.call(&format!("mode => '{mode}'")),
            ))
        };
        match self.is_regular() {
            true if include_held => no_meaning("include_held"),
            false if force => no_meaning("force"),
            _ => Ok(()),
        }
    }

    /// The call of a run of this target with another argument, as a hint.
    pub fn call(&self, argument: &str) -> String {
        call("CALL backlog_cleanup_run", self.target.as_deref(), argument)
    }

    pub fn is_regular(&self) -> bool {
        self.mode.as_deref() == Some(Mode::Regular.as_str())
    }

    pub fn is_forced(&self) -> bool {
        self.force == Some(true)
    }

    pub fn includes_held(&self) -> bool {
        self.include_held == Some(true)
    }

    pub fn selection(&self) -> Selection<'_> {
        Selection {
            recipe_id: self.recipe_id.as_deref(),
            failure_type: self.failure_type.as_deref(),
            status: self.status.as_deref(),
        }
    }
}

/// A call with a target, unless that is the default one, and another argument, unless that is empty.
pub fn call(function: &str, target: Option<&str>, argument: &str) -> String {
    let target = target.filter(|target| *target != DEFAULT_TARGET).map(quote_literal);
    let argument = Some(argument).filter(|argument| !argument.is_empty()).map(str::to_owned);
    format!("{function}({})", target.into_iter().chain(argument).collect::<Vec<_>>().join(", "))
}

fn seconds(interval: &str) -> Result<f64> {
    let seconds = "SELECT EXTRACT(epoch FROM $1::pg_catalog.interval)::pg_catalog.float8";
    read_one::<f64>(seconds, &[interval.into()]).map(Option::unwrap_or_default)
}
