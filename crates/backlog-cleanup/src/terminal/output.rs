use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};

use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};
use console::{measure_text_width, truncate_str};
use serde::Serialize;
use textwrap::WordSeparator::AsciiSpace;
use textwrap::WordSplitter::NoHyphenation;
use textwrap::{Options, fill};

use crate::failure::{Failure, Result};
use crate::printable::{json, printable};
use crate::terminal::log::Log;
use crate::terminal::size::size;
use crate::words::number;

/// A terminal of fewer columns is narrow.
const NARROW: u16 = 72;

/// Columns of a cell on a page.
const LONGEST: usize = 32;

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArguments {
    /// Print JSON: results on standard output, errors on standard error
    #[arg(long, global = true)]
    json: bool,
    /// Use colour; by default only in a terminal, and not with NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: When,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

/// Writes results to standard output, and errors and progress to standard error. Escapes what comes from the database, so
/// that it cannot control the terminal.
pub struct Output {
    pub json: bool,
    pub color: bool,
    /// Collects the lines instead of printing them.
    page: Option<RefCell<String>>,
}

impl Output {
    pub fn new(arguments: OutputArguments) -> Output {
        let color = match arguments.color {
            When::Always => true,
            When::Never => false,
            When::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Output { json: arguments.json, color, page: None }
    }

    /// For errors in the arguments themselves.
    pub fn for_programs() -> Output {
        Output { json: true, color: false, page: None }
    }

    /// Sends warnings of the server and of the connection to standard error.
    pub fn warnings(&self) {
        let is_json = self.json;
        let warnings = tracing_subscriber::fmt()
            .with_writer(move || Log { is_json })
            .with_max_level(tracing::Level::WARN)
            .with_target(false)
            .with_ansi(false);
        if self.json { warnings.json().flatten_event(true).init() } else { warnings.without_time().init() }
    }

    /// An output for people that collects its lines.
    pub fn page(&self) -> Output {
        Output { json: false, color: self.color, page: Some(RefCell::default()) }
    }

    /// The collected lines.
    pub fn into_text(self) -> String {
        self.page.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Prints a result as JSON.
    pub fn json(&self, result: &impl Serialize) -> Result<()> {
        self.whole(json(&serde_json::to_string_pretty(result).expect("reports are JSON")))
    }

    /// Prints lines of the result for people. In a terminal none is wider than that.
    pub fn line(&self, line: impl Display) -> Result<()> {
        self.whole(wrapped(&line.to_string(), width(std::io::stdout().is_terminal() && self.page.is_none())))
    }

    /// Prints lines of the result as they are: for programs, or to be copied. A closed pipe, as in `| head`, is no error; a full
    /// disk is.
    pub fn whole(&self, line: impl Display) -> Result<()> {
        if let Some(page) = &self.page {
            *page.borrow_mut() += &format!("{line}\n");
            return Ok(());
        }
        match writeln!(std::io::stdout(), "{line}") {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Prints a line on standard error, with one write, so that an answer cannot appear before the end of its question.
    pub fn note(&self, line: impl Display) {
        self.whole_note(wrapped(&line.to_string(), width(std::io::stderr().is_terminal())));
    }

    fn whole_note(&self, line: impl Display) {
        // There is nowhere to report that standard error is closed.
        std::io::stderr().write_all(format!("{line}\n").as_bytes()).ok();
    }

    /// A table with its header, no wider than the terminal.
    pub fn table<const N: usize>(&self, header: [&str; N]) -> Table {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(header.map(|title| self.cell(title).add_attribute(comfy_table::Attribute::Bold)));
        match self.color {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if let Some(width) = width(std::io::stdout().is_terminal()) {
            table.set_width(width as u16);
        }
        table
    }

    /// Keeps the words of some columns whole; in a narrow terminal others give way to them.
    pub fn unbroken<const N: usize, const M: usize>(&self, table: &mut Table, whole: [&str; N], give_way: [&str; M]) {
        let is_narrow = table.width().is_some_and(|width| width < NARROW);
        let titles: Vec<String> =
            table.header().into_iter().flat_map(|row| row.cell_iter().map(Cell::content)).collect();
        for (column, title) in table.column_iter_mut().zip(&titles) {
            if whole.contains(&title.as_str()) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            } else if is_narrow && give_way.contains(&title.as_str()) {
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
    }

    /// A cell with a name. On a page and in a terminal a long one is cut, so that it leaves others their room.
    pub fn name(&self, name: impl AsRef<str>) -> Cell {
        match width(std::io::stdout().is_terminal()) {
            Some(width) => Cell::new(truncate_str(&printable(name.as_ref()), LONGEST.min(width / 3), "…")),
            None => self.cell(name),
        }
    }

    /// A cell of a table; on a page it takes one line.
    pub fn cell(&self, text: impl AsRef<str>) -> Cell {
        let text = printable(text.as_ref());
        match self.page {
            Some(_) => Cell::new(truncate_str(&text, LONGEST, "…")),
            None => Cell::new(text),
        }
    }

    /// A cell with a number: 1,234, right-aligned.
    pub fn count(&self, count: i64) -> Cell {
        Cell::new(number(count)).set_alignment(CellAlignment::Right)
    }

    /// A cell with a state, in green, yellow or red if there is colour.
    pub fn state(&self, state: &str) -> Cell {
        let color = match state {
            "ok" | "completed" => Color::DarkGreen,
            "warn" | "running" | "stopped" => Color::DarkYellow,
            _ => Color::DarkRed,
        };
        self.cell(state).fg(color)
    }

    pub fn failure(&self, failure: &Failure) {
        if self.json {
            return self.whole_note(json(&serde_json::to_string_pretty(failure).expect("a failure is JSON")));
        }
        self.note(format_args!("backlog-cleanup: {}", printable(&failure.message)));
        if let Some(detail) = &failure.detail {
            self.note(format_args!("DETAIL:  {}", printable(detail)));
        }
        // It can be typed as it stands.
        if let Some(hint) = &failure.hint {
            self.whole_note(format_args!("HINT:  {}", printable(hint)));
        }
    }
}

/// The columns of the terminal, where there is one.
fn width(is_terminal: bool) -> Option<usize> {
    is_terminal.then(|| size().0)
}

/// Breaks lines between words, and words that are wider than a line.
fn wrapped(text: &str, width: Option<usize>) -> Cow<'_, str> {
    match width {
        Some(width) if text.lines().any(|line| measure_text_width(line) > width) => {
            let options = Options::new(width).word_separator(AsciiSpace).word_splitter(NoHyphenation);
            text.split('\n').map(|line| fill(line, &options)).collect::<Vec<_>>().join("\n").into()
        }
        _ => text.into(),
    }
}
