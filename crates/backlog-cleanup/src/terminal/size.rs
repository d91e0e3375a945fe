/// Columns and lines of the terminal. One that does not tell them, such as a serial line, is taken for 80 by 24.
pub fn size() -> (usize, usize) {
    let known = crossterm::terminal::size().ok().filter(|(columns, lines)| *columns > 0 && *lines > 0);
    let (columns, lines) = known.unwrap_or((80, 24));
    (columns.into(), lines.into())
}
