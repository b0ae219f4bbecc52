//! What a run found, as it is kept: everything that the document and the plots are made of.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::costs::Cost;
use crate::lab::Settings;
use crate::machine::Machine;
use crate::rows::{Measured, Row};
use crate::stats::{Direction, Round, Summary, short};

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// The commit and build that were measured, as far as they are known.
    pub build: String,
    /// How it was measured.
    pub how: How,
    /// On what.
    pub machine: Machine,
    /// What each program says of its version.
    pub versions: Vec<(String, String)>,
    /// The rows, in the order of the table.
    pub rows: Vec<RowResult>,
    /// What a command costs, by load.
    #[serde(default)]
    pub costs: Vec<Cost>,
    /// What the plots show.
    pub series: Series,
}

/// How much was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct How {
    /// Rounds of a row.
    pub rounds: usize,
    /// Seconds that load was counted.
    pub seconds: f64,
    /// Seconds that it went on before.
    pub warmup_seconds: f64,
    /// Whether data was scaled down.
    pub quick: bool,
}

impl From<&Settings> for How {
    fn from(settings: &Settings) -> Self {
        How {
            rounds: settings.rounds,
            seconds: settings.duration.as_secs_f64(),
            warmup_seconds: settings.warmup.as_secs_f64(),
            quick: settings.quick,
        }
    }
}

/// A row and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowResult {
    /// Its name.
    pub name: String,
    /// What was measured.
    pub what: String,
    /// Against what.
    pub peer: String,
    /// What the figures count.
    pub unit: String,
    /// On which side of the target the ratio must be.
    pub direction: Direction,
    /// The target.
    pub target: f64,
    /// The rounds; none where it failed.
    pub rounds: Vec<Round>,
    /// What a reader must know, or why it failed.
    pub note: String,
}

impl RowResult {
    /// Of a row that was measured, or failed.
    #[must_use]
    pub fn of(row: &Row, measured: Result<Measured, String>) -> Self {
        let (rounds, note) = match measured {
            Ok(measured) => (measured.rounds, measured.note),
            Err(reason) => (Vec::new(), format!("failed: {reason}")),
        };
        RowResult {
            name: row.name.to_owned(),
            what: row.what.to_owned(),
            peer: row.peer.to_owned(),
            unit: row.unit.to_owned(),
            direction: row.direction,
            target: row.target,
            rounds,
            note,
        }
    }

    /// Whether the target is met.
    #[must_use]
    pub fn met(&self) -> bool {
        self.direction.met(Summary::of(&self.rounds).ratio, self.target)
    }

    /// `ok`, `short`, or `failed` where there is no figure.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.met() {
            _ if self.rounds.is_empty() => "failed",
            true => "ok",
            false => "short",
        }
    }

    /// Its target, as `≥ 4`; `-` where there is none.
    #[must_use]
    pub fn target_text(&self) -> String {
        match self.direction {
            Direction::Reported => "-".to_owned(),
            direction => format!("{} {}", direction.sign(), self.target),
        }
    }

    /// Whether there is a target.
    #[must_use]
    pub fn has_target(&self) -> bool {
        self.direction != Direction::Reported
    }

    /// Rounds in which somebody else used the machine.
    #[must_use]
    pub fn noisy_rounds(&self) -> usize {
        self.rounds.iter().filter(|round| round.noise.is_noisy()).count()
    }

    /// The line that is printed when it is done: `name ours peer ratio target ok|short`.
    #[must_use]
    pub fn line(&self) -> String {
        let Summary { ours, peer, ratio } = Summary::of(&self.rounds);
        let target = self.target_text().replace(' ', "");
        let verdict = self.verdict();
        let (ours, peer, ratio) = (short(ours), short(peer), short(ratio));
        format!("{:<18} {ours:>9} {peer:>9} {ratio:>8} {target:>7} {verdict}", self.name)
    }
}

/// Points of several named lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lines(pub Vec<(String, Vec<(f64, f64)>)>);

impl Lines {
    /// Adds a point to a line, from left to right; one that is there already is measured anew.
    pub fn add(&mut self, name: &str, point: (f64, f64)) {
        let Some((_, points)) = self.0.iter_mut().find(|(known, _)| known == name) else {
            self.0.push((name.to_owned(), vec![point]));
            return;
        };
        points.retain(|(x, _)| (x - point.0).abs() > f64::EPSILON);
        points.push(point);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// Replaces a line.
    pub fn set(&mut self, name: &str, points: Vec<(f64, f64)>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), points));
    }

    /// All points.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.0.iter().flat_map(|(_, points)| points.iter().copied())
    }
}

/// What the plots show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Calls in a second by the number of clients.
    pub clients: Lines,
    /// Milliseconds by the percentile.
    pub latency: Lines,
    /// Writes in a second by the seconds since the leader was killed.
    pub failover: Lines,
    /// PUTs in a second by the number of keys.
    pub size: Lines,
    /// MiB per node by the number of keys.
    pub memory: Lines,
}

impl Results {
    /// Reads what a run kept.
    ///
    /// # Errors
    /// When the file is none of its.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Keeps them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::stats::Noise;

    pub(crate) fn row(name: &str, pairs: &[(f64, f64)]) -> RowResult {
        let noise = Noise { other_cores: 0.1, fdatasync: (900.0, 1100.0) };
        RowResult {
            name: name.to_owned(),
            what: format!("what {name} is"),
            peer: "etcd".to_owned(),
            unit: "1/s".to_owned(),
            direction: Direction::AtLeast,
            target: 4.0,
            rounds: pairs.iter().map(|&(ours, peer)| Round { ours, peer, noise }).collect(),
            note: String::new(),
        }
    }

    #[test]
    fn line_has_six_columns_in_their_order() {
        let line = row("put-grpc", &[(8000.0, 2000.0), (9000.0, 3000.0), (9000.0, 2000.0)]).line();
        let columns: Vec<_> = line.split_whitespace().collect();
        assert_eq!(columns, ["put-grpc", "9,000", "2,000", "4.00", "≥4", "ok"]);
        assert!(row("x", &[(3.0, 1.0)]).line().ends_with(" short"));
    }

    #[test]
    fn line_goes_from_left_to_right_through_each_place_once() {
        let mut lines = Lines::default();
        for point in [(5.0, 1.0), (1.0, 2.0), (5.0, 3.0)] {
            lines.add("etcd", point);
        }
        assert_eq!(lines.0, [("etcd".to_owned(), vec![(1.0, 2.0), (5.0, 3.0)])]);
    }

    #[test]
    fn row_that_failed_says_so() {
        let failed = RowResult::of(&crate::rows::ROWS[0], Err("no etcd".to_owned()));
        assert_eq!((failed.verdict(), failed.note.as_str()), ("failed", "failed: no etcd"));
        assert!(failed.line().ends_with(" failed"));
    }

    #[test]
    fn results_are_read_as_they_were_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        let mut results = Results { rows: vec![row("a", &[(1.0, 2.0)])], ..Results::default() };
        results.series.clients.add("etcd", (1.0, 400.0));
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);
        std::fs::write(&path, "{}").unwrap();
        assert!(Results::read(&path).is_err());
    }
}
