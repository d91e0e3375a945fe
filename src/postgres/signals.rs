use std::ffi::{c_int, c_void};

/// What a process does with a signal, as large as any system's `struct sigaction`.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Action([u8; 256]);

unsafe extern "C" {
    /// POSIX's. Either pointer may be null.
    fn sigaction(signal: c_int, action: *const c_void, before: *mut c_void) -> c_int;
}

/// SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM and SIGCHLD, by their numbers on Linux: a backend acts on each of
/// them, or ignores it (`PostgresMain`).
const SIGNALS: [c_int; 9] = [1, 2, 3, 10, 12, 13, 14, 15, 17];

/// What the process does with the signals that cancel, end and wake it.
pub struct Signals([Action; SIGNALS.len()]);

impl Signals {
    pub fn now() -> Signals {
        Signals(SIGNALS.map(|signal| {
            let mut action = Action([0; 256]);
            // SAFETY: writes an action into a place that is large enough.
            unsafe { sigaction(signal, std::ptr::null(), (&raw mut action).cast()) };
            action
        }))
    }

    /// Gives them back what they did: languages such as PL/Perl let any code ignore them.
    pub fn give_back(&self) {
        for (signal, action) in SIGNALS.iter().zip(&self.0) {
            // SAFETY: the action is one that `sigaction` has written.
            unsafe { sigaction(*signal, (&raw const *action).cast(), std::ptr::null_mut()) };
        }
    }
}
