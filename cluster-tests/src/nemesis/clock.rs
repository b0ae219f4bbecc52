//! Wall clocks that jump, and that jump all the time.
//!
//! A node that runs does not follow a jump unless a majority of the wall clocks has made it, so one node's jump shows
//! mostly where another fault restarts that node: it begins with the wrong clock, and must not lead with it. When
//! all jump, all follow, each at its own moment. A strobe is followed or not by the size of its swing.
//!
//! That a node sees its clock jump is read off the `Date` of its answers. A node keeps that for as long as
//! its clock is not behind it, so a jump back is not seen there: then the shim mapped into the
//! process, and the offset in the file that it maps, have to do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::until::until;
use super::{Arena, Evidence, Fault, Kind, Needs, Task, node, pick};
use crate::lab::Offset;
use crate::wait::holds;

/// Between two jumps of a strobe.
const STROBE: Duration = Duration::from_millis(100);
/// A strobe ends by itself after this.
const STROBE_MAX: Duration = Duration::from_secs(600);
/// How long a node's answers may take to show the new time.
const SEEN: Duration = Duration::from_secs(3);
/// A date has whole seconds and is kept for one: what is not further away than this is not seen.
const DATE_SECONDS: i64 = 3;
/// A strobe goes so many milliseconds in either direction.
const SWING_MS: std::ops::RangeInclusive<i64> = 100..=900;

/// Clocks.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "clock-jump",
        about: "the wall clock of one node or of all jumps, by a second to an hour",
        needs: Needs::Clock,
        alone: false,
        draw: |arena| {
            let nodes = draw(arena)?;
            // Each size as likely as ten times that.
            let seconds = 3600_f64.powf(arena.rng.f64()).round().max(1.0);
            let seconds = if arena.rng.bool() { seconds } else { -seconds };
            Some(Box::new(Jump {
                nodes,
                by: Duration::from_secs_f64(seconds.abs()),
                forward: seconds > 0.0,
            }))
        },
    },
    Kind {
        name: "clock-strobe",
        about: "a node's wall clock jumps forth and back ten times a second",
        needs: Needs::Clock,
        alone: false,
        draw: |arena| {
            let node = pick::one(arena)?;
            Some(Box::new(Strobe { node, swing_ms: arena.rng.i64(SWING_MS), running: None }))
        },
    },
];

/// One node, or all.
fn draw(arena: &mut Arena) -> Option<Vec<u64>> {
    let one = pick::one(arena)?;
    Some(if arena.rng.u8(0..4) == 0 { arena.cluster.ids() } else { vec![one] })
}

struct Jump {
    nodes: Vec<u64>,
    by: Duration,
    forward: bool,
}

impl Jump {
    fn seconds(&self) -> i64 {
        let seconds = i64::try_from(self.by.as_secs()).unwrap_or(i64::MAX);
        if self.forward { seconds } else { -seconds }
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clock of {:?} by {:+} s", self.nodes, self.seconds())
    }
}

impl Fault for Jump {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            for id in &self.nodes {
                arena.lab.clock()?.shift(*id, self.by, self.forward)?;
            }
            let mut seen = Vec::new();
            for id in &self.nodes {
                if node::runs(arena, *id) {
                    seen.push(format!("node {id}: {}", confirm(arena, *id, self.seconds()).await?));
                }
            }
            holds(!seen.is_empty(), || "none of these nodes runs".to_owned())?;
            Ok(seen.join("; "))
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            for id in &self.nodes {
                arena.lab.clock()?.shift(*id, Duration::ZERO, true)?;
            }
            Ok(())
        })
    }
}

struct Strobe {
    node: u64,
    swing_ms: i64,
    running: Option<Flipper>,
}

impl fmt::Display for Strobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, ms) = (self.node, self.swing_ms);
        write!(f, "clock of node {node} by ±{ms} ms every {} ms", STROBE.as_millis())
    }
}

