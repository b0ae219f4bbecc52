//! A database in a few lines, with clients that overlap and outcomes that get lost: what the checkers are
//! tried on. It is right, unless a bug is planted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::history::{Action, Answer, Dump, Ending, Micro, Operation, Outcome, Resolution};
use crate::history::{Step, StepAnswer};
use crate::model::{ACCOUNTS, Bucket};
use crate::workload::{Seat, Work, work};

/// What is wrong with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Reads answer from an old state, and say its revision.
    StaleRead,
    /// Reads answer from an old state, and say the newest revision.
    MislabelledRead,
    /// Writes are acknowledged and dropped.
    LostWrite,
    /// Calls are applied twice.
    AppliedTwice,
    /// Calls that were refused are applied.
    RefusedApplied,
    /// Of a script only its first write is made.
    HalfApplied,
    /// A failed script's writes stay.
    FailedApplied,
    /// Writes answer a revision that is not theirs.
    RevisionBack,
    /// Transactions read an old state and write to the new one.
    OldReads,
    /// One node lacks a row at the end.
    NodeLacksRow,
    /// What is asked once more is done once more.
    DoneAgain,
    /// A check of a transaction is not looked at.
    NoCheck,
    /// A condition on a value is not looked at.
    NoCondition,
    /// A read is older than the revision that was asked for.
    Behind,
    /// Keys die a second before their time.
    DiesEarly,
    /// Keys die seconds after their time.
    DiesLate,
    /// A key that died is there again.
    Undead,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) workload: &'static str,
    pub(crate) seed: u64,
    pub(crate) operations: usize,
    pub(crate) clients: u64,
    /// Calls whose outcome is lost, of a hundred.
    pub(crate) unknown: u8,
    /// Calls that are refused, of a hundred.
    pub(crate) refused: u8,
    /// Whether the final reads resolve the unknown ones, where a script left a row.
    pub(crate) resolves: bool,
    pub(crate) bug: Bug,
}

/// What became of it.
pub(crate) struct Simulated {
    pub(crate) operations: Vec<Operation>,
    pub(crate) dumps: Vec<Dump>,
    /// How often the bug was met.
    pub(crate) planted: usize,
}

/// Of so many chances a bug takes one.
const BUG_ONE_IN: u64 = 12;
/// States that a stale read may be behind.
const STATES_BEHIND: usize = 12;

/// Where keys die, a call takes some 80 ms: they shall live through some calls, and die between others.
const EXPIRY_SCALE: u64 = 2_000;
const SECOND: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin(u64),
    Apply(usize),
    End(usize),
}

struct Simulator {
    setup: Setup,
    rng: fastrand::Rng,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    bucket: Bucket,
    revision: u64,
    old: Vec<(Bucket, u64)>,
    operations: Vec<Operation>,
    answers: BTreeMap<usize, (Answer, u64)>,
    applied: BTreeMap<u64, u64>,
    /// What each client saw last of a key, and its lock token.
    seen: BTreeMap<(u64, String), String>,
    tokens: BTreeMap<u64, i64>,
    clients: u64,
    unique: u64,
    planted: usize,
    /// What clients ask that the workloads themselves draw.
    works: BTreeMap<u64, Box<dyn Work>>,
    /// When keys die, and what died last of them.
    deaths: BTreeMap<String, u64>,
    dead: BTreeMap<String, String>,
}

pub(crate) fn simulate(setup: &Setup) -> Simulated {
    let mut simulator = Simulator {
        setup: setup.clone(),
        rng: fastrand::Rng::with_seed(setup.seed),
        events: BinaryHeap::new(),
        sequence: 0,
        bucket: Bucket::of(setup.workload),
        revision: 9,
        old: Vec::new(),
        operations: Vec::new(),
        answers: BTreeMap::new(),
        applied: BTreeMap::new(),
        seen: BTreeMap::new(),
        tokens: BTreeMap::new(),
        clients: setup.clients,
        unique: 0,
        planted: 0,
        works: BTreeMap::new(),
        deaths: BTreeMap::new(),
        dead: BTreeMap::new(),
    };
    for client in 1..=setup.clients {
        simulator.at(client, Event::Begin(client));
    }
    simulator.run();
    simulator.finish()
}

