//! Bar charts as SVG. The shapes stretch with the page, so texts are outside of them. The style sheet has the colours.

use crate::words;
use maud::{Markup, html};

/// A bar: its parts from the bottom, each with its class in the style sheet.
pub struct Bar {
    /// The tool tip.
    pub title: String,
    pub parts: Vec<(String, i64)>,
    /// A line at the left edge, with its tool tip.
    pub mark: Option<String>,
}

/// `describe` is the text for screen readers; `ends` are the labels of the x axis.
pub fn bars(id: &str, describe: &str, bars: &[Bar], ends: [&str; 3]) -> Markup {
    let top = ceiling(bars.iter().map(Bar::height).max().unwrap_or_default());
    let width = bars.len() * 10;
    html! {
        div .chart {
            div .scale aria-hidden="true" { span { (words::number(top)) } span { (words::number(top / 2)) } span { "0" } }
            svg #(id) viewBox={ "0 0 " (width) " 100" } preserveAspectRatio="none" role="img" aria-label=(describe) {
                @for y in [0, 50, 100] { line .grid x1="0" x2=(width) y1=(y) y2=(y) {} }
                @for (place, bar) in bars.iter().enumerate() { (stack(place * 10, bar, top)) }
            }
            div .ends aria-hidden="true" { @for end in ends { span { (end) } } }
        }
    }
}

fn stack(x: usize, bar: &Bar, top: i64) -> Markup {
    let scale = |figure: i64| figure as f64 * 100.0 / top as f64;
    let mut below = 0;
    html! {
        g {
            title { (bar.title) }
            rect .hover x=(x) y="0" width="10" height="100" {}
            @for (class, figure) in &bar.parts {
                @if *figure > 0 {
                    @let height = scale(*figure).max(0.8);
                    @let y = 100.0 - scale(below) - height;
                    rect class=(class) x=(x + 1) y=(format!("{y:.2}")) width="8" height=(format!("{height:.2}")) {}
                }
                ({ below += figure; "" })
            }
        }
        @if let Some(mark) = &bar.mark {
            g { title { (mark) } line .mark x1=(x) x2=(x) y1="0" y2="100" {} }
        }
    }
}

impl Bar {
    fn height(&self) -> i64 {
        self.parts.iter().map(|(_, figure)| figure).sum()
    }
}

/// The next of 2, 4, 6, 10, 20, 40 ..., whose half is whole too.
fn ceiling(highest: i64) -> i64 {
    let mut power = 1;
    loop {
        for step in [2, 4, 6, 10] {
            if step * power >= highest {
                return step * power;
            }
        }
        power *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::ceiling;

    #[test]
    fn the_scale_ends_above_the_highest_bar() {
        for (highest, top) in [(0, 2), (2, 2), (3, 4), (11, 20), (5_532, 6_000), (6_001, 10_000)] {
            assert_eq!(ceiling(highest), top);
        }
    }
}
