//! The private world: this program again, under `unshare`.

use std::fmt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::unistd::Uid;

use super::{run, shell};
use crate::nemesis::Needs;

/// Says to the program that it is in the world already.
const INSIDE: &str = "KVDB_LAB";
/// Rounds of [`let_go`].
const LET_GO: usize = 5;

/// How nodes are kept apart.
#[derive(Clone, Debug)]
pub enum Isolation {
    /// Each in a network namespace of its own, on a disk of its own.
    Namespaces,
    /// Processes on loopback, and why.
    Plain(String),
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Isolation::Namespaces => f.write_str("namespaces, a disk each"),
            Isolation::Plain(why) => write!(f, "plain processes: {why}"),
        }
    }
}

impl Isolation {
    /// Whether the machine has what a fault needs, or what it lacks.
    pub fn has(&self, needs: Needs) -> Result<(), String> {
        match (needs, self) {
            (Needs::Processes, _) | (Needs::Namespaces | Needs::Disks, Isolation::Namespaces) => {
                Ok(())
            }
            (Needs::Namespaces | Needs::Disks, Isolation::Plain(why)) => {
                Err(format!("nodes are plain processes: {why}"))
            }
            (Needs::Tracing, _) => program("strace"),
            (Needs::Clock, _) => program("cc"),
        }
    }
}

/// Something that two harnesses at the same time do not share: the process id of the one that a person
/// started, which inside is not to be seen.
#[must_use]
pub fn own_name() -> String {
    std::env::var(INSIDE).unwrap_or_else(|_| std::process::id().to_string())
}

/// Lets go what would keep the world from going down: a disk that is frozen holds its processes for ever.
///
/// More than once, since a freeze may just be under way.
pub fn let_go() {
    for _ in 0..LET_GO {
        thaw_all();
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn thaw_all() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let disks = mounts.lines().filter(|line| line.starts_with("/dev/loop"));
    for mount in disks.filter_map(|line| line.split(' ').nth(1)) {
        // Most are not frozen, which is an error.
        let _ = run(shell("fsfreeze -u").arg(mount));
    }
}

/// Enters the world: either this program is started again inside, and its exit status returned; or it
/// is inside, or must do without.
pub fn enter() -> Result<Isolation, ExitCode> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(furnish().map_or_else(Isolation::Plain, |()| Isolation::Namespaces));
    }
    match lacking() {
        Some(why) => Ok(Isolation::Plain(why)),
        None => Err(start_inside()),
    }
}

/// What a world needs and is not there.
fn lacking() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("namespaces need root".to_owned());
    }
    let programs = [
        "setpriv",
        "unshare",
        "ip",
        "nft",
        "iptables",
        "nsenter",
        "mkfs.ext4",
        "mount",
        "fsfreeze",
    ];
    if let Some(missing) = programs.iter().find_map(|name| program(name).err()) {
        return Some(missing);
    }
    run(unshare().arg("true")).err().map(|why| format!("no namespaces: {why}"))
}

/// Whether a program is installed.
pub(super) fn program(name: &str) -> Result<(), String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|dir| dir.join(name).is_file());
    if found { Ok(()) } else { Err(format!("`{name}` is not installed")) }
}

fn unshare() -> Command {
    // Each dies with its parent, and the last takes every process of the world with it.
    shell(
        "setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child --mount-proc \
         --propagation private",
    )
}

fn start_inside() -> ExitCode {
    let itself = std::env::current_exe().expect("a process knows its executable");
    let status =
        unshare().arg(itself).args(std::env::args_os().skip(1)).env(INSIDE, own_name()).status();
    let code = status.ok().and_then(|status| status.code()).unwrap_or(1);
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// What the empty world needs: a loopback device, and places for names that hide the machine's.
fn furnish() -> Result<(), String> {
    for line in [
        "mount -t tmpfs none /run",
        "mkdir -p /run/netns",
        "ip link set lo up",
        // Sockets of a node that was cut off must not hold its ports for long.
        "sysctl -q -w net.ipv4.tcp_fin_timeout=5",
    ] {
        run(&mut shell(line))?;
    }
    Ok(())
}
