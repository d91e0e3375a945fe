use std::cell::Cell;

use pgrx::pg_sys;
use serde::Deserialize;

use crate::postgres::settings::{accepts, is, set_local_for_all};

/// What this process and its parallel workers have written to the WAL.
#[derive(Clone, Copy, Default)]
pub struct Wal {
    pub bytes: i64,
    pub full_page_images: i64,
}

impl Wal {
    /// Since the process started.
    pub fn written() -> Wal {
        // SAFETY: counted by the one thread of a backend.
        let usage = unsafe { pg_sys::pgWalUsage };
        Wal { bytes: usage.wal_bytes as i64, full_page_images: usage.wal_fpi }
    }

    pub fn since(before: Wal) -> Wal {
        let now = Wal::written();
        Wal { bytes: now.bytes - before.bytes, full_page_images: now.full_page_images - before.full_page_images }
    }
}

thread_local! {
    /// What has been counted as a batched run's.
    static COUNTED: Cell<Wal> = const { Cell::new(Wal { bytes: 0, full_page_images: 0 }) };
}

/// Leaves out what this process has written before it takes part in a batched run.
pub fn start_counting() {
    COUNTED.set(Wal::written());
}

/// What it has written since it was asked last.
pub fn uncounted() -> Wal {
    let wal = Wal::since(COUNTED.get());
    start_counting();
    wal
}

const SETTING: &str = "wal_compression";

/// How a run compresses the full-page images that it writes.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalCompression {
    /// With lz4, where the server has it and does not compress them anyway.
    #[default]
    Auto,
    Off,
    Lz4,
    Zstd,
}

impl WalCompression {
    /// Sets it until the innermost `with_settings` ends, whoever the role is: PostgreSQL leaves it to superusers.
    pub fn set_local(self) {
        match self {
            WalCompression::Auto if is(SETTING, "off") && WalCompression::Lz4.is_built_in() => {
                WalCompression::Lz4.set_local();
            }
            WalCompression::Auto => {}
            _ => set_local_for_all(SETTING, self.value()),
        }
    }

    /// Whether the server was built with it.
    pub fn is_built_in(self) -> bool {
        self == WalCompression::Auto || accepts(SETTING, self.value())
    }

    /// Its name in PostgreSQL.
    pub fn value(self) -> &'static str {
        match self {
            WalCompression::Auto => "auto",
            WalCompression::Off => "off",
            WalCompression::Lz4 => "lz4",
            WalCompression::Zstd => "zstd",
        }
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use super::*;

    #[pg_test]
    fn what_the_server_was_built_with_can_be_asked_without_being_set() {
        assert!(accepts(SETTING, "pglz") && !accepts(SETTING, "brotli") && is(SETTING, "off"));
    }
}
