//! The table of instructions per call, and what differs between two of them.

use std::fmt;

/// A rise or fall that is more than chance and a compiler's mood: one part in so many.
const TOLERANCE: u64 = 10;

/// Instructions per call of each piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The compiler, valgrind and the processor's kind.
    pub made_by: String,
    /// Each piece's name and figure.
    pub rows: Vec<(String, u64)>,
}

/// The line of the table that says what it was made by begins with this.
const MADE_BY: &str = "# made by ";

impl Table {
    /// Reads a table as it is written.
    ///
    /// # Errors
    /// The line that is no row.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut table = Table::default();
        for line in text.lines() {
            if let Some(made_by) = line.strip_prefix(MADE_BY) {
                made_by.clone_into(&mut table.made_by);
            } else if !line.is_empty() && !line.starts_with('#') {
                table.rows.push(row(line).ok_or_else(|| format!("no row of the table: {line}"))?);
            }
        }
        Ok(table)
    }

    /// The figure of a piece.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.rows.iter().find(|(row, _)| row == name).map(|(_, figure)| *figure)
    }
}

fn row(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace();
    let row = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    words.next().is_none().then_some(row)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions of one call in each piece of its road; docs/testing.md says more."
        )?;
        writeln!(f, "# `make bench-baseline` writes this, `make bench-check` compares to it.")?;
        writeln!(f, "{MADE_BY}{}", self.made_by)?;
        self.rows.iter().try_for_each(|(name, figure)| writeln!(f, "{name:<24}{figure:>12}"))
    }
}

/// A piece in two tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The piece.
    pub name: String,
    /// Its figure in the table that is compared to.
    pub before: Option<u64>,
    /// Its figure now.
    pub now: Option<u64>,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Little or nothing.
    Same,
    /// It costs more: a failure.
    Rose,
    /// It costs less: the table should say so, or the next rise hides in the gap.
    Fell,
    /// It is not in the table: a failure, nothing would watch it.
    New,
    /// It is only in the table: a failure, somebody dropped a piece.
    Gone,
}

impl Verdict {
    /// Whether it fails the comparison.
    #[must_use]
    pub fn fails(self) -> bool {
        matches!(self, Verdict::Rose | Verdict::New | Verdict::Gone)
    }
}

impl Difference {
    /// What it means.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.before, self.now) {
            (Some(before), Some(now)) if now > before + before / TOLERANCE => Verdict::Rose,
            (Some(before), Some(now)) if now < before - before / TOLERANCE => Verdict::Fell,
            (None, _) => Verdict::New,
            (_, None) => Verdict::Gone,
            _ => Verdict::Same,
        }
    }

    /// By how many per cent it rose.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn percent(&self) -> Option<f64> {
        let (before, now) = (self.before.filter(|before| *before > 0)?, self.now?);
        Some(100.0 * (now as f64 / before as f64 - 1.0))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |figure: Option<u64>| figure.map_or("-".to_owned(), |figure| figure.to_string());
        let change = self.percent().map_or(String::new(), |percent| format!("{percent:+.1} %"));
        let word = match self.verdict() {
            Verdict::Same => "ok",
            Verdict::Rose => "ROSE",
            Verdict::Fell => "fell",
            Verdict::New => "NOT IN THE TABLE",
            Verdict::Gone => "NO SUCH PIECE",
        };
        let (before, now) = (shown(self.before), shown(self.now));
        write!(f, "{:<24}{before:>10}{now:>10}{change:>10}  {word}", self.name)
    }
}

/// Whether no piece costs more, and both tables have the same pieces, of which there are some.
#[must_use]
pub fn passes(differences: &[Difference]) -> bool {
    !differences.is_empty() && !differences.iter().any(|difference| difference.verdict().fails())
}

/// Each piece of either table.
#[must_use]
pub fn compare(before: &Table, now: &Table) -> Vec<Difference> {
    let gone = before.rows.iter().filter(|(name, _)| now.get(name).is_none());
    let names = now.rows.iter().chain(gone).map(|(name, _)| name);
    let difference = |name: &String| Difference {
        name: name.clone(),
        before: before.get(name),
        now: now.get(name),
    };
    names.map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, u64)]) -> Table {
        let rows = rows.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect();
        Table { made_by: "rustc 1".to_owned(), rows }
    }

    fn verdicts(before: &[(&str, u64)], now: &[(&str, u64)]) -> Vec<(String, Verdict)> {
        let differences = compare(&table(before), &table(now));
        differences.into_iter().map(|d| (d.name.clone(), d.verdict())).collect()
    }

    #[test]
    fn a_table_reads_back() {
        let written = table(&[("encode", 1234), ("decode", 5)]);
        assert_eq!(Table::parse(&written.to_string()), Ok(written));
        for bad in ["encode", "encode x", "encode 1 2", "encode -1"] {
            assert!(Table::parse(bad).unwrap_err().contains(bad));
        }
    }

    #[test]
    fn more_than_a_tenth_is_a_rise_or_a_fall() {
        let of = |before, now| verdicts(&[("a", before)], &[("a", now)])[0].1;
        assert_eq!(of(1000, 1000), Verdict::Same);
        assert_eq!(of(1000, 1100), Verdict::Same);
        assert_eq!(of(1000, 1101), Verdict::Rose);
        assert_eq!(of(1000, 900), Verdict::Same);
        assert_eq!(of(1000, 899), Verdict::Fell);
        assert_eq!(of(0, 1), Verdict::Rose);
        assert!(Verdict::Rose.fails() && !Verdict::Fell.fails() && !Verdict::Same.fails());
    }

    #[test]
    fn what_is_in_one_table_only_fails() {
        let found = verdicts(&[("a", 1), ("old", 2)], &[("new", 3), ("a", 1)]);
        let expected = [("new", Verdict::New), ("a", Verdict::Same), ("old", Verdict::Gone)];
        assert_eq!(found, expected.map(|(name, verdict)| (name.to_owned(), verdict)));
        assert!(Verdict::New.fails() && Verdict::Gone.fails());
    }

    #[test]
    fn one_piece_is_enough_to_fail_all() {
        let before = table(&[("edge_put", 25_000), ("execute_put", 12_000), ("log_append", 2900)]);
        let planted = |name: &str, figure: u64| {
            let mut now = before.clone();
            now.rows.retain(|(row, _)| row != name);
            now.rows.push((name.to_owned(), figure));
            passes(&compare(&before, &now))
        };
        assert!(planted("execute_put", 12_000), "nothing has changed");
        assert!(planted("execute_put", 13_200), "a tenth more is allowed");
        assert!(!planted("execute_put", 13_201));
        assert!(planted("execute_put", 6000), "a fall is good news");
        assert!(!planted("execute_get", 1), "a piece that the table does not have");
        let without = table(&[("edge_put", 25_000), ("execute_put", 12_000)]);
        assert!(!passes(&compare(&before, &without)), "a piece that was not counted");
        assert!(!passes(&compare(&Table::default(), &Table::default())), "nothing was counted");
    }

    #[test]
    fn a_rise_is_shown_with_both_figures() {
        let rise = &compare(&table(&[("encode", 1000)]), &table(&[("encode", 1250)]))[0];
        let words: Vec<_> = rise.to_string().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["encode", "1000", "1250", "+25.0", "%", "ROSE"]);
    }
}
