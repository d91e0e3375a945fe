use std::fmt::Display;
use std::io::{IsTerminal, stdin};

use crate::failure::Result;
use crate::terminal::output::Output;

/// Asks a question on standard error, and returns what was typed, without the spaces around it; `None`, with nothing asked, without a
/// terminal.
pub fn ask(question: impl Display, output: &Output) -> Result<Option<String>> {
    if !stdin().is_terminal() {
        return Ok(None);
    }
    output.note(question);
    let mut typed = String::new();
    stdin().read_line(&mut typed)?;
    Ok(Some(typed.trim().to_owned()))
}
