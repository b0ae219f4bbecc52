//! Bugs that are planted, to test the tests: a campaign that does not find them proves little.
//!
//! They exist only in builds with the feature `mutants`; `KVDB_MUTANT` names the one that a process has.
//! Without the feature every question here is `false` when it is compiled. A release build with the
//! feature is refused.
//!
//! A mutant is one condition, beside the invariant that it breaks. What it does is what a plausible
//! mistake would do: answers stay well formed, and a node's own checks have nothing to object to, so that
//! only who compares answers with answers, or replicas with replicas, can tell. In the table, *B* and a
//! number is the class of the bug; then come the workload, the fault and the checker that should find it.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` plants bugs: build it with debug assertions, to test tests");

/// Makes the enum, and the names that `KVDB_MUTANT` knows.
macro_rules! mutants {
    ($( $(#[doc = $doc:literal])+ $arm:ident = $name:literal, )+) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $( $(#[doc = $doc])+ $arm, )+
        }

        /// Every mutant by its name.
        #[cfg(any(feature = "mutants", test))]
        const ALL: &[(&str, Mutant)] = &[$( ($name, Mutant::$arm), )+];
    };
}

mutants! {
    /// A leader answers reads without asking a quorum whether it still leads. B1. Found by register or
    /// append, leader cut off or paused, linearizable.
    LocalRead = "local-read",
    /// A follower answers reads from what it happens to have applied. B2. Found by register, no fault,
    /// linearizable.
    FollowerRead = "follower-read",
    /// Appended entries are reported as synced when they are written; a vote or a purge, now and
    /// then, syncs them. B14. Found by set or append, power cut of all, durability.
    AckBeforeFsync = "ack-before-fsync",
    /// A node that starts again remembers no vote, as if none had been synced: it follows a leader that
    /// it had helped to depose, and drops what it acknowledged to the next. B6, B20. Found by a kill of
    /// all, after which nothing is committed for long; or by append, a leader cut off, and the node that
    /// elected the next one killed and joined to the old one, serializable.
    UnsyncedVote = "unsynced-vote",
    /// What a script wrote before it failed is kept. B23. Found by half, no fault, half or certificate.
    NoRollback = "no-rollback",
    /// The applied index is written first, in a batch of its own: entries are skipped after a crash
    /// or in a snapshot. (Written last it is harmless: a command applied again is a conflict.) B17.
    /// Found by any workload, kill or lagging node with small snapshot distances, replicas.
    AppliedIndexApart = "applied-index-apart",
    /// A call whose outcome is unknown is sent or proposed again. B7, B8, B9. Found by counter or append,
    /// leader killed or paused under calls by way of followers, counter or certificate.
    BlindRetry = "blind-retry",
    /// One key in twenty is missing after a snapshot was installed, and its part of the digest with it.
    /// B12. Found by set, follower away for longer than the log is kept, replicas or set.
    SnapshotDropsAKey = "snapshot-drops-a-key",
    /// A command is applied onto any head, and one job in fifty is run without what is in flight, which the
    /// check would turn into a conflict. B3, B8. Found by counter or append, no fault, counter,
    /// certificate or serializable.
    NoHeadCheck = "no-head-check",
    /// A write is answered when it is proposed. B3, B38. Found by register, no fault, linearizable; by
    /// set, leader killed, durability.
    AnswerBeforeApply = "answer-before-apply",
    /// The first command after a start is not applied. B11, B17. Found by any workload, kill of one,
    /// replicas.
    ApplySkipsOne = "apply-skips-one",
    /// One `If-Match` in four that does not hold is taken for one that does. B6. Found by register, no
    /// fault, linearizable or certificate.
    CasIgnoresVersion = "cas-ignores-version",
    /// A call that reads on top of a command in flight is answered before that is committed. B5. Found by
    /// bank or append, leader cut off, serializable; with luck without a fault, linearizable.
    DirtyRead = "dirty-read",
    /// A job does not see what jobs in flight before it wrote. B8, B24. Found by counter, append or bank,
    /// no fault, counter, serializable or bank.
    OverlayNotRead = "overlay-not-read",
    /// One call in fifty that was executed is answered 503 with `X-Kvdb-Applied: no`. B9, B38. Found by
    /// set or counter, no fault, certificate, set or counter.
    RedirectDenied = "redirect-denied",
    /// One value in two hundred is written with a random digit at its end, another on each node. B35.
    /// Found by any workload, no fault, replicas.
    NondeterministicApply = "nondeterministic-apply",
    /// The same, and digests are told as 0. B35. Found by any workload, no fault, replicas, by dumps only.
    LyingDigest = "lying-digest",
    /// One deletion in twenty is applied as nothing. B25. Found by register or list, no fault,
    /// linearizable or list; by replicas after a restart, since each process counts for itself.
    LostDelete = "lost-delete",
    /// A member is told to be removed, and stays. B10. Found by a removal, members.
    MembershipStale = "membership-stale",
    /// Damage in the log is cut off with all that follows, although what is behind it says that it was synced. B18,
    /// B20. Found by set, bits of the newest log file flipped on a majority while down, durability.
    SkipCorrupt = "skip-corrupt",
    /// One list in twenty lacks its last key. B27. Found by list, no fault, list.
    ListStopsEarly = "list-stops-early",
    /// 404, 409, 412 and the errors of scripts are answered at once, without the read index and without
    /// what they read on top of. B2, B5. Found by register with cas, leader cut off or paused,
    /// linearizable.
    ErrorNotConfirmed = "error-not-confirmed",
    /// One look in twenty for a recorded answer finds none: a repeated call is done again. Found by
    /// idempotent, leader killed, idempotent, counter or certificate.
    RecordForgotten = "record-forgotten",
    /// A `check` of a transaction holds of every key that exists. Found by transactions, no fault,
    /// versions, bank or certificate.
    CheckIgnored = "check-ignored",
    /// `If-None-Match: *` holds one time in four of a key that exists. Found by conditional, no fault,
    /// linearizable or certificate.
    AbsentIgnored = "absent-ignored",
    /// A key lives a second and a half longer than it was told. Found by expiry, no fault, expiry or
    /// linearizable.
    DiesLate = "dies-late",
    /// A read that meets a key whose time is over by a clock has nothing appended about it. Found by
    /// expiry, leader killed or clocks apart, linearizable or expiry.
    NoTick = "no-tick",
    /// A stale read does not wait for the revision that it was asked for. Found by stale, follower cut off
    /// or killed, stale.
    MinRevisionIgnored = "min-revision-ignored",
    /// A stale answer says that it is of this moment. Found by stale, nodes cut off, stale.
    AgeZero = "age-zero",
}

/// How often [`strikes`] and [`first`] were asked: one process has at most one mutant.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Whether this process has the mutant.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

/// Whether this process has the mutant.
#[cfg(feature = "mutants")]
pub(crate) fn is(mutant: Mutant) -> bool {
    chosen().is_some_and(|(_, chosen)| chosen == mutant)
}

/// Whether this process has the mutant and this is the last of so many times that it was asked.
pub(crate) fn strikes(mutant: Mutant, every: u64) -> bool {
    is(mutant) && ASKED.fetch_add(1, Ordering::Relaxed) % every == every - 1
}

/// Whether this process has the mutant and was not asked before.
pub(crate) fn first(mutant: Mutant) -> bool {
    is(mutant) && ASKED.fetch_add(1, Ordering::Relaxed) == 0
}

/// A digit that differs between processes, as the order of a hash map does.
pub(crate) fn random_digit() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    let digit = RandomState::new().hash_one(()) % 10;
    b"0123456789".iter().copied().nth(digit as usize).unwrap_or(b'0')
}

