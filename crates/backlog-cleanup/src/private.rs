use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::failure::{Failure, Result};

/// Reads a file with secrets. Errors: it cannot be read; other users may read it.
pub fn read(file: &Path, what: &str) -> Result<String> {
    let name = file.display();
    let failure = |error: std::io::Error| Failure::usage(format!("could not read {what} \"{name}\": {error}"));
    let mut opened = std::fs::File::open(file).map_err(failure)?;
    let mode = opened.metadata().map_err(failure)?.permissions().mode();
    // systemd grants access to a credential by an access control list, which shows in the group's bits.
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| file.starts_with(directory));
    if mode & if is_credential { 0o007 } else { 0o077 } != 0 {
        return Err(
            Failure::usage(format!("other users may read {what} \"{name}\"")).hint(format!("chmod 600 '{name}'"))
        );
    }
    let mut text = String::new();
    opened.read_to_string(&mut text).map_err(failure)?;
    Ok(text)
}
