use std::io::{Write, stderr};

use crate::printable::{json, one_line};

/// Writes the events of the log to standard error: each is one line, whatever text of the database it has. An error is
/// ignored, because a log that nobody reads must end neither a request nor the shutdown.
pub struct Log {
    pub is_json: bool,
}

impl Write for Log {
    /// Gets one event.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.trim_end_matches('\n');
        let line = if self.is_json { json(text) } else { one_line(text) };
        stderr().write_all((line + "\n").as_bytes()).ok();
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