impl Fault for Strobe {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let offset = arena.lab.clock()?.offset(self.node)?;
            let watched = arena.lab.clock()?.offset(self.node)?;
            self.running = Some(Flipper::start(offset, self.swing_ms * 1_000_000)?);
            let mapped = mapped(arena, self.node)?;
            let mut values = std::collections::BTreeSet::new();
            until!(SEEN, {
                values.insert(watched.get()?);
                let both =
                    [-1, 1].iter().all(|sign| values.contains(&(sign * self.swing_ms * 1_000_000)));
                holds(both, || format!("offsets {values:?}"))
            })?;
            Ok(format!("{mapped}; both offsets were there"))
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            self.running = None;
            arena.lab.clock()?.shift(self.node, Duration::ZERO, true)
        })
    }
}

/// A thread that moves a clock forth and back until it is dropped.
struct Flipper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flipper {
    fn start(offset: Offset, nanos: i64) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let flip = move || {
            let (began, mut nanos) = (Instant::now(), nanos);
            while !told.load(Ordering::Relaxed) && began.elapsed() < STROBE_MAX {
                // The file was there a moment ago; that the clock moved is checked elsewhere.
                let _ = offset.set(nanos);
                nanos = -nanos;
                std::thread::sleep(STROBE);
            }
        };
        let thread = std::thread::Builder::new().name("strobe".to_owned()).spawn(flip);
        Ok(Flipper { stop, thread: Some(thread.map_err(|e| e.to_string())?) })
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What shows that a node sees its clock so many seconds away from the machine's.
async fn confirm(arena: &mut Arena, id: u64, seconds: i64) -> Result<String, String> {
    let mapped = mapped(arena, id)?;
    if seconds <= DATE_SECONDS {
        return Ok(mapped);
    }
    let dated = until!(SEEN, {
        let call = arena.cluster.http.get(arena.cluster.at(id, "/livez"));
        let reply = call.timeout(Duration::from_secs(1)).send().await;
        let reply = reply.map_err(|failure| failure.reason)?;
        let date = reply.header("date").and_then(parse_date).ok_or("no date")?;
        let away = date - now();
        holds((away - seconds).abs() <= 2, || format!("its date is {away:+} s away"))?;
        Ok::<_, String>(format!("its date is {away:+} s away"))
    });
    // A node that nobody reaches has its clock all the same.
    Ok(dated.unwrap_or_else(|last| format!("{mapped} ({last})")))
}

/// Whether the shim and the node's offset are mapped into its process, and what the offset is.
fn mapped(arena: &mut Arena, id: u64) -> Result<String, String> {
    let path = format!("/proc/{}/maps", node::pid(arena, id)?);
    let maps = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let clock = arena.lab.clock()?;
    for file in [clock.library(), &clock.file(id)] {
        let name = file.display().to_string();
        holds(maps.contains(&name), || format!("node {id} has not mapped {name}"))?;
    }
    let seconds = clock.offset(id)?.get()? as f64 / 1e9;
    Ok(format!("its process maps an offset of {seconds:+.1} s"))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds since 1970 of an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_date(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words.as_slice() else { return None };
    let number = |word: &str| word.parse::<i64>().ok();
    let month = i64::try_from(MONTHS.iter().position(|name| name == month)?).ok()?;
    // Years that begin with March have their leap day at the end.
    let shifted = (month + 10) % 12;
    let year = number(year)? - i64::from(month < 2);
    let days = 365 * year + year / 4 - year / 100 + year / 400;
    let days = days + (153 * shifted + 2) / 5 + number(day)? - 1 - 719_468;
    Some(((days * 24 + number(hour)?) * 60 + number(minute)?) * 60 + number(second)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(parse_date("Fri, 01 Mar 2024 00:00:00 GMT"), Some(1_709_251_200));
        assert_eq!(parse_date("yesterday"), None);
    }
}
