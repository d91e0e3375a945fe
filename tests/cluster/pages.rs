//! Pages of the documentation that show what programs print. With `REGENERATE=1` they are written anew; otherwise what they
//! show must be what is printed now, but for times, speeds and numbers.

use std::env::var_os;
use std::fs::{read_to_string, write};
use std::path::{Path, PathBuf};

/// A page, by its path from the root of the sources.
pub struct Page {
    path: PathBuf,
    pub text: String,
}

impl Page {
    pub fn open(path: &str) -> Page {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        Page { text: read_to_string(&path).expect("a page"), path }
    }

    /// Runs every example in its order: a block `console` that begins with a command. `print` gets what is before it, and the
    /// command.
    pub fn examples(self, mut print: impl FnMut(&str, &str) -> String) {
        let (mut new, mut rest, mut examples) = (String::new(), self.text.as_str(), 0);
        while let Some((before, example)) = rest.split_once("```console\n$ ") {
            let (example, after) = example.split_once("```").expect("an end");
            // A command ends with the first line that no backslash continues.
            let end = example.match_indices('\n').map(|(end, _)| end).find(|end| !example[..*end].ends_with('\\'));
            let (command, shown) = example.split_at(end.expect("a line"));
            let printed = print(before, command);
            expect(command, shown, &printed);
            let end = if printed.is_empty() { "" } else { "\n" };
            new += &format!("{before}```console\n$ {command}\n{printed}{end}```");
            (rest, examples) = (after, examples + 1);
        }
        assert!(examples > 0, "{} has lost its examples", self.path.display());
        let new = new + rest;
        self.save(&new);
    }

    /// Runs every block `sql` in its order, and expects what it prints in the block `text` behind it, if there is one.
    pub fn queries(self, mut print: impl FnMut(&str) -> String) {
        let (mut new, mut rest, mut shown_by_text) = (String::new(), self.text.as_str(), 0);
        while let Some((before, block)) = rest.split_once("```sql\n") {
            let (query, after) = block.split_once("```").expect("an end");
            let printed = print(query);
            new += &format!("{before}```sql\n{query}```");
            rest = after;
            if let Some(block) = after.strip_prefix("\n\n```text\n") {
                let (shown, after) = block.split_once("```").expect("an end");
                expect(query, shown, &printed);
                new += &format!("\n\n```text\n{}\n```", printed.trim_end());
                (rest, shown_by_text) = (after, shown_by_text + 1);
            }
        }
        assert!(shown_by_text > 0, "{} has lost its examples", self.path.display());
        let new = new + rest;
        self.save(&new);
    }

    /// Expects something printed between two texts of the page.
    pub fn passage(self, from: &str, to: &str, printed: &str) {
        let (before, rest) = self.text.split_once(from).expect("a beginning");
        let (shown, after) = rest.split_once(to).expect("an end");
        expect(from, shown, printed);
        self.save(&format!("{before}{from}{printed}{to}{after}"));
    }

    fn save(&self, new: &str) {
        if is_regenerated() {
            write(&self.path, new).expect("the page");
        }
    }
}

fn is_regenerated() -> bool {
    var_os("REGENERATE").is_some()
}

fn expect(command: &str, shown: &str, printed: &str) {
    if !is_regenerated() {
        assert_eq!(without_figures(shown), without_figures(printed), "make docs: {command}\n{printed}");
    }
}

/// Leaves out what differs from run to run: numbers, their units, a recipe's name, and lines with bars, which may be too quick, or at this hour have
/// nothing to show.
fn without_figures(text: &str) -> String {
    let has_bar = |line: &&str| {
        line.contains(['█', '▉', '▊', '▋', '▌', '▍', '▎', '▏', '░']) || line.split_whitespace().nth(2) == Some("-")
    };
    let lines = text.lines().filter(|line| !has_bar(line));
    let text = lines.collect::<Vec<_>>().join("\n").replace("Cat Olympic Diving", "Recipe 16").replace("days", "day");
    let words = text.split_whitespace().map(|word| match word {
        "ms" | "s" => "#".to_owned(),
        json if json.contains('"') => without_numbers(json),
        word if word.contains(|char: char| char.is_ascii_digit()) => "#".to_owned(),
        // The rule of a table is as long as its longest cell.
        word if word.trim_matches(['-', '+']).is_empty() => "-".to_owned(),
        word => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ").replace("# # ", "# ")
}

/// Puts `#` for each number or time of a word.
fn without_numbers(word: &str) -> String {
    let mut short = String::new();
    for char in word.chars() {
        match char {
            '0'..='9' if short.ends_with('#') => (),
            '0'..='9' => short.push('#'),
            '.' | ':' | '-' | 'T' | 'Z' if short.ends_with('#') => (),
            _ => short.push(char),
        }
    }
    short
}
