//! Which file: every sort of file that a node writes, each as likely as the next.
//!
//! A node has one file with its identity and hundreds of tables. So the sort is drawn first, then one
//! of its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a file in the data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::nemesis) enum Sort {
    /// `IDENTITY`.
    Identity,
    /// A segment of the Raft log.
    Log,
    /// `log/SYNCED`: how far the log is synced.
    Synced,
    /// `state/CURRENT`.
    State,
    /// A table of RocksDB.
    Table,
    /// Its `MANIFEST-N`.
    Manifest,
    /// Its `CURRENT`.
    Current,
    /// Its `OPTIONS-N`.
    Options,
    /// Its `IDENTITY`, its own log for people, its write-ahead log that holds nothing.
    Rest,
    /// A lock: no bytes, no meaning but while a process holds it.
    Lock,
    /// A checkpoint, or a snapshot being received: emptied at start. A file kept for the log's next segment.
    Scratch,
}

impl Sort {
    /// What a path below the data directory is.
    fn of(path: &Path) -> Self {
        let mut parts = path.iter().map(|part| part.to_string_lossy());
        let top = parts.next().unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let below = parts.count();
        match (&*top, &*name) {
            (_, "LOCK") => Sort::Lock,
            ("IDENTITY", _) => Sort::Identity,
            ("log", "SYNCED") => Sort::Synced,
            ("log", name) if name.starts_with("spare-") => Sort::Scratch,
            ("log", _) => Sort::Log,
            ("snapshots" | "incoming", _) => Sort::Scratch,
            ("state", "CURRENT") if below == 1 => Sort::State,
            ("state", "CURRENT") => Sort::Current,
            ("state", name) if name.starts_with("MANIFEST-") => Sort::Manifest,
            ("state", name) if name.starts_with("OPTIONS-") => Sort::Options,
            ("state", name) if name.ends_with(".sst") => Sort::Table,
            _ => Sort::Rest,
        }
    }

    /// Whether it belongs to the database or names it.
    pub(in crate::nemesis) fn is_state(self) -> bool {
        use Sort::{Current, Manifest, Options, Rest, State, Table};
        matches!(self, State | Table | Manifest | Current | Options | Rest)
    }
}

/// A file of a node.
#[derive(Clone, Debug)]
pub(in crate::nemesis) struct Found {
    /// Where it is.
    pub(in crate::nemesis) path: PathBuf,
    /// The same below the data directory.
    pub(in crate::nemesis) name: String,
    /// What it is.
    pub(in crate::nemesis) sort: Sort,
    /// How many bytes it has; of a segment that is drawn, how many are used: it grows ahead of what is written.
    pub(in crate::nemesis) bytes: u64,
}

/// All files of a data directory, in order of name. What goes meanwhile is not among them.
pub(in crate::nemesis) fn list(data: &Path) -> Vec<Found> {
    let (mut found, mut open) = (Vec::new(), vec![data.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                open.push(path);
                continue;
            }
            let below = path.strip_prefix(data).unwrap_or(&path);
            let (name, sort) = (below.display().to_string(), Sort::of(below));
            found.push(Found { name, sort, bytes: about.len(), path });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// All bytes of a data directory.
pub(in crate::nemesis) fn bytes(data: &Path) -> u64 {
    list(data).iter().map(|file| file.bytes).sum()
}

/// The files of its log.
pub(in crate::nemesis) fn log_files(data: &Path) -> Vec<PathBuf> {
    let files = list(data).into_iter().filter(|file| file.sort == Sort::Log);
    files.map(|file| file.path).collect()
}

/// Draws a file of the sorts wanted, of at least so many bytes.
pub(super) fn draw(
    rng: &mut fastrand::Rng,
    data: &Path,
    bytes_min: u64,
    wanted: fn(Sort) -> bool,
) -> Result<Found, String> {
    let mut sorts: BTreeMap<Sort, Vec<Found>> = BTreeMap::new();
    for mut file in list(data) {
        file.bytes = used(data, &file);
        if wanted(file.sort) && file.bytes >= bytes_min {
            sorts.entry(file.sort).or_default().push(file);
        }
    }
    let files = rng.choice(sorts.into_values()).unwrap_or_default();
    rng.choice(files).ok_or_else(|| format!("no such file in {}", data.display()))
}

/// How far the log is on disk, as `log/SYNCED` says: a format byte, then the position.
pub(in crate::nemesis) fn log_end(data: &Path) -> Option<u64> {
    let note = fs::read(data.join("log/SYNCED")).ok()?;
    note.get(1..9)?.try_into().ok().map(u64::from_be_bytes)
}

/// Bytes of a file that mean something. A segment's name is the position in the log at which it begins.
fn used(data: &Path, file: &Found) -> u64 {
    let start = file.path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
    match (file.sort, start, log_end(data)) {
        (Sort::Log, Some(start), Some(end)) => file.bytes.min(end.saturating_sub(start)),
        _ => file.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_log_only_what_is_synced_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("log/segments")).unwrap();
        fs::write(dir.path().join("log/SYNCED"), [2, 0, 0, 0, 0, 0, 0, 0, 150, 9, 9, 9, 9])
            .unwrap();
        fs::write(dir.path().join("log/segments/00000000000000000000.log"), [1; 100]).unwrap();
        fs::write(dir.path().join("log/segments/00000000000000000100.log"), [1; 100]).unwrap();
        let used: Vec<_> = list(dir.path()).iter().map(|file| used(dir.path(), file)).collect();
        assert_eq!(used, [13, 100, 50]);
    }

    #[test]
    fn every_sort_is_known_by_its_path() {
        for (path, sort) in [
            ("IDENTITY", Sort::Identity),
            ("LOCK", Sort::Lock),
            ("log/SYNCED", Sort::Synced),
            ("log/segments/LOCK", Sort::Lock),
            ("log/segments/00000000000000000000.log", Sort::Log),
            ("log/segments/spare-00000000000000000000", Sort::Scratch),
            ("state/CURRENT", Sort::State),
            ("state/db-1/CURRENT", Sort::Current),
            ("state/db-1/MANIFEST-000005", Sort::Manifest),
            ("state/db-1/OPTIONS-000007", Sort::Options),
            ("state/db-1/000013.sst", Sort::Table),
            ("state/db-1/IDENTITY", Sort::Rest),
            ("state/db-1/LOG.old.17", Sort::Rest),
            ("state/db-1/000008.log", Sort::Rest),
            ("snapshots/checkpoint-2/000013.sst", Sort::Scratch),
        ] {
            assert_eq!(Sort::of(Path::new(path)), sort, "{path}");
        }
    }

    #[test]
    fn a_rare_sort_is_drawn_as_often_as_a_common_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("state/db-1")).unwrap();
        fs::write(dir.path().join("state/CURRENT"), "db-1").unwrap();
        for number in 0..50 {
            fs::write(dir.path().join(format!("state/db-1/{number}.sst")), "x").unwrap();
        }
        fs::write(dir.path().join("state/db-1/LOCK"), "").unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let draws = (0..200).map(|_| draw(&mut rng, dir.path(), 1, Sort::is_state).unwrap());
        let rare = draws.filter(|file| file.sort == Sort::State).count();
        assert!((60..140).contains(&rare), "{rare} of 200");
        assert!(draw(&mut rng, dir.path(), 5, Sort::is_state).is_err(), "none is that long");
        assert_eq!((list(dir.path()).len(), bytes(dir.path())), (52, 54));
    }
}
