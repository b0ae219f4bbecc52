//! The disk against the reference: the same entries to both, any difference is a failure.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::batch::Batch;
use super::{DataDir, State, Tuning};
use crate::error::Result;
use crate::kv::memory::Memory;
use crate::kv::store::View;
use crate::kv::tests::{Machine, run_scripts};
use crate::kv::{self, *};

/// A state on disk that can be closed and opened again. Fields drop in this order.
struct Disk {
    state: Option<State>,
    data: DataDir,
    _root: TempDir,
}

impl Disk {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        Disk { state: Some(State::open(&data, Tuning::default()).unwrap()), data, _root: root }
    }

    fn state(&self) -> &State {
        self.state.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.state().flush().unwrap();
        self.state = None;
        self.state = Some(State::open(&self.data, Tuning::default()).unwrap());
    }

    /// Another disk, filled with something else, that takes this one's checkpoint.
    fn install_elsewhere(&self) -> Self {
        let other = Disk::new();
        let mut batch = other.state().batch();
        kv::record_nodes(&mut batch, [(99, Bytes::from_static(b"of another life"))]).unwrap();
        batch.commit().unwrap();
        other.state().install(self.state().checkpoint().unwrap()).unwrap();
        other
    }
}

fn contents(view: &(impl View + ?Sized), reverse: bool) -> Vec<(Bytes, Bytes)> {
    view.scan(&[0], &[255], reverse).map(|pair| pair.unwrap()).collect()
}

fn assert_same(memory: &Memory, disk: &Disk) {
    let view = disk.state().view();
    assert_eq!(contents(memory, false), contents(&*view, false));
}

/// Both at once, one entry a batch.
struct Mirror {
    memory: Memory,
    disk: Disk,
}

impl Machine for Mirror {
    fn apply(&mut self, term: u64, index: u64, command: &Command) -> Result<Outcome> {
        let expected = kv::apply(&mut self.memory, term, index, command)?;
        let mut batch = self.disk.state().batch();
        assert_eq!(kv::apply(&mut batch, term, index, command)?, expected);
        batch.commit()?;
        assert_same(&self.memory, &self.disk);
        Ok(expected)
    }

    fn record_nodes(&mut self, nodes: Vec<(u64, Bytes)>) -> Result<()> {
        kv::record_nodes(&mut self.memory, nodes.clone())?;
        let mut batch = self.disk.state().batch();
        kv::record_nodes(&mut batch, nodes)?;
        batch.commit()
    }

    fn view(&self) -> SharedView {
        self.disk.state().view()
    }
}

fn mirror() -> Mirror {
    Mirror { memory: Memory::default(), disk: Disk::new() }
}

/// The core's specification holds on disk too.
#[test]
fn core_scripts() {
    for directory in ["apply", "transaction"] {
        run_scripts(directory, mirror);
    }
}

/// Within a batch a meta row is kept decoded: whoever asks for its bytes, or sets them, does not notice.
#[test]
fn a_changed_meta_row_is_its_bytes_too() {
    let disk = Disk::new();
    let (bucket, mut batch) = (BucketId(7), disk.state().batch());
    let meta = |revision| BucketMeta { name: "demo".to_owned(), revision, ..Default::default() };
    let bytes = |revision| Bytes::from(crate::encoding::encode(&meta(revision)).unwrap());
    let key = keyspace::meta_key(bucket);
    for revision in [1, 2] {
        batch.put_meta(bucket, meta(revision)).unwrap();
        assert_eq!(Store::meta(&batch, bucket).unwrap(), Some(meta(revision)));
        assert_eq!(batch.get(&key).unwrap(), Some(bytes(revision)));
    }
    batch.put(key.clone(), bytes(3));
    assert_eq!(Store::meta(&batch, bucket).unwrap(), Some(meta(3)));
    batch.put_meta(bucket, meta(4)).unwrap();
    batch.delete(key.clone());
    assert_eq!(Store::meta(&batch, bucket).unwrap(), None);
    batch.put_meta(bucket, meta(5)).unwrap();
    let (start, end) = keyspace::meta_range();
    batch.delete_range(start, end);
    assert_eq!(batch.get(&key).unwrap(), None);
    batch.put_meta(bucket, meta(6)).unwrap();
    batch.commit().unwrap();
    assert_eq!(disk.state().view().get(&key).unwrap(), Some(bytes(6)));
}

/// Whether an entry's header is what a leader would write.
#[derive(Clone, Copy, Debug)]
enum Header {
    Right,
    WrongHead,
    WrongTerm,
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, Header),
    /// To one of the buckets that ever were, alive or not.
    Write(prop::sample::Index, Vec<(Row, Option<Vec<u8>>)>, Header),
    Drop(prop::sample::Index, Header),
    Nodes(BTreeMap<u64, u8>),
    /// The batch ends here.
    Commit,
    /// The batch is given up, with the entries in it.
    Abandon,
    Reopen,
    Install,
}

