use std::fmt::Write as _;
use std::path::PathBuf;

/// One table of results.
pub struct Table {
    pub title: String,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// Prints the tables of a chapter, and writes them as Markdown and JSON.
pub fn write(chapter: &str, tables: &[Table]) {
    let mut markdown = String::new();
    for table in tables {
        let header = table.columns.join(" | ");
        let rule = table.columns.iter().skip(1).map(|_| "---:").collect::<Vec<_>>().join("|");
        writeln!(markdown, "**{}**\n\n| {header} |\n|---|{rule}|", table.title).expect("a string takes it");
        for row in &table.rows {
            writeln!(markdown, "| {} |", row.join(" | ")).expect("a string takes it");
        }
        markdown.push('\n');
    }
    println!("{markdown}");
    let tables: Vec<_> = tables
        .iter()
        .map(|table| serde_json::json!({ "title": table.title, "columns": table.columns, "rows": table.rows }))
        .collect();
    std::fs::write(file(&format!("{chapter}.md")), markdown).expect("the Markdown is written");
    let json = serde_json::to_string_pretty(&tables).expect("JSON");
    std::fs::write(file(&format!("{chapter}.json")), json).expect("the JSON is written");
}

/// A file of the results.
pub fn file(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&directory).expect("the directory is made");
    directory.join(name)
}