/// Says which mutant this process has, if it has one, so that nobody takes it for a database.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn announce() {}

/// Says which mutant this process has, if it has one, so that nobody takes it for a database.
#[cfg(feature = "mutants")]
pub(crate) fn announce() {
    if let Some((mutant, _)) = chosen() {
        tracing::warn!(mutant, "THIS NODE HAS A PLANTED BUG: it loses data, or lies about it");
    }
}

/// What `KVDB_MUTANT` names, read once. A name that is not in the table ends the process: a campaign
/// would go on without a bug, and find none.
#[cfg(feature = "mutants")]
fn chosen() -> Option<(&'static str, Mutant)> {
    static CHOSEN: std::sync::OnceLock<Option<(&str, Mutant)>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("KVDB_MUTANT").ok()?;
        named(&name).or_else(|| {
            let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
            eprintln!("KVDB_MUTANT names no mutant: {name}\nThere are:\n{}", names.join("\n"));
            std::process::exit(2)
        })
    })
}

#[cfg(any(feature = "mutants", test))]
fn named(name: &str) -> Option<(&'static str, Mutant)> {
    ALL.iter().copied().find(|(known, _)| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_means_one_mutant() {
        for (name, mutant) in ALL {
            assert_eq!(named(name), Some((*name, *mutant)));
            assert_eq!(ALL.iter().filter(|(_, other)| other == mutant).count(), 1, "{name}");
        }
        assert_eq!(named("no-such-mutant"), None);
    }

    #[test]
    fn nothing_is_planted_unless_it_is_asked_for() {
        for (name, mutant) in ALL {
            assert!(!is(*mutant), "{name}");
            assert!(!strikes(*mutant, 1), "{name}");
            assert!(!first(*mutant), "{name}");
        }
    }
}