impl Simulator {
    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn run(&mut self) {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            match event {
                Event::Begin(client) if self.operations.len() < self.setup.operations => {
                    self.begin(now, client);
                }
                Event::Begin(_) => {}
                Event::Apply(at) => self.apply(now, at),
                Event::End(at) => self.end(now, at),
            }
        }
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    /// Whether the bug strikes, one time in so many.
    fn bug(&mut self, bug: Bug, one_in: u64) -> bool {
        self.setup.bug == bug && self.rng.u64(0..one_in) == 0
    }

    fn begin(&mut self, now: u64, client: u64) {
        let at = self.operations.len();
        let action = self.draw(client);
        let scale = if self.setup.workload == "expiry" { EXPIRY_SCALE } else { 1 };
        let applied = now + self.rng.u64(0..40) * scale;
        let ended = applied + self.rng.u64(0..40) * scale;
        let outcome = if self.chance(self.setup.unknown) {
            let reason = "lost".to_owned();
            Outcome::Unknown { reason, resolution: Resolution::None }
        } else if self.chance(self.setup.refused) {
            Outcome::Refused { reason: "no leader".to_owned() }
        } else {
            // Replaced at the end.
            Outcome::Done { answer: Answer::Failed, revision: None }
        };
        match &outcome {
            Outcome::Done { .. } => self.at(applied, Event::Apply(at)),
            Outcome::Unknown { .. } if self.rng.bool() => {
                let late = if self.rng.bool() { self.rng.u64(0..600) } else { 0 };
                self.at(applied + late, Event::Apply(at));
            }
            Outcome::Refused { .. } if self.bug(Bug::RefusedApplied, BUG_ONE_IN) => {
                self.at(applied, Event::Apply(at));
            }
            _ => {}
        }
        self.at(ended, Event::End(at));
        self.operations.push(Operation {
            id: at as u64 + 1,
            workload: self.setup.workload.to_owned(),
            client,
            node: client % 3 + 1,
            action,
            began: now,
            ended,
            outcome,
        });
    }

    fn unique(&mut self) -> u64 {
        self.unique += 1;
        self.unique
    }

    fn draw(&mut self, client: u64) -> Action {
        let unique = self.unique();
        // Keys move on, as those of a real run do, so that none has too many operations.
        let prefix = format!("k{}/", unique / 300);
        let key = format!("{prefix}{}", self.rng.u64(0..4));
        let value = format!("v{unique}");
        let reads = self.chance(20);
        match self.setup.workload {
            "register" => self.draw_register(client, key, value),
            // One for all, as in a real run.
            "counter" if reads => Action::Get { key: "counter".to_owned() },
            "counter" => Action::Add { key: "counter".to_owned(), by: 1 },
            "list" => match self.rng.u8(0..4) {
                0 => Action::List { prefix },
                1 => Action::Delete { key },
                _ => Action::Set { key, value },
            },
            "set" => Action::Set { key: format!("element/{unique}"), value },
            "append" => self.draw_append(unique),
            "bank" if reads => Action::Balances,
            "bank" => Action::Transfer {
                from: self.rng.u64(0..ACCOUNTS),
                to: self.rng.u64(0..ACCOUNTS),
                amount: self.rng.u64(1..60),
            },
            "lock" => self.draw_lock(client, value),
            "half" => self.draw_half(value),
            _ => self.draw_work(client),
        }
    }

    /// What the workload's own clients would ask.
    fn draw_work(&mut self, client: u64) -> Action {
        let (id, setup) = (self.operations.len() as u64 + 1, &self.setup);
        let (index, count) = (client % setup.clients, setup.clients);
        let rng = fastrand::Rng::with_seed(setup.seed ^ (client << 32));
        let new = || work(setup.workload, Seat { index, count, rng }).unwrap();
        self.works.entry(client).or_insert_with(new).next(id).action
    }

