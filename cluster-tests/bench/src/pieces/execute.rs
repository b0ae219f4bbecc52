//! What a leader does ahead of the log, and what a read is once it may take its view.

use std::hint::black_box;
use std::sync::Arc;

use kvdb::encoding;
use kvdb::error::Result;
use kvdb::kv::{
    BucketMeta, BucketName, Condition, Credential, Key, Lifetime, Operation, Overlay, Permission,
    SharedView, Transaction, grant, store, transaction,
};

use super::Running;
use super::fixture::{self, BATCH, BUCKET, NOW};

/// A bucket's turn: jobs run on top of each other over one view, until all are known to be applied.
struct Turn {
    view: SharedView,
    overlay: Overlay,
    applied: BucketMeta,
}

impl Turn {
    fn new() -> Result<Self> {
        let memory = fixture::memory()?;
        let mut overlay = Overlay::default();
        let applied = fixture::meta(&memory)?;
        overlay.trim(&applied);
        Ok(Turn { view: Arc::new(memory), overlay, applied })
    }

    /// Runs as many jobs as a turn has; what they wrote is in flight for those after them.
    fn run(&mut self, job: impl Fn(usize, &mut Transaction) -> Result<()>, encoded: bool) {
        for number in 0..BATCH {
            let overlay = std::mem::take(&mut self.overlay);
            let mut txn = Transaction::new(Arc::clone(&self.view), BUCKET, overlay, NOW);
            job(number, &mut txn).expect("the job is sound");
            let (mut overlay, writes, delta) = txn.finish();
            let id = fixture::command_id(number);
            if encoded {
                let command = fixture::command(number, overlay.head(), writes.clone());
                black_box(encoding::encode(&command).expect("it is small"));
            }
            overlay.push(id, NOW, &writes, delta);
            self.overlay = overlay;
        }
        self.applied.head = self.overlay.head();
        self.overlay.trim(&self.applied);
    }
}

pub(super) fn put() -> Result<Running> {
    let operation = |number| {
        Ok(Operation::Set {
            key: fixture::key(number * 13)?,
            value: fixture::value(),
            content_type: None,
            lifetime: Lifetime::Default,
            condition: Condition::Any,
        })
    };
    let operations: Vec<Operation> = (0..BATCH).map(operation).collect::<Result<_>>()?;
    let mut turn = Turn::new()?;
    Ok(Running::new(move || {
        let job = |number: usize, txn: &mut Transaction| {
            let operation = operations.get(number).expect("one for each job");
            operation.run(txn, &Credential::NONE, 0).map(drop)
        };
        turn.run(job, true);
    }))
}

pub(super) fn overlay() -> Result<Running> {
    let keys: Vec<Key> = (0..=BATCH).map(fixture::account).collect::<Result<_>>()?;
    let mut turn = Turn::new()?;
    Ok(Running::new(move || {
        // Each job meets a key that the one before it wrote, and one that nobody did.
        let job = |number: usize, txn: &mut Transaction| {
            for key in keys.iter().skip(number).take(2) {
                let value = txn.get(key)?.map(|record| record.value).unwrap_or_default();
                txn.set(key, value, None, Lifetime::Unlimited)?;
            }
            Ok(())
        };
        turn.run(job, false);
    }))
}

pub(super) fn read_key() -> Result<Running> {
    let (disk, name, key) =
        (fixture::disk()?, BucketName::parse(fixture::NAME)?, fixture::key(500)?);
    let read = move || -> Result<()> {
        let view = disk.state.view();
        let bucket = store::bucket_id(&*view, &name)?.unwrap_or_default();
        let txn = transaction::read_only(view, bucket, NOW)?;
        let mut txn = txn.expect("the bucket is there");
        grant(&mut txn, &Credential::NONE)?.check(Permission::Read, key.bytes())?;
        black_box(txn.get(&key)?.expect("the key is there"));
        Ok(())
    };
    Ok(Running::new(move || read().expect("the disk is sound")))
}
