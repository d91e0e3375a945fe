use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArguments {
    /// JSON for programs, on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Colour; never without a terminal or with NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

/// Results go to standard output, errors and progress to standard error.
pub struct Output {
    pub json: bool,
    pub color: bool,
}

impl Output {
    pub fn new(arguments: OutputArguments) -> Output {
        let color = match arguments.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Output { json: arguments.json, color }
    }

    /// A result as a program reads it.
    pub fn json(&self, result: &impl Serialize) {
        println!("{}", serde_json::to_string_pretty(result).expect("reports are JSON"));
    }

    /// A table in the style of all commands, with its header.
    pub fn table<const N: usize>(&self, header: [&str; N]) -> Table {
        let mut table = Table::new();
        table
            .load_preset(presets::UTF8_BORDERS_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(header);
        if !self.color {
            table.force_no_tty();
        }
        table
    }

    pub fn failure(&self, failure: &Failure) {
        eprintln!("backlog-cleanup: {}", failure.message);
        for (name, text) in [("DETAIL", &failure.detail), ("HINT", &failure.hint)] {
            if let Some(text) = text {
                eprintln!("{name}:  {text}");
            }
        }
    }
}
