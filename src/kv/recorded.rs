//! Exactly once: answers recorded under an `Idempotency-Key`, in the entry that has their effects.
//!
//! A record is a row of the bucket: the digest of the request and of who asked, and the whole answer. A
//! repeat finds it in the state that it runs on, under whichever leader, and is answered from it; another
//! request under the same key is refused. Only what was completed is recorded: a call that was refused
//! may be tried again. A record dies as keys do; where a bucket has too many, new keys are refused, and no
//! record goes before its time. Those of creating and deleting a bucket are rows of the directory.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::command::Write;
use super::keyspace::Row;
use super::limits::{IDEMPOTENCY_KEY_BYTES_MAX, RECORDED_BYTES_MAX, RECORDED_MAX};
use super::operation::Answer;
use super::policy::Credential;
use super::transaction::Transaction;
use crate::encoding;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// A call that is to happen once.
#[derive(Clone, PartialEq, Eq)]
pub struct Once {
    name: Vec<u8>,
    /// A digest of the request and of who asks.
    digest: [u8; 32],
}

// The digest is made of a credential: not shown.
impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Once(…)")
    }
}

impl Once {
    /// A call under a key; `request` is a digest of all that it asks for.
    pub fn new(key: &[u8], request: [u8; 32], credential: &Credential) -> Result<Self> {
        let visible = key.iter().all(|byte| matches!(byte, b'!'..=b'~'));
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !visible {
            return Err(Error::invalid(format!(
                "an Idempotency-Key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes of visible ASCII"
            )));
        }
        let mut hash = Sha256::new_with_prefix(request);
        // A stranger and an empty key are two.
        hash.update([u8::from(credential.secret().is_some())]);
        hash.update(credential.secret().unwrap_or_default());
        Ok(Once { name: key.to_vec(), digest: hash.finalize().into() })
    }

    /// The same call as a row of the directory: that it is about one bucket is part of its key.
    #[must_use]
    pub fn within(&self, what: &str) -> Self {
        let name = [what.as_bytes(), &[0], &self.name].concat();
        Once { name, digest: self.digest }
    }

    fn row(&self) -> Row {
        Row::recorded(self.name.clone())
    }
}

#[derive(Serialize, Deserialize)]
struct Recorded {
    digest: [u8; 32],
    expires_at: u64,
    answer: Answer,
}

/// The answer that was given before, if there is one.
pub fn find(txn: &mut Transaction, once: &Once) -> Result<Option<Answer>> {
    let row = txn.row(&once.row())?;
    answer(txn, once, row)
}

/// The answer that the deletion of an earlier life of the bucket was given; of the directory.
pub fn find_deletion(txn: &mut Transaction, once: &Once) -> Result<Option<Answer>> {
    let row = txn.directory_row(&once.row())?;
    answer(txn, once, row)
}

fn answer(txn: &mut Transaction, once: &Once, row: Option<Bytes>) -> Result<Option<Answer>> {
    let Some(bytes) = row else { return Ok(None) };
    let Recorded { digest, expires_at, answer } = encoding::decode("recorded answer", &bytes)?;
    if !txn.is_alive(Some(expires_at)) || mutant::strikes(Mutant::RecordForgotten, 20) {
        return Ok(None);
    }
    if digest != once.digest {
        return Err(Error::IdempotencyMismatch);
    }
    Ok(Some(Answer { replayed: true, ..answer }))
}

/// When a record dies.
pub(super) fn expires_at(row: &[u8]) -> Result<u64> {
    Ok(encoding::decode::<Recorded>("recorded answer", row)?.expires_at)
}

/// Fails where there is no room for another record.
pub fn check_room(txn: &Transaction) -> Result<()> {
    let counts = txn.counts();
    if counts.recorded < RECORDED_MAX && counts.recorded_bytes < RECORDED_BYTES_MAX {
        return Ok(());
    }
    Err(Error::IdempotencyFull)
}

/// The rows of a record where nothing is read of what was there: for the directory, when a bucket goes.
pub fn rows(once: &Once, answer: &Answer, now: u64, seconds: u64) -> Result<Vec<Write>> {
    let row = once.row();
    let expires_at = now.saturating_add(seconds.saturating_mul(1000));
    let recorded = Recorded { digest: once.digest, expires_at, answer: answer.clone() };
    let expiry = Write { row: Row::expiry(expires_at, &row), value: Some(Bytes::new()) };
    Ok(vec![expiry, Write { row, value: Some(encoding::encode(&recorded)?.into()) }])
}

/// Records an answer for so many seconds.
pub fn keep(txn: &mut Transaction, once: &Once, answer: &Answer, seconds: u64) -> Result<()> {
    let row = once.row();
    let expires_at = txn.now().saturating_add(seconds.saturating_mul(1000));
    // One that is over and not swept yet lies under another time.
    let old: Option<Recorded> = match txn.row(&row)? {
        Some(bytes) => Some(encoding::decode("recorded answer", &bytes)?),
        None => None,
    };
    txn.move_expiry(&row, old.map(|old| old.expires_at), Some(expires_at))?;
    let recorded = Recorded { digest: once.digest, expires_at, answer: answer.clone() };
    txn.put_row(row, Some(encoding::encode(&recorded)?.into()))
}
