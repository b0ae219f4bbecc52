//! The machine: what it is, what it is busy with, how fast its disk syncs.
//!
//! All from `/proc`; where a file is missing a figure is 0 or a text says `unknown`: a benchmark's notes are no
//! reason for it to fail.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Ticks of `/proc` in a second: `USER_HZ`, 100 on every Linux of today.
const TICKS: f64 = 100.0;
/// Bytes that a probe of the disk appends before each sync: a page.
const PROBE_BYTES: usize = 4096;

/// Seconds that all processors spent, since the machine started.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// In processes and the kernel, without interrupts.
    pub busy: f64,
}

impl CpuTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        CpuTime::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    // user nice system idle iowait irq softirq steal
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let ticks = line.split_whitespace().skip(1).filter_map(|field| field.parse::<f64>().ok());
        CpuTime { busy: ticks.take(3).sum::<f64>() / TICKS }
    }
}

/// Seconds of CPU that this process used, and all children that it has or had.
#[must_use]
pub fn family_cpu() -> f64 {
    // user, system, and both of the children that were waited for
    let own = cpu_fields(std::process::id(), 4);
    own + children().into_iter().map(|pid| cpu_fields(pid, 2)).sum::<f64>()
}

/// Seconds of CPU that a process used.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    cpu_fields(pid, 2)
}

fn cpu_fields(pid: u32, count: usize) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let times = fields_after_name(&stat).into_iter().skip(11).take(count);
    times.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// The fields of a `stat` behind the name, which may hold blanks and brackets: state, parent, …
fn fields_after_name(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect())
}

/// All children of this process.
#[must_use]
pub fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        fields_after_name(&stat).get(1) == Some(&own.as_str())
    })
    .collect()
}

/// Bytes of memory that a process holds.
#[must_use]
pub fn resident_bytes(pid: u32) -> f64 {
    value_of(&format!("/proc/{pid}/status"), "VmRSS:") * 1024.0
}

/// Bytes that a process had written to disk.
#[must_use]
pub fn written_bytes(pid: u32) -> f64 {
    value_of(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn value_of(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0.0)
}

/// How often a page can be appended to a file and synced, in a second.
#[must_use]
pub fn fdatasync_rate(dir: &Path, duration: Duration) -> f64 {
    let path = dir.join("probe");
    let syncs = syncs_within(&path, duration).unwrap_or(0);
    let _ = fs::remove_file(path);
    f64::from(syncs) / duration.as_secs_f64()
}

fn syncs_within(path: &Path, duration: Duration) -> std::io::Result<u32> {
    let mut file = File::create(path)?;
    let begun = Instant::now();
    let mut syncs = 0;
    while begun.elapsed() < duration {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(syncs)
}

/// What a reader of figures wants to know of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Processors.
    pub cores: usize,
    /// GiB of memory.
    pub memory_gib: f64,
    /// Kernel and distribution.
    pub system: String,
    /// The filesystem that the data is on, and its device.
    pub disk: String,
}

impl Machine {
    /// This one, with the data in a directory.
    #[must_use]
    pub fn here(data: &Path) -> Self {
        let cpu = first_value("/proc/cpuinfo", "model name", ':');
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let name = first_value("/etc/os-release", "PRETTY_NAME", '=');
        Machine {
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: value_of("/proc/meminfo", "MemTotal:") / f64::from(1 << 20),
            system: format!("Linux {}, {}", kernel.trim(), name.unwrap_or_default()),
            disk: disk_of(data),
        }
    }
}

fn first_value(path: &str, name: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, value) = line.split_once(separator)?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// Such as `ext4 on /dev/vda`.
fn disk_of(dir: &Path) -> String {
    let output = Command::new("df").arg("--output=fstype,source").arg(dir).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.unwrap_or_default().lines().nth(1).map(str::to_owned).unwrap_or_default();
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [kind, source] => format!("{kind} on {source}"),
        _ => "unknown".to_owned(),
    }
}

/// Whether a directory is in memory, where a sync costs nothing.
#[must_use]
pub fn in_memory(dir: &Path) -> bool {
    ["tmpfs", "ramfs"].iter().any(|kind| disk_of(dir).starts_with(kind))
}

/// What a program says of its version: the first line of it.
#[must_use]
pub fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_idle_and_interrupts_out() {
        let time = CpuTime::parse("cpu  100 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3\n");
        assert_eq!(time.busy, 1.5);
    }

    #[test]
    fn name_of_a_process_may_hold_brackets() {
        assert_eq!(fields_after_name("7 (a ) b) S 42 1")[..2], ["S", "42"]);
    }

    #[test]
    fn children_and_their_memory_are_found() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        assert!(children().contains(&child.id()));
        assert!(resident_bytes(child.id()) > 0.0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().contains(&child.id()));
    }

    #[test]
    fn cpu_of_a_child_that_is_gone_stays() {
        let before = family_cpu();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", spin]).status().unwrap().success());
        assert!(family_cpu() - before >= 0.02, "a loop of the shell takes a tenth of a second");
    }

    #[test]
    fn probe_syncs_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(fdatasync_rate(dir.path(), Duration::from_millis(50)) > 0.0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