    fn draw_register(&mut self, client: u64, key: String, value: String) -> Action {
        let from = self.seen.get(&(client, key.clone())).cloned();
        match (self.rng.u8(0..10), from) {
            (0..4, _) => Action::Get { key },
            (4, _) => Action::Delete { key },
            (5..8, Some(from)) => Action::Cas { key, from, to: value },
            _ => Action::Set { key, value },
        }
    }

    fn draw_append(&mut self, unique: u64) -> Action {
        let count = self.rng.u64(1..5);
        let step = |n| {
            let key = unique / 100 * 3 + self.rng.u64(0..3);
            if self.rng.bool() { Micro::Append(key, unique * 10 + n) } else { Micro::Read(key) }
        };
        Action::Append { steps: (0..count).map(step).collect() }
    }

    fn draw_lock(&mut self, client: u64, value: String) -> Action {
        let owner = format!("c{client}");
        match (self.rng.u8(0..4), self.tokens.get(&client).copied()) {
            (0 | 1, Some(token)) => Action::Use { token, value },
            (2, Some(_)) => Action::Release { owner },
            _ => Action::Acquire { owner, steal: self.rng.u8(0..3) == 0 },
        }
    }

    fn draw_half(&mut self, value: String) -> Action {
        let pair = self.rng.u64(0..3);
        match self.rng.u8(0..4) {
            0 | 1 => Action::ReadPair { pair },
            2 => Action::Pair { pair, value, ending: Ending::Well },
            _ => Action::Pair { pair, value, ending: Ending::Abort },
        }
    }

    fn apply(&mut self, now: u64, at: usize) {
        let operation = self.operations[at].clone();
        self.bury(now);
        let (answer, revision) = self.executed(&operation);
        if let Action::SetFor { key, seconds, .. } = &operation.action {
            let early = self.bug(Bug::DiesEarly, 1);
            self.planted += usize::from(early);
            let seconds = seconds - u64::from(early);
            self.deaths.insert(key.clone(), now + seconds * SECOND);
        }
        if self.setup.bug != Bug::None || self.setup.workload == "stale" {
            self.old.push((self.bucket.clone(), self.revision));
            let from = self.old.len().saturating_sub(STATES_BEHIND);
            self.old.drain(..from);
        }
        self.answers.insert(at, (answer, revision));
    }

    /// Lets those keys die whose time is over.
    fn bury(&mut self, now: u64) {
        let late = if self.setup.bug == Bug::DiesLate { 2 * SECOND } else { 0 };
        let over: Vec<String> = self
            .deaths
            .iter()
            .filter(|(_, at)| **at + late <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.deaths.remove(&key);
            let rows = self.bucket.rows(&key);
            let Some((_, value)) = rows.into_iter().next() else { continue };
            self.planted += usize::from(late > 0);
            self.bucket.step(&Action::Delete { key: key.clone() }, 0);
            self.dead.insert(key, value);
        }
    }

    /// What is answered from another time: an answer that is given again, a state that is old.
    fn of_the_past(&mut self, action: &Action) -> Option<(Answer, u64)> {
        match action {
            Action::Repeat { of, key, by } => {
                let at = usize::try_from(*of).unwrap() - 1;
                let (Answer::Number(number), revision) = self.answers[&at] else { panic!("{of}") };
                if self.bug(Bug::DoneAgain, BUG_ONE_IN) {
                    self.planted += 1;
                    self.revision += 1;
                    let add = Action::Add { key: key.clone(), by: *by };
                    self.bucket.step(&add, self.revision);
                }
                Some((Answer::Again { number, replayed: true }, revision))
            }
            Action::GetAt { stale, min_revision, .. } => {
                let behind = self.bug(Bug::Behind, 3);
                let least = min_revision.filter(|_| !behind).unwrap_or(0);
                let states = self.old.iter().filter(|(_, revision)| *revision >= least);
                let states: Vec<_> = states.filter(|_| *stale || behind).collect();
                let now = (self.bucket.clone(), self.revision);
                let drawn = self.rng.choice(states).cloned().unwrap_or(now);
                let (mut state, revision) = drawn;
                self.planted += usize::from(min_revision.is_some_and(|least| revision < least));
                let read = state.step(action, revision);
                let (value, version) = read.shown()?;
                let (value, age_ms) = (value.map(str::to_owned), Some(1_000_000));
                let age_ms = age_ms.filter(|_| *stale);
                Some((Answer::Dated { value, version, age_ms, expires_at: None }, revision))
            }
            Action::Get { key } if self.dead.contains_key(key) && self.bug(Bug::Undead, 2) => {
                let value = self.dead.get(key).cloned();
                self.planted += usize::from(self.bucket.rows(key).is_empty());
                Some((Answer::Value { value, version: Some(1) }, self.revision))
            }
            _ => None,
        }
    }

