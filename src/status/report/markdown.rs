use backlog_cleanup_report::is_unseen;

use crate::status::report::draw::number;
use crate::status::report::page::Page;

/// Prints a page as Markdown, for a mail or a ticket.
pub fn print(page: &Page) -> String {
    let mut lines =
        vec![format!("# {}", escaped(&page.title)), String::new(), format!("**{}**", escaped(&page.verdict))];
    lines.extend(page.remark.iter().flat_map(|remark| [String::new(), escaped(remark)]));
    lines.push(String::new());
    lines.extend(page.facts.iter().map(|(name, sentence)| format!("- **{name}**: {}", escaped(sentence))));
    if !page.spells.is_empty() {
        lines.extend([String::new(), "| | came in | removed | in scope |".into(), "|:--|--:|--:|--:|".into()]);
        let count = |value: Option<i64>| value.map_or("-".into(), number);
        lines.extend(page.spells.iter().map(|row| {
            format!("| {} | {} | {} | {} |", row.name, count(row.rows_in), number(row.rows_out), count(row.in_scope))
        }));
    }
    if !page.alerts.is_empty() {
        lines.extend([String::new(), "## Alerts".into(), String::new()]);
        for alert in &page.alerts {
            lines.push(format!("- {}: {}", escaped(&alert.when), escaped(&alert.sentence)));
            if let Some(fix) = &alert.fix {
                lines.extend([String::new(), "  ```sql".into(), format!("  {fix}"), "  ```".into(), String::new()]);
            }
        }
    }
    for ranking in &page.rankings {
        lines.extend([String::new(), format!("## {}", escaped(&ranking.title)), String::new()]);
        lines.extend(["| | rows | change |".into(), "|:--|--:|--:|".to_owned()]);
        let row = |(name, rows, trend): &(String, i64, String)| {
            format!("| {} | {} | {trend} |", escaped(name), number(*rows))
        };
        lines.extend(ranking.rows.iter().map(row));
    }
    lines.join("\n")
}

/// A text whose characters mean themselves: failure types and recipes are what somebody has written.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '!' | '~' | '&' => {
                escaped.extend(['\\', character])
            }
            _ if is_unseen(character) => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}
