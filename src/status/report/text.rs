use crate::postgres::columns::columns;
use crate::status::report::draw::{bar, number};
use crate::status::report::page::{Page, Ranking, Row, Told, visible};

const WIDTH: usize = 80;
/// Where the sentences of facts begin.
const INDENT: usize = 8;

/// Prints a page for psql, in lines of at most 80 columns.
pub fn print(page: &Page) -> String {
    let mut lines = wrapped(&page.title, 0);
    lines.push(String::new());
    lines.extend(wrapped(&page.verdict, 0));
    lines.extend(page.remark.iter().flat_map(|remark| wrapped(remark, 0)));
    lines.push(String::new());
    for (name, sentence) in &page.facts {
        lines.extend(labelled(name, sentence));
    }
    lines.extend(spells(&page.spells));
    lines.extend(alerts(&page.alerts));
    lines.extend(page.rankings.iter().flat_map(ranking));
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// A label, and a sentence that is wrapped beside it.
fn labelled(label: &str, sentence: &str) -> Vec<String> {
    let mut lines = wrapped(sentence, INDENT);
    lines[0].replace_range(..INDENT, &format!("{label:INDENT$}"));
    lines
}

/// Breaks a text between words, and a word that is longer than a line; each line is indented.
fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let width = WIDTH - indent;
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in visible(text).split_whitespace() {
        if !line.is_empty() && columns(&line) + 1 + columns(word) > width {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        for letter in word.chars() {
            if columns(&line) + columns(letter.encode_utf8(&mut [0; 4])) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(letter);
        }
    }
    lines.push(line);
    lines.into_iter().map(|line| format!("{:indent$}{line}", "")).collect()
}

fn spells(rows: &[Row]) -> Vec<String> {
    const BAR: usize = 24;
    let most = rows.iter().filter_map(|row| row.rows_in).max().unwrap_or_default();
    let count = |value: Option<i64>| value.map_or("-".into(), number);
    let mut lines =
        vec![String::new(), format!("{:<12}{:>12}  {:BAR$} {:>13} {:>13}", "", "came in", "", "removed", "in scope")];
    lines.extend(rows.iter().map(|row| {
        let bar = bar(row.rows_in.unwrap_or_default(), most, BAR);
        let (rows_in, in_scope) = (count(row.rows_in), count(row.in_scope));
        format!("{:<12}{rows_in:>12}  {bar:BAR$} {:>13} {in_scope:>13}", row.name, number(row.rows_out))
    }));
    if rows.is_empty() { Vec::new() } else { lines }
}

fn alerts(alerts: &[Told]) -> Vec<String> {
    let mut lines = vec![String::new(), "Alerts".into()];
    for alert in alerts {
        lines.extend(wrapped(&alert.when, 2));
        lines.extend(wrapped(&alert.sentence, 4));
        // Not wrapped: it is to be typed as it stands.
        lines.extend(alert.fix.iter().map(|fix| format!("    type: {fix}")));
    }
    if alerts.is_empty() { Vec::new() } else { lines }
}

fn ranking(ranking: &Ranking) -> Vec<String> {
    const NAME: usize = 38;
    const BAR: usize = 14;
    let most = ranking.rows.iter().map(|(_, rows, _)| *rows).max().unwrap_or_default();
    let line = |(name, rows, trend): &(String, i64, String)| {
        let name = shortened(visible(name), NAME);
        let space = " ".repeat(NAME - columns(&name));
        format!("  {name}{space}{:>12}  {:BAR$}{trend:>10}", number(*rows), bar(*rows, most, BAR))
    };
    let mut lines = vec![String::new()];
    lines.extend(wrapped(&format!("{}, and the change", ranking.title), 0));
    lines.extend(ranking.rows.iter().map(line));
    lines
}

/// A text of at most so many columns.
fn shortened(mut text: String, most: usize) -> String {
    if columns(&text) > most {
        while columns(&text) >= most {
            text.pop();
        }
        text.push('…');
    }
    text
}