    /// The same without its conditions.
    fn unconditional(&mut self, action: &Action) -> Option<Action> {
        match action {
            Action::Txn { steps } if self.bug(Bug::NoCheck, 1) => {
                let steps = steps.iter().filter(|step| !matches!(step, Step::Check { .. }));
                Some(Action::Txn { steps: steps.cloned().collect() })
            }
            Action::Cas { key, to: value, .. } | Action::Create { key, value }
                if self.bug(Bug::NoCondition, 3) =>
            {
                Some(Action::Set { key: key.clone(), value: value.clone() })
            }
            _ => None,
        }
    }

    /// Executes a call, rightly or not; answers what the client is told.
    fn executed(&mut self, operation: &Operation) -> (Answer, u64) {
        if let Some(told) = self.of_the_past(&operation.action) {
            return told;
        }
        let action = &operation.action;
        let was = if self.setup.bug == Bug::None { None } else { Some(self.bucket.clone()) };
        let rows_before = self.row_is_there(action);
        if !operation.writes() && self.bug(Bug::StaleRead, BUG_ONE_IN) {
            let (mut old, revision) = self.old_state();
            return (old.step(action, revision), revision);
        }
        if !operation.writes() && self.bug(Bug::MislabelledRead, BUG_ONE_IN) {
            let (mut old, _) = self.old_state();
            return (old.step(action, 0), self.revision);
        }
        let mut answer = self.bucket.step(action, self.revision + 1);
        if answer == Answer::Denied
            && let Some(action) = self.unconditional(action)
        {
            self.planted += 1;
            answer = self.bucket.step(&action, self.revision + 1);
            if let (Answer::Results(results), Action::Txn { .. }) = (&mut answer, &action) {
                results.splice(..0, [StepAnswer::Holds, StepAnswer::Holds]);
            }
        }
        if self.bug(Bug::FailedApplied, BUG_ONE_IN)
            && let Action::Pair { pair, value, ending: Ending::Abort } = action
        {
            let (pair, value) = (*pair, value.clone());
            self.bucket
                .step(&Action::Pair { pair, value, ending: Ending::Well }, self.revision + 1);
            self.planted += 1;
        }
        let nothing = matches!(answer, Answer::Denied | Answer::Failed)
            || !operation.writes()
            || (matches!(action, Action::Delete { .. }) && !rows_before);
        if nothing {
            return (answer, self.revision);
        }
        if self.bug(Bug::LostWrite, BUG_ONE_IN) {
            self.bucket = was.unwrap_or_default();
            self.planted += 1;
            self.revision += 1;
            return (answer, self.revision);
        }
        if matches!(operation.outcome, Outcome::Refused { .. }) {
            self.planted += 1;
        }
        self.revision += 1;
        self.applied.insert(operation.id, self.revision);
        self.spoil(&operation.action, was, answer)
    }

    fn row_is_there(&mut self, action: &Action) -> bool {
        let Action::Delete { key } = action else { return false };
        let row = self.bucket.step(&Action::Get { key: key.clone() }, 0);
        !matches!(row, Answer::Value { value: None, .. })
    }

    fn old_state(&mut self) -> (Bucket, u64) {
        self.planted += 1;
        self.old.first().cloned().unwrap_or((Bucket::of(self.setup.workload), 9))
    }

