use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::pg_config;

/// What the library and the install script are made of.
const SOURCES: [&str; 5] = ["src", "sql", "crates/report/src", "Cargo.toml", "backlog_cleanup.control"];

/// Panics where the server has no library or one that is older than the sources: the tests would test that one.
pub fn check() {
    static WRONG: OnceLock<Option<String>> = OnceLock::new();
    if let Some(wrong) = WRONG.get_or_init(|| wrong(&pg_config())) {
        panic!("{wrong}: make install");
    }
}

fn wrong(pg_config: &str) -> Option<String> {
    let script = format!("extension/backlog_cleanup--{}.sql", env!("CARGO_PKG_VERSION"));
    let script = folder(pg_config, "--sharedir").join(script);
    if read_to_string(&script).is_ok_and(|script| script.contains("SCHEMA IF NOT EXISTS tests")) {
        return Some(format!("{} is that of `cargo pgrx test`", script.display()));
    }
    let library = folder(pg_config, "--pkglibdir").join("backlog_cleanup.so");
    let Ok(installed) = library.metadata() else { return Some(format!("{} is not installed", library.display())) };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the sources");
    let (changed, newest) = SOURCES.iter().map(|source| newest(root.join(source))).max().expect("a source");
    (changed > installed.modified().expect("a time"))
        .then(|| format!("{} is older than {}", library.display(), newest.strip_prefix(root).unwrap().display()))
}

/// A directory of the server, by the option of `pg_config`.
pub fn folder(pg_config: &str, name: &str) -> PathBuf {
    let output = Command::new(pg_config).arg(name).output().expect("pg_config starts");
    PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim_end())
}

/// The file that was changed last, with its time.
fn newest(path: PathBuf) -> (SystemTime, PathBuf) {
    if path.is_dir() {
        let files = path.read_dir().expect("a directory").map(|file| file.expect("a file").path());
        return files.filter(|file| file.is_dir() || !is_for_people(file)).map(newest).max().expect("a file");
    }
    (path.metadata().and_then(|file| file.modified()).expect("a file"), path)
}

/// What no build reads.
fn is_for_people(file: &Path) -> bool {
    file.extension().is_none_or(|extension| extension == "md")
}
