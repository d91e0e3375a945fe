use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::rank::removable::Removable;
use crate::remove::watch::Watch;
use crate::target::guard::Unreadable;

/// Rows that a run should have removed and could not.
#[derive(Default)]
pub struct Left {
    /// Locked by other sessions.
    pub skipped: i64,
    /// Kept back by whatever they met.
    pub kept_back: i64,
    /// Of these, rows that have not been tried one by one: too many others were refused.
    pub given_up: i64,
    /// Of these, rows for which an expression of the target fails.
    pub unreadable: i64,
    /// What the first of them met.
    pub reason: Option<Reason>,
    /// The rows kept back that a later pass tries again, or at the end would; those by key, at no positions, where their recipes are known.
    pub again: Vec<Removable>,
    pub patience: Patience,
    /// Asked whether to go on; `None` for a run that cannot end early.
    pub watch: Option<Watch>,
    /// Rows that were not tried, since the run was to end.
    pub untried: i64,
}

impl Left {
    /// Counts rows that a run has tried in vain; a later pass tries them again.
    pub fn keep(&mut self, rows: &[Removable], reason: impl FnOnce() -> Reason) {
        if rows.is_empty() {
            return;
        }
        self.kept_back += rows.len() as i64;
        self.again.extend(rows);
        self.reason.get_or_insert_with(reason);
    }

    /// Counts rows that a trigger or a rule has changed instead, so that no pass removes them.
    pub fn keep_changed(&mut self, rows: usize) {
        if rows > 0 {
            self.kept_back += rows as i64;
            self.reason.get_or_insert_with(|| Reason::without_error(CHANGED_INSTEAD));
        }
    }

    /// Counts rows for which an expression of the target fails.
    pub fn keep_unreadable(&mut self, unreadable: Option<&Unreadable>) {
        if let Some(unreadable) = unreadable {
            self.kept_back += unreadable.rows;
            self.unreadable += unreadable.rows;
            self.reason.get_or_insert_with(|| Reason::unreadable(unreadable));
        }
    }

    /// Whether to end early.
    pub fn is_over(&mut self) -> Result<bool> {
        self.watch.as_mut().map_or(Ok(false), Watch::is_over)
    }

    /// Counts rows that have not been tried one by one; a later pass tries them if one is worth while.
    pub fn give_up(&mut self, rows: &[Removable]) {
        self.kept_back += rows.len() as i64;
        self.given_up += rows.len() as i64;
        self.again.extend(rows);
    }
}

/// A later pass is worth while as long as one there and one back have removed one row for so many that they gave up on: then the
/// number of passes grows with the logarithm of the number of rows.
pub const GIVEN_UP_PER_ROW: i64 = 100;

/// Whether to try again what a pass has kept back, of which it gave up on so many, after having removed so many rows and the pass before it
/// `before`. Behind the first pass, which has gone one way only, any row is reason enough; a pass of which nothing went, but that gave up
/// on rows, may have gone the wrong way.
pub fn is_worth_while(removed: i64, before: Option<i64>, given_up: i64) -> bool {
    match before {
        None => removed > 0 || given_up == 0,
        Some(before) => (removed > 0 || given_up > 0) && given_up <= GIVEN_UP_PER_ROW * (removed + before),
    }
}

/// How many statements may be refused in a row before a run gives up on what it has not found yet. A row that cannot go, among
/// n others, takes about 2 log n; whatever goes renews it.
#[derive(Clone, Copy)]
pub struct Patience(usize);

impl Default for Patience {
    fn default() -> Patience {
        Patience(TRIES)
    }
}

pub const TRIES: usize = 1_000;
/// Enough to come down to one row at both ends of a statement's rows.
const SOME: usize = 48;
/// Among 50,000 rows it takes 16 to come down to one.
const ELSEWHERE: usize = 32;

impl Patience {
    /// The patience of a batch in a pass of a run that has removed so many rows, and kept back so many.
    pub fn of(pass: i32, removed: i64, kept_back: i64) -> Patience {
        let nothing_goes = kept_back >= TRIES as i64 * (removed + 1);
        Patience(if nothing_goes { SOME } else { TRIES / if pass > 1 { 4 } else { 1 } })
    }

    /// The same, but at least some.
    pub fn or_some(self) -> Patience {
        Patience(self.0.max(SOME))
    }

    /// The same for so many rows: if next to nothing goes, few of a small number are tried.
    pub fn for_rows(self, rows: usize) -> Patience {
        if self.is_short() { Patience(self.0.min((rows / 2).max(2))) } else { self }
    }

    /// Whether next to nothing goes.
    pub fn is_short(&self) -> bool {
        self.0 <= SOME
    }

    /// After how many refusals in a row to look elsewhere, so that both ends are looked at.
    pub fn at_one_end(&self) -> usize {
        ELSEWHERE.min((2 * self.0 / 3).max(1))
    }

    pub fn lose(&mut self) {
        self.0 -= 1;
    }

    pub fn renew(&mut self) {
        self.0 = TRIES;
    }

    pub fn is_over(&self) -> bool {
        self.0 == 0
    }
}

/// Why a row was kept back.
pub struct Reason {
    /// `None` if there was no error: a trigger or a rule has left the row where it is.
    pub sqlstate: Option<String>,
    pub message: String,
    /// Its id as text.
    pub row: Option<String>,
}

/// Longer messages and ids are cut off: they may be anybody's text.
pub const MESSAGE: usize = 1_000;

impl Reason {
    pub fn new(met: Option<Met>, row: Option<String>) -> Reason {
        let (sqlstate, message) = match met {
            Some(Met { sqlstate, message }) => (Some(sqlstate), message.chars().take(MESSAGE).collect()),
            None => (None, "a trigger or a rule has left the row where it is".into()),
        };
        Reason { sqlstate, message, row: row.map(|row| row.chars().take(MESSAGE).collect()) }
    }

    pub fn without_error(message: &str) -> Reason {
        Reason { sqlstate: None, message: message.into(), row: None }
    }

    pub fn unreadable(Unreadable { sqlstate, message, row, .. }: &Unreadable) -> Reason {
        Reason::new(Some(Met { sqlstate: sqlstate.clone(), message: message.clone() }), row.clone())
    }

    /// That of a row that was not tried, since a row that stays references it.
    pub fn referenced(row: Option<String>) -> Reason {
        let (sqlstate, message) = (FOREIGN_KEY_VIOLATION.into(), "a row that stays references the row".into());
        Reason::new(Some(Met { sqlstate, message }), row)
    }
}

/// Why a circle stays that no run with its `max_rows` can remove.
pub const TOO_LARGE: &str = "the row is in a circle of more rows than max_rows";

/// Why a row stays that code of the run, or of another server, has changed so that it is not removable any more.
pub const CHANGED_INSTEAD: &str = "a trigger or a rule has changed the row instead";

/// The SQLSTATEs that are looked at more closely.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
const FOREIGN_KEY_VIOLATION: &str = "23503";
