//! A mail that the mail server does not take for all of its recipients at once goes to each by itself: one mailbox that is gone or
//! full keeps nothing from the others.

use std::time::{Duration, Instant};

use lettre::Address;
use lettre::transport::smtp::Error;
use parking_lot::Mutex;

use super::{Delivered, STEP, Undelivered};
use crate::printable::one_line;

/// No recipient is begun later, so that the last one ends before the message's time does.
const LATEST: Duration = STEP;

/// How long a message waits for who refuses it only for now, once somebody has taken it.
const GRACE: Duration = Duration::from_secs(600);

/// Who has taken the last message that not everybody took. It is in memory only: after a restart it goes to all of them again.
#[derive(Default)]
pub struct Each(Mutex<Option<Taken>>);

#[derive(Clone)]
struct Taken {
    id: String,
    since: Instant,
    by: Vec<Address>,
}

impl Each {
    /// Whether somebody has taken the message.
    pub fn has_begun(&self, id: &str) -> bool {
        self.0.lock().as_ref().is_some_and(|taken| taken.id == id)
    }

    /// Sends a message to each recipient that has not taken it. It is done with once somebody has taken it and the others do not for good.
    pub fn send(
        &self,
        id: &str,
        to: impl Iterator<Item = Address>,
        send: impl Fn(&Address) -> Result<(), Error>,
    ) -> Delivered {
        let began = Instant::now();
        let begun = self.0.lock().clone().filter(|taken| taken.id == id);
        let mut taken = begun.unwrap_or_else(|| Taken { id: id.to_owned(), since: began, by: Vec::new() });
        let (mut refused, mut is_for_now) = (Vec::new(), false);
        for recipient in to {
            if taken.by.contains(&recipient) {
                continue;
            }
            if began.elapsed() >= LATEST {
                is_for_now = true;
                refused.push((recipient, Undelivered::later("it is too slow")));
                continue;
            }
            match send(&recipient) {
                Ok(()) => taken.by.push(recipient),
                Err(error) => {
                    is_for_now |= !error.is_permanent();
                    refused.push((recipient, undelivered(&error)));
                }
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let why: Vec<String> =
            refused.iter().map(|(recipient, it)| format!("{recipient} did not take it: {}", it.why)).collect();
        let why = why.join("; ");
        if taken.by.is_empty() {
            return Err(Undelivered { is_final: refused.iter().all(|(_, it)| it.is_final), ..Undelivered::later(why) });
        }
        let is_final = !is_for_now || taken.since.elapsed() >= GRACE;
        *self.0.lock() = Some(taken);
        Err(Undelivered { is_final, ..Undelivered::later(why) })
    }
}

/// Why a mail was not delivered.
pub fn undelivered(error: &Error) -> Undelivered {
    let why = std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"));
    // The message is too large, or not wanted at all. Anything else may pass, or somebody mends it.
    let is_final = error.status().is_some_and(|code| [552, 554].contains(&u16::from(code)));
    Undelivered { is_final, ..Undelivered::later(one_line(&format!("{error}{why}"))) }
}
