//! Kinds of faults by what they strike, which is what their colour tells.
//!
//! A kind's group is read from its name, so that a new kind needs no line here as long as its name says
//! what it does: `partition-leader`, `disk-full`. A name that says nothing is in the group of the others.

/// What faults strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Process,
    Network,
    Disk,
    Clock,
    Members,
    Resources,
    Other,
}

/// Words in the names of kinds. The first that is found decides: `power-cut` is of the disk, and
/// `crash-at-fsync` of the process.
const WORDS: &[(Group, &[&str])] = &[
    (Group::Clock, &["clock", "time", "skew", "strobe"]),
    (
        Group::Members,
        &[
            "member", "replace", "add-", "remove", "join", "learner", "leave", "grow", "shrink",
            "transfer",
        ],
    ),
    (
        Group::Resources,
        &["memory", "cpu", "limit", "starve", "pids", "descriptors", "overload", "crowd"],
    ),
    (Group::Process, &["kill", "pause", "stop", "restart", "crash", "freez", "upgrade", "term"]),
    (
        Group::Disk,
        &[
            "power",
            "disk",
            "sync",
            "eio",
            "full",
            "space",
            "flip",
            "truncat",
            "damage",
            "wal",
            "stall",
            "read-only",
            "wipe",
            "lost",
            "file",
            "zero",
            "corrupt",
            "rot",
            "torn",
            "old",
        ],
    ),
    (
        Group::Network,
        &[
            "partition",
            "cut",
            "net",
            "loss",
            "drop",
            "delay",
            "jitter",
            "reorder",
            "duplicat",
            "reset",
            "flap",
            "link",
            "isolat",
            "bridge",
            "ring",
            "one-way",
            "slow",
            "rate",
        ],
    ),
];

impl Group {
    /// All, in the order of a legend.
    pub(super) const ALL: [Group; 7] = [
        Group::Process,
        Group::Network,
        Group::Disk,
        Group::Clock,
        Group::Members,
        Group::Resources,
        Group::Other,
    ];

    /// The group of a kind.
    pub(super) fn of(kind: &str) -> Self {
        let named = |(_, words): &&(Group, &[&str])| words.iter().any(|word| kind.contains(word));
        WORDS.iter().find(named).map_or(Group::Other, |(group, _)| *group)
    }

    /// Its word; also its class in the style.
    pub(super) fn name(self) -> &'static str {
        match self {
            Group::Process => "process",
            Group::Network => "network",
            Group::Disk => "disk",
            Group::Clock => "clock",
            Group::Members => "members",
            Group::Resources => "resources",
            Group::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_struck() {
        let groups = [
            ("kill-leader", Group::Process),
            ("partition-one-way", Group::Network),
            ("power-cut-all", Group::Disk),
            ("disk-full", Group::Disk),
            ("clock-jump", Group::Clock),
            ("replace", Group::Members),
            ("shrink", Group::Members),
            ("crash-at-fsync", Group::Process),
            ("pause-kill", Group::Process),
            ("rolling-restart", Group::Process),
            ("cut-clients", Group::Network),
            ("slow-link", Group::Network),
            ("loss", Group::Network),
            ("lost-disk", Group::Disk),
            ("power-during-recovery", Group::Disk),
            ("zero-block", Group::Disk),
            ("old-log", Group::Disk),
            ("cpu-starved", Group::Resources),
            ("gremlin", Group::Other),
        ];
        for (kind, group) in groups {
            assert_eq!(Group::of(kind), group, "{kind}");
        }
    }
}
