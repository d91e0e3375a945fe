use pgrx::pg_sys;

/// The name that somebody who wrote `written` has meant: one that differs in a letter or two, or only in case. `None` if no name
/// is near, or if two are as near as each other.
pub fn nearest<'a, T: AsRef<str>>(written: &str, names: &'a [T]) -> Option<&'a T> {
    let mut near: Vec<(i32, &'a T)> = names
        .iter()
        .map(|name| (distance(written, name.as_ref()), name))
        .filter(|(distance, _)| *distance <= FAR && *distance as usize <= written.len() / 2)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    match near[..] {
        [(first, _), (second, _), ..] if first == second => None,
        [(_, name), ..] => Some(name),
        [] => None,
    }
}

/// From `updated_at` to `created_at` it is 3.
const FAR: i32 = 2;
/// Names are shorter, and longer texts would take long.
const LONGEST: usize = 255;

fn distance(a: &str, b: &str) -> i32 {
    if a.len() > LONGEST || b.len() > LONGEST {
        return i32::MAX;
    }
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    // SAFETY: two texts in the database's encoding with their lengths.
    unsafe {
        pg_sys::varstr_levenshtein(a.as_ptr().cast(), a.len() as i32, b.as_ptr().cast(), b.len() as i32, 1, 1, 1, true)
    }
}
