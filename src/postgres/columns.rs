use pgrx::prelude::*;

/// The columns that a text takes in a terminal, as psql counts them: an ideograph takes two, an accent of its own none.
pub fn columns(text: &str) -> usize {
    text.chars()
        .map(|letter| {
            let mut bytes = [0; 5];
            letter.encode_utf8(&mut bytes);
            // SAFETY: a whole character, with a 0 behind it.
            let columns = unsafe { pg_sys::pg_encoding_dsplen(pg_sys::pg_enc::PG_UTF8 as i32, bytes.as_ptr().cast()) };
            columns.max(0) as usize
        })
        .sum()
}
