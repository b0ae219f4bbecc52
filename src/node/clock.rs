//! The node's time, and what the other nodes' clocks say of it.
//!
//! Every command carries the leader's time, and a bucket's time never goes back: a single command stamped a
//! year ahead ends everything in its bucket that was to live for less than that. So no wall clock is
//! believed on its own word.
//!
//! - **Time begins as the wall clock and is carried on by the monotonic one** ([`Clock`]). Small
//!   differences, as NTP makes them, are followed at once; time stands still rather than goes back. A
//!   step of the wall clock is not followed until [`Clock::follow`] is called.
//! - **Every second each node asks the voters for their clocks**, followers too, so that a new leader knows
//!   how it stands. A node whose time is further than `--clock-skew-max-ms` from the median is
//!   *skewed*: as the leader it stamps nothing, and hands leadership to a voter whose clock is good.
//! - **A step is followed where a majority of the voters' wall clocks agrees with it**, or where there is no
//!   other voter. So a clock that was set right is good again, all of them may be set together, and a machine
//!   that was suspended catches up. This is the one case in which time goes back.
//! - Where no majority of clocks is known, a clock counts as good; a new leader waits a moment for them first. What
//!   a silent voter said last is remembered for some seconds.
//!
//! Clocks are compared as their distances from this process's monotonic clock: a distance stays what it
//! is for as long as nobody sets the clock, however long ago it was measured.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::Node;
use crate::raft::{MemberInfo, NodeId};

/// A difference from here on is a step.
const STEP_MS: i64 = 500;
/// Between two comparisons.
const EVERY: Duration = Duration::from_secs(1);
/// How long a voter may take to say its time; half of it is how wrong the answer may be.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long what a voter said is remembered.
const REMEMBERED_MS: i64 = 10_000;

/// Where time is read.
pub(super) trait Source: Send + Sync + 'static {
    /// Milliseconds since 1970 by the wall clock, which may be set at any moment.
    fn wall_ms(&self) -> i64;
    /// Milliseconds of a clock that nobody sets.
    fn monotonic_ms(&self) -> i64;
}

/// The operating system's clocks.
#[derive(Clone)]
pub(super) struct Machine(Instant);

impl Default for Machine {
    fn default() -> Self {
        Machine(Instant::now())
    }
}

impl Source for Machine {
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic_ms(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// What a node answers who asks for its clocks: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clocks {
    /// The time that it would stamp a command with.
    pub(super) time: i64,
    /// Its wall clock.
    pub(super) wall: i64,
}

impl Clocks {
    /// The same clocks, as distances from a monotonic clock.
    fn from(self, monotonic_ms: i64) -> Self {
        let distance = |clock: i64| clock.saturating_sub(monotonic_ms);
        Clocks { time: distance(self.time), wall: distance(self.wall) }
    }

    /// Whether the wall clock has stepped away from the time.
    fn stepped(self) -> bool {
        apart(self.wall, self.time) >= STEP_MS
    }
}

/// The node's time.
pub(super) struct Clock {
    source: Box<dyn Source>,
    face: Mutex<Face>,
}

struct Face {
    /// How far time is ahead of the monotonic clock.
    ahead: i64,
    /// The last time that was told.
    told: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new(Machine::default())
    }
}

impl Clock {
    pub(super) fn new(source: impl Source) -> Self {
        let ahead = source.wall_ms() - source.monotonic_ms();
        Clock { source: Box::new(source), face: Mutex::new(Face { ahead, told: i64::MIN }) }
    }

    /// The time in milliseconds since 1970. Goes back only where [`Clock::follow`] took it back.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.read().0.time).unwrap_or(0)
    }

    /// The clocks, and the monotonic one at the same moment.
    pub(super) fn read(&self) -> (Clocks, i64) {
        let mut face = self.face();
        let (wall, monotonic) = (self.source.wall_ms(), self.source.monotonic_ms());
        if apart(wall, face.ahead + monotonic) < STEP_MS {
            face.ahead = wall - monotonic;
        }
        face.told = face.told.max(face.ahead + monotonic);
        (Clocks { time: face.told, wall }, monotonic)
    }

    /// Follows the wall clock to where it has stepped.
    pub(super) fn follow(&self) {
        let mut face = self.face();
        let (wall, monotonic) = (self.source.wall_ms(), self.source.monotonic_ms());
        *face = Face { ahead: wall - monotonic, told: wall };
    }

    fn face(&self) -> MutexGuard<'_, Face> {
        self.face.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apart(a: i64, b: i64) -> i64 {
    a.saturating_sub(b).saturating_abs()
}

