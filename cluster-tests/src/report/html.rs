//! Markup from text: the only way in is through an escape.
//!
//! `Html` is markup, and a `String` is text; one becomes the other in `Html::text`. What is built by
//! `format!` goes through `Html::raw`, which is the word to look for in a review.

use std::fmt::{self, Display};

use crate::history::Micros;

/// The one style of both pages.
const STYLE: &str = include_str!("style.css");

/// Markup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// Markup as it is: every text in it must be [`Html`] or a number.
    pub(super) fn raw(markup: impl Into<String>) -> Self {
        Html(markup.into())
    }

    /// Text, with what would be markup escaped. Fit for attributes too. Characters that XML forbids are
    /// shown as what stands for them.
    pub(super) fn text(text: impl Display) -> Self {
        let mut escaped = String::new();
        for char in text.to_string().chars() {
            match char {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '"' => escaped.push_str("&quot;"),
                '\'' => escaped.push_str("&#39;"),
                '\n' | '\t' => escaped.push(char),
                char if char.is_control() => escaped.push('\u{fffd}'),
                char => escaped.push(char),
            }
        }
        Html(escaped)
    }

    /// An element with a class; no class where it is empty.
    pub(super) fn tag(name: &str, class: &str, inner: impl Display) -> Self {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        Html(format!("<{name}{class}>{inner}</{name}>"))
    }

    /// Text in an element.
    pub(super) fn text_in(name: &str, class: &str, text: impl Display) -> Self {
        Html::tag(name, class, Html::text(text))
    }

    /// A link to an address that this module's callers made.
    pub(super) fn link(address: &str, text: impl Display) -> Self {
        Html(format!("<a href=\"{}\">{}</a>", Html::text(address), Html::text(text)))
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<I: IntoIterator<Item = Html>>(parts: I) -> Self {
        Html(parts.into_iter().map(|part| part.0).collect())
    }
}

/// A table. A column whose head begins with `#` holds figures, and is set to the right.
pub(super) struct Table {
    heads: Vec<(String, bool)>,
    rows: Vec<Html>,
}

impl Table {
    pub(super) fn new(heads: &[&str]) -> Self {
        let head = |head: &&str| match head.strip_prefix('#') {
            Some(head) => (head.to_owned(), true),
            None => ((*head).to_owned(), false),
        };
        Table { heads: heads.iter().map(head).collect(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each head.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Html>) {
        self.row_of("", cells);
    }

    /// Adds a row with a class.
    pub(super) fn row_of(&mut self, class: &str, cells: impl IntoIterator<Item = Html>) {
        let cells = cells.into_iter().zip(&self.heads);
        let cell = |(cell, (_, figure)): (Html, &(String, bool))| {
            Html::tag("td", if *figure { "figure" } else { "" }, cell)
        };
        let row: Html = cells.map(cell).collect();
        self.rows.push(Html::tag("tr", class, row));
    }

    /// The table, in a box that scrolls where it is too wide; a word instead where it has no row.
    pub(super) fn html(self, none: &str) -> Html {
        if self.rows.is_empty() {
            return Html::text_in("p", "quiet", none);
        }
        let head = |(head, figure): (String, bool)| {
            Html::text_in("th", if figure { "figure" } else { "" }, head)
        };
        let heads: Html = self.heads.into_iter().map(head).collect();
        let rows: Html = self.rows.into_iter().collect();
        Html(format!(
            "<div class=\"scroll\"><table><thead><tr>{heads}</tr></thead>\
             <tbody>\n{rows}\n</tbody></table></div>\n"
        ))
    }
}

/// A whole page.
pub(super) fn document(title: &str, body: &Html) -> String {
    let title = Html::text(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n\
         </main>\n</body>\n</html>\n"
    )
}

/// A part of a page under a heading.
pub(super) fn section(id: &str, heading: &str, inner: impl Display) -> Html {
    let heading = Html::text_in("h2", "", heading);
    Html(format!("<section id=\"{id}\">\n{heading}\n{inner}\n</section>\n"))
}

/// A number with its thousands apart: `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number with its noun: `1 violation`, `2 violations`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A stretch of time in the unit that fits.
pub(super) fn duration(time: Micros) -> String {
    let fraction = |unit: u64| {
        let value = time as f64 / unit as f64;
        let digits = if value < 10.0 { 2 } else { 1 };
        format!("{value:.digits$}")
    };
    let seconds = time / 1_000_000;
    match time {
        0..1_000 => format!("{time} µs"),
        1_000..1_000_000 => format!("{} ms", fraction(1_000)),
        1_000_000..60_000_000 => format!("{} s", fraction(1_000_000)),
        60_000_000..3_600_000_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A moment of a run, in seconds.
pub(super) fn moment(time: Micros) -> String {
    format!("{}.{:03} s", count(time / 1_000_000), time / 1_000 % 1_000)
}

/// Seconds since 1970 as a date and a time: `2026-11-24 06:06:02 UTC`.
pub(super) fn utc(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= days_of(year) && year < 9999 {
        days -= days_of(year);
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A text cut after some characters, with a mark that it was.
pub(super) fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let escaped = Html::text("<b a=\"x\" b='y'>&amp;\u{1b}[0m\n").to_string();
        assert_eq!(escaped, "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;\u{fffd}[0m\n");
        let link = Html::link("a\"b", "<i>").to_string();
        assert_eq!(link, "<a href=\"a&quot;b\">&lt;i&gt;</a>");
    }

    #[test]
    fn a_table_sets_figures_to_the_right() {
        let mut table = Table::new(&["kind", "#times"]);
        table.row([Html::text("a<b"), Html::text(3)]);
        let html = table.html("none").to_string();
        assert!(html.contains("<th>kind</th><th class=\"figure\">times</th>"), "{html}");
        assert!(html.contains("<tr><td>a&lt;b</td><td class=\"figure\">3</td></tr>"), "{html}");
        assert_eq!(Table::new(&["kind"]).html("none").to_string(), "<p class=\"quiet\">none</p>");
    }

    #[test]
    fn numbers_are_grouped_and_have_their_noun() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "violation"), "1 violation");
        assert_eq!(counted(2_000, "violation"), "2,000 violations");
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let words = [850, 1_250, 12_345, 4_210_000, 200_000_000, 7_500_000_000].map(duration);
        assert_eq!(words, ["850 µs", "1.25 ms", "12.3 ms", "4.21 s", "3 min 20 s", "2 h 05 min"]);
        assert_eq!(moment(1_234_567_890), "1,234.567 s");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let dates = [0, 951_782_399, 951_782_400, 1_795_500_362, 4_107_542_400].map(utc);
        assert_eq!(
            dates,
            [
                "1970-01-01 00:00:00 UTC",
                "2000-02-28 23:59:59 UTC",
                "2000-02-29 00:00:00 UTC",
                "2026-11-24 06:06:02 UTC",
                "2100-03-01 00:00:00 UTC",
            ]
        );
    }

    #[test]
    fn a_cut_is_marked_and_never_inside_a_character() {
        assert_eq!(clip("käse", 2), "kä…");
        assert_eq!(clip("käse", 4), "käse");
    }
}