fn any_row() -> impl Strategy<Value = Row> {
    let table =
        prop_oneof![8 => Just(Table::Key), 1 => Just(Table::Script), 1 => Just(Table::Policy)];
    let name = prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 255]), 0..3);
    (table, name).prop_map(|(table, name)| Row { table, name: name.into() })
}

fn any_step() -> impl Strategy<Value = Step> {
    let header = || {
        let right = Just(Header::Right);
        prop_oneof![8 => right, 1 => Just(Header::WrongHead), 1 => Just(Header::WrongTerm)]
    };
    let bucket = any::<prop::sample::Index>;
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..4));
    let writes = prop::collection::vec((any_row(), value), 0..6);
    prop_oneof![
        3 => (0..3u8, header()).prop_map(|(name, header)| Step::Create(name, header)),
        12 => (bucket(), writes, header()).prop_map(|(b, w, header)| Step::Write(b, w, header)),
        2 => (bucket(), header()).prop_map(|(bucket, header)| Step::Drop(bucket, header)),
        1 => prop::collection::btree_map(0..4u64, any::<u8>(), 0..3).prop_map(Step::Nodes),
        4 => Just(Step::Commit),
        1 => Just(Step::Abandon),
        1 => Just(Step::Reopen),
        1 => Just(Step::Install),
    ]
}

/// Entries to the reference at once, and to the disk in batches.
struct Pair {
    memory: Memory,
    committed: Memory,
    disk: Disk,
    batch: Option<Batch>,
    index: u64,
    buckets: Vec<BucketId>,
}

impl Pair {
    fn new() -> Self {
        let (memory, committed) = (Memory::default(), Memory::default());
        let buckets = vec![BucketId(999)];
        Pair { memory, committed, disk: Disk::new(), batch: None, index: 0, buckets }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Create(name, header) => {
                let name = BucketName::parse(&format!("bucket-{name}")).unwrap();
                // A leader refuses a name that is taken.
                if store::bucket_id(&self.memory, &name).unwrap().is_none() {
                    let effect = Effect::CreateBucket { name, rows: vec![], directory: vec![] };
                    self.apply(DIRECTORY, effect, header);
                }
            }
            Step::Write(bucket, writes, header) => {
                let write = |(row, value): (Row, Option<Vec<u8>>)| Write {
                    row,
                    value: value.map(Bytes::from),
                };
                let effect = Effect::Write(writes.into_iter().map(write).collect());
                self.apply(*bucket.get(&self.buckets), effect, header);
            }
            Step::Drop(bucket, header) => {
                self.apply(
                    *bucket.get(&self.buckets),
                    Effect::DeleteBucket { directory: vec![] },
                    header,
                );
            }
            Step::Nodes(nodes) => {
                let nodes: Vec<_> =
                    nodes.into_iter().map(|(id, byte)| (id, vec![byte].into())).collect();
                kv::record_nodes(&mut self.memory, nodes.clone()).unwrap();
                kv::record_nodes(self.batch(), nodes).unwrap();
            }
            Step::Commit => self.commit(),
            Step::Abandon => {
                self.batch = None;
                self.memory = self.committed.clone();
            }
            Step::Reopen => {
                self.commit();
                self.disk.reopen();
            }
            Step::Install => {
                self.commit();
                self.disk = self.disk.install_elsewhere();
            }
        }
        if self.batch.is_none() {
            let view = self.disk.state().view();
            assert_same(&self.memory, &self.disk);
            assert_eq!(contents(&self.memory, true), contents(&*view, true));
            store::verify(&*view).unwrap();
        }
    }

    fn batch(&mut self) -> &mut Batch {
        let state = self.disk.state();
        self.batch.get_or_insert_with(|| state.batch())
    }

    fn apply(&mut self, bucket: BucketId, effect: Effect, header: Header) {
        self.index += 1;
        let (index, term) = (self.index, 1);
        let head = store::meta(&self.memory, bucket).unwrap().unwrap_or_default().head;
        let (prev, id_term) = match header {
            Header::Right => (head, term),
            Header::WrongHead => (CommandId { term: 7, seq: 7 }, term),
            Header::WrongTerm => (head, term + 1),
        };
        let id = CommandId { term: id_term, seq: index };
        let command = Command { bucket, prev, id, now: index % 5, seed: 0, effect };
        let outcome = kv::apply(&mut self.memory, term, index, &command).unwrap();
        assert_eq!(kv::apply(self.batch(), term, index, &command).unwrap(), outcome);
        let right = matches!(header, Header::Right);
        assert!(right || outcome == Outcome::Conflict, "{command:?}");
        if bucket == DIRECTORY && right {
            assert_eq!(outcome, Outcome::Applied { revision: index });
            self.buckets.push(BucketId(index));
        }
    }

    fn commit(&mut self) {
        if let Some(batch) = self.batch.take() {
            batch.commit().unwrap();
            self.committed = self.memory.clone();
        }
    }
}

proptest! {
    // Each case opens databases: few cases, many steps.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn disk_is_memory(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
        pair.step(Step::Reopen);
    }
}