/// How a node's time compares with that of the voters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// How far it is ahead of their median, in milliseconds.
    pub offset_ms: i64,
    /// Whether it is too far away to stamp commands.
    pub is_skewed: bool,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Nothing where no majority's clocks are known.
    skew: Option<Skew>,
    /// Whether the wall clock has stepped, and is to be followed.
    follow: bool,
    /// The median of the times, where there are others.
    median: Option<i64>,
}

/// Who is compared.
struct Comparison<'a> {
    own: Clocks,
    /// Whether this node is a voter.
    votes: bool,
    /// The other voters' clocks that are known.
    others: &'a [Clocks],
    /// How many voters there are.
    voters: usize,
    bound_ms: i64,
}

impl Comparison<'_> {
    fn verdict(&self) -> Verdict {
        let Comparison { own, others, .. } = *self;
        let stepped = own.stepped();
        if self.voters <= usize::from(self.votes) {
            let skew = self.votes.then(Skew::default);
            return Verdict { skew, follow: stepped, median: None };
        }
        if !self.is_majority(others.len()) {
            return Verdict::default();
        }
        let time = median(others.iter().map(|other| other.time).chain([own.time]));
        let wall = median(others.iter().map(|other| other.wall).chain([own.wall]));
        let agree = others.iter().filter(|other| self.near(other.wall, own.wall)).count();
        // The second: others are about to follow a step that this node has followed already.
        let is_good = self.near(own.time, time) || self.near(own.time, wall);
        Verdict {
            skew: Some(Skew { offset_ms: own.time.saturating_sub(time), is_skewed: !is_good }),
            follow: stepped
                && self.is_majority(agree)
                && apart(own.wall, wall) < apart(own.time, wall),
            median: Some(time),
        }
    }

    fn near(&self, a: i64, b: i64) -> bool {
        apart(a, b) <= self.bound_ms
    }

    /// Whether so many other voters are a majority, with this node where it votes.
    fn is_majority(&self, others: usize) -> bool {
        (others + usize::from(self.votes)) * 2 > self.voters
    }
}

