use std::io::{Write, stdout};

use console::truncate_str;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, EventStream, KeyCode, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{execute, queue};
use futures::StreamExt;
use tokio::select;

use crate::failure::Result;
use crate::signals::Signals;
use crate::terminal::size::size;

/// The terminal's alternate screen. Dropping it restores the terminal.
pub struct Screen {
    events: EventStream,
    signals: Signals,
    page: String,
}

impl Screen {
    pub fn open() -> Result<Screen> {
        let signals = Signals::listen()?;
        terminal::enable_raw_mode()?;
        let screen = Screen { events: EventStream::new(), signals, page: String::new() };
        execute!(stdout(), EnterAlternateScreen, Hide, DisableLineWrap)?;
        Ok(screen)
    }

    /// The height in lines.
    pub fn height(&self) -> usize {
        size().1
    }

    /// Shows as much of a page as fits.
    pub fn show(&mut self, page: &str) -> Result<()> {
        self.page = page.to_owned();
        self.draw()
    }

    fn draw(&self) -> Result<()> {
        let mut out = stdout();
        let (width, _) = size();
        queue!(out, BeginSynchronizedUpdate, Clear(ClearType::All))?;
        for (row, line) in self.page.lines().take(self.height()).enumerate() {
            queue!(out, MoveTo(0, row as u16), Print(truncate_str(line, width, "…")))?;
        }
        queue!(out, EndSynchronizedUpdate)?;
        Ok(out.flush()?)
    }

    /// Returns when q, Esc, Ctrl-C or a signal ends it.
    pub async fn quits(&mut self) {
        loop {
            let event = select! {
                event = self.events.next() => event,
                () = self.signals.next() => return,
            };
            match event {
                Some(Ok(Event::Key(key))) => {
                    let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if is_control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        return;
                    }
                }
                // The next page reports a terminal that cannot be written to.
                Some(Ok(Event::Resize(..))) => self.draw().unwrap_or_default(),
                Some(Ok(_)) => {}
                // The terminal is closed.
                Some(Err(_)) | None => return,
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        execute!(stdout(), EnableLineWrap, Show, LeaveAlternateScreen).ok();
        terminal::disable_raw_mode().ok();
    }
}
