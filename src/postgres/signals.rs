use std::ffi::{c_int, c_void};

/// What a process does with a signal, as large as any system's `struct sigaction`.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Action([u8; 256]);

unsafe extern "C" {
    /// POSIX's. Either pointer may be null.
    fn sigaction(signal: c_int, action: *const c_void, before: *mut c_void) -> c_int;
}

/// Those of POSIX, by their numbers; SIGKILL and SIGSTOP cannot be handled. PostgreSQL handles or ignores a dozen of them.
const SIGNALS: std::ops::RangeInclusive<c_int> = 1..=31;

/// What the process does with signals.
pub struct Signals(Vec<(c_int, Action)>);

impl Signals {
    pub fn now() -> Signals {
        let now = |signal| {
            let mut action = Action([0; 256]);
            // SAFETY: writes an action into a place that is large enough.
            let done = unsafe { sigaction(signal, std::ptr::null(), (&raw mut action).cast()) };
            (done == 0).then_some((signal, action))
        };
        Signals(SIGNALS.filter_map(now).collect())
    }

    /// Gives them back what they did: languages such as PL/Perl let any code ignore them.
    pub fn give_back(&self) {
        for (signal, action) in &self.0 {
            // SAFETY: the action is one that `sigaction` has written.
            unsafe { sigaction(*signal, (&raw const *action).cast(), std::ptr::null_mut()) };
        }
    }
}
