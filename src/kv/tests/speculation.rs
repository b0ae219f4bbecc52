//! Speculation against its model: whatever is proposed ahead of the state, lost, delayed or run
//! again, the result is that of one transaction after the other, in the order of the log.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const BUCKET: BucketId = BucketId(1);
const KEYS: u8 = 4;

/// What a transaction does: each step reads something and writes what depends on it.
#[derive(Clone, Debug)]
enum Step {
    /// Adds to a counter.
    Add(u8, i64),
    /// Writes one key's value and version into another.
    Copy(u8, u8),
    Delete(u8),
    /// Writes all keys, values and versions of a range into a key: what phantoms would change.
    Digest {
        from: u8,
        reverse: bool,
        into: u8,
    },
    /// Forgets what was written so far.
    Discard,
}

#[derive(Clone, Debug)]
struct Program {
    now: u64,
    steps: Vec<Step>,
}

/// What happens beside the transactions.
#[derive(Clone, Debug)]
enum Event {
    /// The next waiting program is executed and proposed.
    Execute,
    /// This many entries are applied.
    Apply(usize),
    /// The leader looks at the state anew.
    Look,
    /// One of the proposals never becomes an entry, and the leader hears of it.
    Lose(prop::sample::Index),
    /// All from one of the proposals on never become entries.
    LoseFrom(prop::sample::Index),
    /// Another leader's command comes next in the log.
    Foreign(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    prop_oneof![
        3 => (key(), -3..4i64).prop_map(|(key, by)| Step::Add(key, by)),
        2 => (key(), key()).prop_map(|(from, to)| Step::Copy(from, to)),
        2 => key().prop_map(Step::Delete),
        2 => (key(), any::<bool>(), key())
            .prop_map(|(from, reverse, into)| Step::Digest { from, reverse, into }),
        1 => Just(Step::Discard),
    ]
}

fn any_program() -> impl Strategy<Value = Program> {
    (0..100u64, prop::collection::vec(any_step(), 0..5))
        .prop_map(|(now, steps)| Program { now, steps })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Execute),
        4 => (1..4usize).prop_map(Event::Apply),
        4 => Just(Event::Look),
        1 => any::<prop::sample::Index>().prop_map(Event::Lose),
        1 => any::<prop::sample::Index>().prop_map(Event::LoseFrom),
        1 => (0..KEYS).prop_map(Event::Foreign),
    ]
}

fn key(number: u8) -> Key {
    Key::parse(vec![b'a' + number]).unwrap()
}

/// Runs a program; the text is what its caller would be told.
fn execute(txn: &mut Transaction, program: &Program) -> String {
    let mut told = format!("{} {}", txn.now(), txn.revision());
    for step in &program.steps {
        match step {
            Step::Add(at, by) => {
                let old = txn.get(&key(*at)).unwrap();
                let sum = old.map_or(0, |record| crc32fast::hash(&record.value).into()) + by;
                txn.set(&key(*at), sum.to_string().into(), None, Lifetime::Unlimited).unwrap();
                told += &format!(" {sum}");
            }
            Step::Copy(from, to) => {
                let text = format!("{:?}", txn.get(&key(*from)).unwrap());
                txn.set(&key(*to), text.clone().into(), None, Lifetime::Unlimited).unwrap();
                told += &text;
            }
            Step::Delete(at) => told += &format!(" {}", txn.delete(&key(*at)).unwrap()),
            Step::Digest { from, reverse, into } => {
                let start = Some(key(*from).bytes().clone());
                let range = ListRange { start, reverse: *reverse, ..ListRange::default() };
                let text = format!("{:?}", txn.list(&range, 3).unwrap());
                let digest = crc32fast::hash(text.as_bytes()).to_string();
                txn.set(&key(*into), digest.into(), None, Lifetime::Unlimited).unwrap();
                told += &text;
            }
            Step::Discard => txn.discard(),
        }
    }
    told
}

/// A proposal in flight.
struct Proposal {
    program: Program,
    command: Command,
    told: String,
    /// Which life of the overlay it stands on.
    life: u64,
}

/// A leader that runs ahead, and remembers what came out in the order of the log.
struct Speculator {
    state: Memory,
    view: SharedView,
    overlay: Overlay,
    life: u64,
    seq: u64,
    index: u64,
    waiting: VecDeque<Program>,
    log: VecDeque<Proposal>,
    committed: Vec<(Program, String)>,
}

fn new_state() -> Memory {
    let mut state = Memory::default();
    let name = BucketName::parse("b").unwrap();
    let command = Command {
        bucket: DIRECTORY,
        prev: CommandId::default(),
        id: CommandId { term: 1, seq: 1 },
        now: 10,
        seed: 0,
        effect: Effect::CreateBucket { name, rows: vec![], directory: vec![] },
    };
    apply(&mut state, 1, BUCKET.0, &command).unwrap();
    state
}