    /// Plants what is wrong with an applied write.
    fn spoil(&mut self, action: &Action, was: Option<Bucket>, answer: Answer) -> (Answer, u64) {
        let revision = self.revision;
        if self.bug(Bug::AppliedTwice, BUG_ONE_IN) {
            self.planted += 1;
            self.revision += 1;
            self.bucket.step(action, self.revision);
        }
        if self.bug(Bug::RevisionBack, BUG_ONE_IN) {
            self.planted += 1;
            return (answer, revision - self.rng.u64(1..5));
        }
        if self.bug(Bug::HalfApplied, BUG_ONE_IN)
            && let Some(first) = first_half(action)
        {
            self.planted += 1;
            self.bucket = was.unwrap_or_default();
            self.bucket.step(&first, revision);
        }
        if self.bug(Bug::OldReads, BUG_ONE_IN)
            && let Action::Append { .. } = action
        {
            let (mut old, _) = self.old_state();
            return (old.step(action, 0), revision);
        }
        (answer, revision)
    }

    fn end(&mut self, now: u64, at: usize) {
        let (client, mut next) = (self.operations[at].client, now + 1 + self.rng.u64(0..10));
        let mut follower = client;
        match self.operations[at].outcome {
            Outcome::Done { .. } => {
                let (answer, revision) = self.answers[&at].clone();
                self.learn(client, &self.operations[at].action.clone(), &answer);
                let outcome = Outcome::Done { answer, revision: Some(revision) };
                if let Some(work) = self.works.get_mut(&client) {
                    work.saw(&self.operations[at].action, &outcome);
                }
                self.operations[at].outcome = outcome;
            }
            Outcome::Refused { .. } => next += 5,
            Outcome::Unknown { .. } => {
                self.clients += 1;
                follower = self.clients;
            }
        }
        self.at(next, Event::Begin(follower));
    }

    fn learn(&mut self, client: u64, action: &Action, answer: &Answer) {
        match (action, answer) {
            (Action::Get { key }, Answer::Value { value: Some(value), .. })
            | (Action::Set { key, value }, Answer::Written)
            | (Action::Cas { key, to: value, .. }, Answer::Written) => {
                self.seen.insert((client, key.clone()), value.clone());
            }
            (Action::Acquire { .. }, Answer::Number(token)) => {
                self.tokens.insert(client, *token);
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Simulated {
        if self.setup.resolves {
            // Half of the additions are no scripts, and leave no row.
            let leaves_row = |op: &Operation| {
                !matches!(op.action, Action::Add { .. }) || op.id.is_multiple_of(2)
            };
            for operation in self.operations.iter_mut().filter(|op| leaves_row(op)) {
                if let Outcome::Unknown { resolution, .. } = &mut operation.outcome {
                    let applied = self.applied.get(&operation.id);
                    *resolution =
                        applied.map_or(Resolution::NotApplied, |at| Resolution::Applied(*at));
                }
            }
        }
        self.bury(u64::MAX / 2);
        let mut rows = self.bucket.rows("");
        rows.extend(self.applied.keys().map(|id| (format!("op/{id}"), "1".to_owned())));
        let mut dumps: Vec<Dump> = (1..=3)
            .map(|node| Dump {
                node,
                applied_index: 100,
                digest: "d".to_owned(),
                buckets: vec![(self.setup.workload.to_owned(), rows.clone())],
            })
            .collect();
        if self.setup.bug == Bug::NodeLacksRow {
            let end = rows.iter().filter(|(key, _)| !key.starts_with("op/")).count();
            let lost = self.rng.usize(0..end);
            dumps[1].buckets[0].1.remove(lost);
            self.planted += 1;
        }
        Simulated { operations: self.operations, dumps, planted: self.planted }
    }
}

/// What is left of a script that stopped after its first write.
fn first_half(action: &Action) -> Option<Action> {
    match action {
        Action::Append { steps } => {
            let appends = steps.iter().filter(|step| matches!(step, Micro::Append(..)));
            let first = appends.clone().next()?.clone();
            (appends.count() > 1).then_some(Action::Append { steps: vec![first] })
        }
        Action::Transfer { from, to, amount } if from != to => {
            // Money that leaves and does not arrive: it is put where nobody looks.
            let _ = to;
            Some(Action::Transfer { from: *from, to: ACCOUNTS + 1, amount: *amount })
        }
        _ => None,
    }
}
