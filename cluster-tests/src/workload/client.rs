//! One client's life: a call, a pause, a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::crowd::{Node, Shared};
use super::request::request;
use super::{Ask, UNEXPECTED, Work, answer};
use crate::history::{Operation, Outcome};
use crate::http::{Failure, Reply};
use crate::wire::{Request, Wire};

/// How long a connection may take to be made: behind a cut, nobody answers.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one exchange may take: a little longer than a node waits for a leader, so that its "no" comes
/// in time. A call that was given up is unknown.
const EXCHANGE: Duration = Duration::from_millis(2500);
/// How long a call may take with its redirects.
const CALL: Duration = Duration::from_secs(8);
/// How long a client pauses that was refused: this, and up to as much again.
const REFUSED_PAUSE: Duration = Duration::from_millis(30);
/// How far a client that was held up may be behind: it catches up no more than this.
const BEHIND_MAX: Duration = Duration::from_millis(500);
/// How long a client asks the same again until it is told what became of it.
const DEFINITE: Duration = Duration::from_secs(30);
/// Most calls to one node before a client draws another.
const STAY_MAX: u32 = 20;

/// A place among all clients of a run.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) of: u64,
}

/// Who sits in a place: one client after the other, where outcomes are unknown.
pub(super) struct Client {
    shared: Arc<Shared>,
    place: Place,
    workload: String,
    work: Box<dyn Work>,
    /// What only times and nodes are drawn from.
    luck: Rng,
    wire: Wire,
    /// The node that it talks to, and for how many more calls.
    node: Option<(Node, u32)>,
    /// Calls so far.
    calls: u64,
    /// Clients that sat here before.
    life: u64,
    record: Vec<Operation>,
}

impl Client {
    pub(super) fn new(
        shared: Arc<Shared>,
        place: Place,
        workload: &str,
        work: Box<dyn Work>,
        luck: Rng,
    ) -> Self {
        Client {
            shared,
            place,
            workload: workload.to_owned(),
            work,
            luck,
            wire: Wire::within(CONNECT, EXCHANGE),
            node: None,
            calls: 0,
            life: 0,
            record: Vec::new(),
        }
    }

    /// Calls until it is to stop, or all operations are begun, and returns what it recorded.
    pub(super) async fn live(mut self) -> Vec<Operation> {
        let mut due = Instant::now();
        loop {
            due += self.shared.draw_pause(&mut self.luck);
            if let Some(earliest) = Instant::now().checked_sub(BEHIND_MAX) {
                due = due.max(earliest);
            }
            self.shared.rest(due).await;
            if self.work.roams() {
                self.node = None;
            }
            let Some(node) = self.choose() else {
                // Nobody is there to be asked.
                self.shared.rest(Instant::now() + REFUSED_PAUSE).await;
                if self.shared.is_over() {
                    return self.record;
                }
                continue;
            };
            if !self.shared.takes_one() {
                return self.record;
            }
            self.turn(node).await;
        }
    }

    /// The node to talk to: the one that it talks to already, or another after a while.
    fn choose(&mut self) -> Option<Node> {
        let nodes = self.shared.nodes();
        if let Some((node, stay)) = &mut self.node
            && *stay > 0
            && nodes.contains(node)
        {
            *stay -= 1;
            return Some(node.clone());
        }
        let drawn = self.luck.choice(nodes)?;
        self.node = Some((drawn.clone(), self.luck.u32(..STAY_MAX)));
        Some(drawn)
    }

    /// One operation. Its number is a function of the place, too.
    async fn turn(&mut self, (node, url): Node) {
        let id = self.calls * self.place.of + self.place.number + 1;
        self.calls += 1;
        let ask = self.work.next(id);
        let request = request(&self.workload, id, &ask);
        let began = self.shared.now();
        let outcome = match ask.once {
            true => self.until_definite(&ask, url, &request).await,
            false => answer::outcome(&ask.action, self.send(&url, request).await),
        };
        let ended = self.shared.now();
        self.work.saw(&ask.action, &outcome);
        let client = self.place.of * self.life + self.place.number;
        let refused = matches!(outcome, Outcome::Refused { .. });
        match outcome {
            Outcome::Done { .. } => self.shared.count_done(),
            Outcome::Refused { .. } => self.node = None,
            Outcome::Unknown { .. } => self.retire(),
        }
        let (workload, action) = (self.workload.clone(), ask.action);
        self.record.push(Operation { id, workload, client, node, action, began, ended, outcome });
        if refused {
            let pause = REFUSED_PAUSE.mul_f64(1.0 + self.luck.f64());
            self.shared.rest(Instant::now() + pause).await;
        }
    }

    /// Asks the same again, of any node, until it is done: an `Idempotency-Key` makes of many attempts one
    /// call. A refusal speaks of its own attempt: it says nothing of those before it.
    async fn until_definite(&mut self, ask: &Ask, mut url: String, request: &Request) -> Outcome {
        let give_up = Instant::now() + DEFINITE;
        let mut unknown = None;
        loop {
            let outcome = answer::outcome(&ask.action, self.send(&url, request.clone()).await);
            let unexpected = |reason: &str| reason.starts_with(UNEXPECTED);
            match &outcome {
                Outcome::Done { .. } => return outcome,
                Outcome::Unknown { reason, .. } if unexpected(reason) => return outcome,
                Outcome::Unknown { .. } => unknown = Some(outcome),
                Outcome::Refused { .. } if Instant::now() >= give_up => {
                    return unknown.unwrap_or(outcome);
                }
                Outcome::Refused { .. } => {}
            }
            if Instant::now() >= give_up
                && let Some(unknown) = unknown
            {
                return unknown;
            }
            tokio::time::sleep(REFUSED_PAUSE.mul_f64(1.0 + self.luck.f64())).await;
            self.node = None;
            if let Some((_, other)) = self.choose() {
                url = other;
            }
        }
    }

    /// Another client sits down here.
    fn retire(&mut self) {
        self.life += 1;
        self.wire = Wire::within(CONNECT, EXCHANGE);
        self.node = None;
    }

    async fn send(&mut self, url: &str, request: Request) -> Result<Reply, Failure> {
        let answer = tokio::time::timeout(CALL, self.wire.send(url, request)).await;
        answer.unwrap_or_else(|_| {
            Err(Failure { sent: true, reason: format!("no end within {CALL:?}") })
        })
    }
}