/// The middle one; of two, the earlier: a clock that is behind lets keys live longer, and one that is
/// ahead ends them.
fn median(clocks: impl Iterator<Item = i64>) -> i64 {
    let mut clocks: Vec<i64> = clocks.collect();
    clocks.sort_unstable();
    clocks.get(clocks.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// What the voters said last, as distances from the monotonic clock, and when.
#[derive(Default)]
struct Known(BTreeMap<NodeId, (Clocks, i64)>);

impl Known {
    fn note(&mut self, said: &[(NodeId, Clocks)], monotonic_ms: i64) {
        self.0.extend(said.iter().map(|(id, clocks)| (*id, (*clocks, monotonic_ms))));
    }

    fn forget(&mut self, voters: &[MemberInfo], monotonic_ms: i64) {
        self.0.retain(|id, (_, at)| {
            monotonic_ms - *at <= REMEMBERED_MS && voters.iter().any(|voter| voter.id == *id)
        });
    }

    fn clocks(&self) -> Vec<Clocks> {
        self.0.values().map(|(clocks, _)| *clocks).collect()
    }
}

/// Compares this node's clock with the voters' every second, and at once where leadership has moved.
pub(super) async fn keep_comparing(node: Node) {
    let mut rounds = Rounds::default();
    let mut leadership = node.cluster().leadership();
    while !*node.0.shutting_down.borrow() {
        rounds.compare(&node).await;
        // It fails once Raft has stopped, and then there is only the sleep.
        let moved = async {
            if leadership.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = moved => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// What one round of comparing leaves for the next.
#[derive(Default)]
struct Rounds {
    known: Known,
    count: usize,
    /// Whether the wall clock was away in the last one.
    stepped: bool,
}

impl Rounds {
    async fn compare(&mut self, node: &Node) {
        let own_id = node.identity().node_id;
        let voters: Vec<_> = node.cluster().members().into_iter().filter(|m| m.voter).collect();
        let others = voters.iter().filter(|voter| voter.id != own_id);
        let said = join_all(others.map(|voter| ask(node, voter))).await;
        let said: Vec<_> = said.into_iter().flatten().collect();
        let (_, monotonic) = node.clock().read();
        self.count += 1;
        self.known.note(&said, monotonic);
        self.known.forget(&voters, monotonic);
        let known = self.known.clocks();
        let verdict = || {
            let (own, monotonic) = node.clock().read();
            let votes = voters.iter().any(|voter| voter.id == own_id);
            let (own, bound_ms) = (own.from(monotonic), node.0.clock_skew_max_ms);
            Comparison { own, votes, others: &known, voters: voters.len(), bound_ms }.verdict()
        };
        let mut now = verdict();
        self.heed_step(node, now.follow);
        if now.follow {
            now = verdict();
        }
        tell(node, now.skew);
        let leads = node.cluster().leadership().borrow().own_term.is_some();
        if let Some(median) = now.median.filter(|_| leads && is_skewed(now.skew)) {
            self.hand_on(node, said, median).await;
        }
    }

    /// Follows the wall clock where that is right; says once where it is not.
    fn heed_step(&mut self, node: &Node, follow: bool) {
        let (own, _) = node.clock().read();
        let by_ms = own.wall.saturating_sub(own.time);
        if follow {
            tracing::warn!(by_ms, "the wall clock has stepped, and is followed");
            node.clock().follow();
        } else if own.stepped() && !self.stepped {
            tracing::warn!(
                by_ms,
                "the wall clock has stepped: not followed until a majority agrees"
            );
        }
        self.stepped = own.stepped() && !follow;
    }

    /// Hands leadership to a voter who has just said a good time; to another at each try, since one may
    /// be unable to lead.
    async fn hand_on(&self, node: &Node, mut said: Vec<(NodeId, Clocks)>, median: i64) {
        let away = |clocks: &Clocks| apart(clocks.time, median);
        said.retain(|(_, clocks)| away(clocks) <= node.0.clock_skew_max_ms);
        said.sort_by_key(|(_, clocks)| away(clocks));
        let Some((to, _)) = said.get(self.count % said.len().max(1)) else { return };
        let moved = node.cluster().transfer_leader(*to);
        match tokio::time::timeout(EVERY, moved).await {
            Ok(Ok(())) => tracing::info!(to, "handed over leadership to a better clock"),
            _ => tracing::warn!(to, "could not hand over leadership to a better clock yet"),
        }
    }
}

/// A voter's clocks as distances from this process's monotonic clock, taken half a round trip ago.
async fn ask(node: &Node, voter: &MemberInfo) -> Option<(NodeId, Clocks)> {
    let (_, sent) = node.clock().read();
    let asked = node.links().ask_member::<_, Clocks>(voter, "/peer/clock", &());
    let answer = tokio::time::timeout(ASK_TIMEOUT, asked).await.ok()?.ok()?;
    let (_, received) = node.clock().read();
    Some((voter.id, answer.from(sent.midpoint(received))))
}

fn tell(node: &Node, skew: Option<Skew>) {
    let was_skewed = is_skewed(node.0.skew.send_replace(skew));
    let offset_ms = skew.unwrap_or_default().offset_ms;
    match (was_skewed, is_skewed(skew)) {
        (false, true) => tracing::error!(
            offset_ms,
            "this node's clock is too far from the others': set it right, it stamps no commands"
        ),
        (true, false) => tracing::info!(offset_ms, "this node's clock counts as good again"),
        _ => {}
    }
}

/// Whether a clock is known to be too far away.
pub(super) fn is_skewed(skew: Option<Skew>) -> bool {
    skew.is_some_and(|skew| skew.is_skewed)
}

#[cfg(test)]
mod tests;
