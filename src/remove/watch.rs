use std::time::{Duration, Instant};

use crate::postgres::error::Result;

/// How often to ask, so that a run that is to stop does so within two seconds.
const EVERY: Duration = Duration::from_millis(250);

/// Asks between two statements whether rows are to be removed any longer.
pub struct Watch {
    is_to_end: Box<dyn Fn() -> Result<bool>>,
    asked: Instant,
    is_over: bool,
}

impl Watch {
    pub fn new(is_to_end: impl Fn() -> Result<bool> + 'static) -> Watch {
        Watch { is_to_end: Box::new(is_to_end), asked: Instant::now(), is_over: false }
    }

    /// Whether to end. Asks if it has not for a while.
    pub fn is_over(&mut self) -> Result<bool> {
        if !self.is_over && self.asked.elapsed() >= EVERY {
            self.is_over = (self.is_to_end)()?;
            self.asked = Instant::now();
        }
        Ok(self.is_over)
    }
}
