use crate::failure::{Failure, Result};

/// A name that nothing else has. Errors: there are no random bytes.
pub fn name() -> Result<String> {
    let random = getrandom::u64().map_err(|error| Failure::error(format!("no random bytes are available: {error}")))?;
    Ok(format!("{random:016x}"))
}