impl Speculator {
    fn new(waiting: Vec<Program>) -> Self {
        let state = new_state();
        Speculator {
            view: Arc::new(state.clone()),
            state,
            overlay: Overlay::default(),
            life: 0,
            seq: 1,
            index: 1,
            waiting: waiting.into(),
            log: VecDeque::new(),
            committed: Vec::new(),
        }
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Execute => self.execute_next(),
            Event::Apply(count) => (0..*count).for_each(|_| self.apply_next()),
            Event::Look => self.view = Arc::new(self.state.clone()),
            Event::Lose(index) if !self.log.is_empty() => {
                let lost = self.log.remove(index.index(self.log.len())).unwrap();
                self.failed(lost);
            }
            Event::LoseFrom(index) if !self.log.is_empty() => {
                for lost in self.log.split_off(index.index(self.log.len())) {
                    self.failed(lost);
                }
            }
            Event::Lose(_) | Event::LoseFrom(_) => {}
            Event::Foreign(at) => {
                let program = Program { now: 0, steps: vec![Step::Add(*at, 1000)] };
                let overlay = Overlay::default();
                let view: SharedView = Arc::new(self.state.clone());
                let (command, told, _) = self.run(view, overlay, &program);
                self.change(&command).unwrap();
                self.committed.push((program, told));
            }
        }
    }

    fn execute_next(&mut self) {
        let Some(program) = self.waiting.pop_front() else { return };
        let overlay = std::mem::take(&mut self.overlay);
        let (command, told, overlay) = self.run(Arc::clone(&self.view), overlay, &program);
        self.overlay = overlay;
        self.log.push_back(Proposal { program, command, told, life: self.life });
    }

    fn run(
        &mut self,
        view: SharedView,
        mut overlay: Overlay,
        program: &Program,
    ) -> (Command, String, Overlay) {
        overlay.trim(&store::meta(&*view, BUCKET).unwrap().unwrap());
        let mut txn = Transaction::new(view, BUCKET, overlay, program.now);
        let told = execute(&mut txn, program);
        let now = txn.now();
        let (mut overlay, writes, delta) = txn.finish();
        self.seq += 1;
        let (prev, id) = (overlay.head(), CommandId { term: 1, seq: self.seq });
        overlay.push(id, now, &writes, delta);
        let effect = Effect::Write(writes);
        (Command { bucket: BUCKET, prev, id, now, seed: 0, effect }, told, overlay)
    }

    fn apply_next(&mut self) {
        let Some(proposal) = self.log.pop_front() else { return };
        match self.change(&proposal.command) {
            Some(_) => self.committed.push((proposal.program, proposal.told)),
            None => self.failed(proposal),
        }
    }

    fn change(&mut self, command: &Command) -> Option<u64> {
        self.index += 1;
        let outcome = apply(&mut self.state, 1, self.index, command).unwrap();
        store::verify(&self.state).unwrap();
        match outcome {
            Outcome::Applied { revision } => Some(revision),
            Outcome::Conflict => None,
        }
    }

    /// A program whose proposal came to nothing runs again, and what was built on it is void.
    fn failed(&mut self, proposal: Proposal) {
        if proposal.life == self.life {
            self.overlay = Overlay::default();
            self.life += 1;
        }
        self.waiting.push_back(proposal.program);
    }

    fn finish(&mut self) {
        while !self.waiting.is_empty() || !self.log.is_empty() {
            self.view = Arc::new(self.state.clone());
            self.execute_next();
            self.apply_next();
        }
    }
}

/// One transaction after the other, each applied before the next begins.
fn one_by_one(programs: &[Program]) -> (Memory, Vec<String>) {
    let mut leader = Speculator::new(Vec::new());
    let mut told = Vec::new();
    for program in programs {
        let view: SharedView = Arc::new(leader.state.clone());
        let (command, answer, _) = leader.run(view, Overlay::default(), program);
        leader.change(&command).expect("nothing came between");
        told.push(answer);
    }
    (leader.state, told)
}

/// Everything but who wrote last: command ids count the attempts, too.
fn contents(state: &Memory) -> (BucketMeta, Vec<(Bytes, Bytes)>) {
    let mut meta = store::meta(state, BUCKET).unwrap().unwrap();
    meta.head = CommandId::default();
    let (start, end) = (keyspace::rows_start(BUCKET), keyspace::rows_end(BUCKET));
    (meta, state.scan(&start, &end, false).map(|pair| pair.unwrap()).collect())
}

proptest! {
    #[test]
    fn speculation_is_one_by_one(
        programs in prop::collection::vec(any_program(), 1..20),
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let count = programs.len();
        let mut leader = Speculator::new(programs);
        for event in &events {
            leader.handle(event);
        }
        leader.finish();
        let foreign = events.iter().filter(|event| matches!(event, Event::Foreign(_))).count();
        prop_assert_eq!(leader.committed.len(), count + foreign, "each exactly once");
        let (programs, told): (Vec<_>, Vec<_>) = leader.committed.into_iter().unzip();
        let (state, expected) = one_by_one(&programs);
        prop_assert_eq!(told, expected);
        prop_assert_eq!(contents(&leader.state), contents(&state));
    }

    /// Without losses and strangers nothing conflicts, however far the state lags behind.
    #[test]
    fn speculation_alone_never_conflicts(
        programs in prop::collection::vec(any_program(), 1..20),
        lags in prop::collection::vec((0..3usize, any::<bool>()), 20),
    ) {
        let mut leader = Speculator::new(programs.clone());
        for (applied, look) in lags {
            leader.execute_next();
            (0..applied).for_each(|_| leader.apply_next());
            if look {
                leader.handle(&Event::Look);
            }
        }
        leader.finish();
        prop_assert_eq!(leader.life, 0, "nothing failed");
        let (state, _) = one_by_one(&programs);
        prop_assert_eq!(contents(&leader.state), contents(&state));
    }
}
