use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::client::history::Run;
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::words::{count, duration, number};

/// Shows the progress of a batched run on standard error: a bar in a terminal, else a line every ten seconds.
pub struct Bar {
    bar: ProgressBar,
    next_line: Instant,
}

const STEPS: f64 = 1000.0;
const EVERY: Duration = Duration::from_secs(10);

impl Bar {
    pub fn new() -> Bar {
        Bar { bar: bar(STEPS as u64), next_line: Instant::now() + EVERY }
    }

    pub fn show(&mut self, run: &Run, output: &Output) {
        let (line, done) = (line(run), run.share_done.unwrap_or_default());
        if stderr().is_terminal() {
            self.bar.set_position((done * STEPS) as u64);
            self.bar.set_message(line);
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + EVERY;
            output.note(format_args!("{:>3.0} %  {line}", done * 100.0));
        }
    }

    /// Leaves the bar of a run that removed rows on the screen, and clears every other.
    pub fn finish(&self, is_done: bool, output: &Output) {
        if is_done && self.bar.position() > 0 {
            self.bar.finish();
            output.note("");
        } else {
            self.bar.finish_and_clear();
        }
    }
}

/// A bar with what is done, that takes one line.
pub fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{percent:>3} % {bar:30} {wide_msg}").expect("a template");
    ProgressBar::new(length).with_style(style)
}

/// `12,000 rows, 4,000/s, 3.2 s left`
pub fn line(run: &Run) -> String {
    let removed = printable(&count(run.removed, &run.nouns.row_word));
    let mut line = format!("{removed}, {}/s", number(run.rows_per_second.unwrap_or_default() as i64));
    if let Some(seconds) = run.seconds_left {
        line += &format!(", {} left", duration((seconds * 1000.0) as i64));
    }
    if let Some(reason) = &run.waiting_for {
        line += &format!(", waiting: {}", printable(reason));
    }
    line
}
