//! openraft's own suite, crashes, torn tails, damage, and how many syncs a batch costs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::StreamExt;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::OneshotReceiverOf;
use raft_log::codeq::Decode;
use raft_log::{RaftLogRecord, WALRecord};
use tempfile::TempDir;

use super::*;
use crate::raft::testing::Machine;
use crate::raft::types::{EntryPayload, Membership, Payload, Peer, log_id};

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn command(term: u64, index: u64, bytes: Vec<u8>) -> Entry {
    let payload = EntryPayload::Normal(Payload(Bytes::from(bytes)));
    Entry { log_id: log_id(term, index), payload }
}

/// Entries of term 1 whose commands are their indexes.
fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| command(1, index, index.to_be_bytes().to_vec())).collect()
}

async fn start(
    store: &mut LogStore,
    entries: Vec<Entry>,
) -> OneshotReceiverOf<TypeConfig, io::Result<()>> {
    let (send, done) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(send)).await.unwrap();
    done
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    start(store, entries).await.await.unwrap().unwrap();
}

/// Waits until the mark behind the last sync is written.
fn settle(store: &LogStore) {
    while !store.read(|log| Ok(log.marked && !log.flushing)).unwrap() {
        thread::yield_now();
    }
    store.read(|log| log.raft.wait_worker_idle()).unwrap();
}

/// The files as a power cut at this moment leaves them, at worst: what is noted as synced was not
/// written back.
fn crash_image(from: &Path) -> TempDir {
    let image = dir();
    Synced::open(image.path()).unwrap();
    fs::create_dir(image.path().join(FILES)).unwrap();
    for file in chunks(from) {
        fs::copy(&file, image.path().join(FILES).join(file.file_name().unwrap())).unwrap();
    }
    image
}

/// As if what was noted as synced had not been written back.
fn forget_note(dir: &Path) {
    Synced::open(dir).unwrap().0.note(0).unwrap();
}

fn chunks(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join(FILES)).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension() == Some("wal".as_ref())).collect();
    files.sort();
    files
}

/// The only file of a small log.
fn chunk(dir: &Path) -> PathBuf {
    let [chunk] = chunks(dir).try_into().unwrap();
    chunk
}

async fn all(store: &mut LogStore) -> Vec<Entry> {
    store.try_get_log_entries(..).await.unwrap()
}

fn is_corrupt(opened: Result<LogStore>) -> bool {
    matches!(opened.map(drop), Err(Error::Corrupt { what: WHAT, .. }))
}

// openraft's suite

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Stores {
    async fn build(
        &self,
    ) -> std::result::Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = dir();
        let store = LogStore::open(dir.path()).unwrap();
        Ok((dir, store, Machine::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Stores).await.unwrap();
}

// What is on disk

#[tokio::test]
async fn acknowledged_entries_and_votes_survive_a_crash() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    assert!(store.is_empty().unwrap());
    let vote = Vote::new_committed(1, 7);
    store.save_vote(&vote).await.unwrap();
    append(&mut store, entries(0..3)).await;
    append(&mut store, entries(3..5)).await;

    let image = crash_image(dir.path());
    let mut survivor = LogStore::open(image.path()).unwrap();
    assert!(!survivor.is_empty().unwrap());
    assert_eq!(survivor.read_vote().await.unwrap(), Some(vote));
    assert_eq!(all(&mut survivor).await, entries(0..5));
}

#[tokio::test]
async fn every_kind_of_entry_survives_reopening() {
    let dir = dir();
    let peer = Peer { peer_addr: "a:1".into(), url: "http://a".into(), instance: "i".into() };
    let membership = Membership::new(vec![[1].into()], BTreeMap::from([(1, peer)])).unwrap();
    let written = vec![
        Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(membership) },
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank },
        command(2, 2, vec![]),
        command(2, 3, vec![7; 100_000]),
    ];
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, written.clone()).await;
    drop(store);
    let mut store = LogStore::open(dir.path()).unwrap();
    assert_eq!(all(&mut store).await, written);
}

#[tokio::test]
async fn committed_position_rides_along_and_never_fails() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..3)).await;
    store.save_committed(Some(log_id(1, 1))).await.unwrap();
    // Beyond the end, behind what is known, and none: openraft may say any of them.
    store.save_committed(Some(log_id(1, 9))).await.unwrap();
    store.save_committed(Some(log_id(1, 0))).await.unwrap();
    store.save_committed(None).await.unwrap();
    append(&mut store, entries(3..4)).await;
    let mut survivor = LogStore::open(crash_image(dir.path()).path()).unwrap();
    assert_eq!(survivor.read_committed().await.unwrap(), Some(log_id(1, 1)));
}

#[tokio::test]
async fn truncated_entries_are_replaced_also_after_a_crash() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..5)).await;
    store.truncate_after(Some(log_id(1, 9))).await.unwrap();
    assert_eq!(all(&mut store).await, entries(0..5), "past the end");
    store.truncate_after(Some(log_id(1, 1))).await.unwrap();
    append(&mut store, vec![command(2, 2, vec![2])]).await;

    let expected = [entries(0..2), vec![command(2, 2, vec![2])]].concat();
    assert_eq!(all(&mut store).await, expected);
    let image = crash_image(dir.path());
    assert_eq!(all(&mut LogStore::open(image.path()).unwrap()).await, expected);
}

#[tokio::test]
async fn purging_deletes_files_and_may_go_past_the_end() {
    let dir = dir();
    let options = Options { chunk_bytes: 1 << 10, ..Options::default() };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    for index in 0..100 {
        append(&mut store, vec![command(1, index, vec![0; 100])]).await;
    }
    let before = chunks(dir.path()).len();
    assert!(before > 10, "{before} files");
    store.purge(log_id(1, 89)).await.unwrap();
    append(&mut store, vec![command(1, 100, vec![])]).await;
    settle(&store);
    assert!(chunks(dir.path()).len() < before / 2);
    assert_eq!(all(&mut store).await.len(), 11);
    assert_eq!(store.limited_get_log_entries(80, 95).await.unwrap(), [], "behind a gap");

    store.purge(log_id(3, 500)).await.unwrap();
    append(&mut store, vec![command(3, 501, vec![])]).await;
    drop(store);
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(3, 500)));
    assert_eq!(state.last_log_id, Some(log_id(3, 501)));
}

#[tokio::test]
async fn open_log_is_locked_and_closes_with_its_last_handle() {
    let dir = dir();
    let store = LogStore::open(dir.path()).unwrap();
    let clone = store.clone();
    drop(store);
    let second = LogStore::open(dir.path()).map(drop);
    assert!(matches!(&second, Err(Error::Io(message)) if message.contains("locked")), "{second:?}");
    drop(clone);
    LogStore::open(dir.path()).unwrap();
}

// Reading

#[tokio::test]
async fn reads_are_bounded_in_bytes_and_never_empty() {
    let dir = dir();
    let options = Options { read_bytes: 1 << 10, chunk_bytes: 4 << 10, cache_bytes: 2 << 10 };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    let written: Vec<_> = (0..50).map(|index| command(1, index, vec![index as u8; 400])).collect();
    append(&mut store, written.clone()).await;
    append(&mut store, vec![command(1, 50, vec![1; 5_000])]).await;
    // A read of entries long out of the cache, so from the files.
    let read = store.limited_get_log_entries(3, 50).await.unwrap();
    assert_eq!(read.as_slice(), written.get(3..5).unwrap());
    assert_eq!(store.limited_get_log_entries(50, 51).await.unwrap().len(), 1, "over the bound");
    let stream = store.entries_stream(2..=49).await;
    let read: Vec<_> = stream.map(std::result::Result::unwrap).collect().await;
    assert_eq!(read.as_slice(), written.get(2..).unwrap());
}

// Group commit

#[tokio::test]
async fn concurrent_appends_share_syncs() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    let before = store.fsyncs();
    let mut waiting = Vec::new();
    for index in 0..2_000 {
        waiting.push(start(&mut store, entries(index..index + 1)).await);
    }
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    let fsyncs = store.fsyncs() - before;
    assert!(fsyncs <= 500, "{fsyncs} syncs for 2000 appends");
    assert_eq!(store.appended_entries(), 2_000);
    let image = crash_image(dir.path());
    assert_eq!(all(&mut LogStore::open(image.path()).unwrap()).await, entries(0..2_000));
}

#[tokio::test]
async fn vote_behind_many_appends_is_on_disk_when_saved() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    for index in 0..100 {
        drop(start(&mut store, entries(index..index + 1)).await);
    }
    store.save_vote(&Vote::new(9, 1)).await.unwrap();
    let mut survivor = LogStore::open(crash_image(dir.path()).path()).unwrap();
    assert_eq!(survivor.read_vote().await.unwrap(), Some(Vote::new(9, 1)));
    assert_eq!(all(&mut survivor).await, entries(0..100), "nothing overtakes");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_completes_what_waits() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    let mut waiting = Vec::new();
    for index in 0..50 {
        waiting.push(start(&mut store, entries(index..index + 1)).await);
    }
    drop(store);
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    assert_eq!(all(&mut LogStore::open(dir.path()).unwrap()).await, entries(0..50));
}

#[test]
fn dropped_flush_fails_who_waits() {
    let (send, receive) = TypeConfig::oneshot();
    let (done, flushes) = mpsc::channel();
    let dir = dir();
    let (synced, _) = Synced::open(dir.path()).unwrap();
    drop(Flush::new(vec![IOFlushed::signal(send)], (synced, 7), done, Arc::default()));
    assert_eq!(Synced::open(dir.path()).unwrap().1, 0, "nothing was synced");
    assert!(futures::executor::block_on(receive).unwrap().is_err());
    assert_eq!(flushes.iter().count(), 1);
}

// Torn tails and damage

/// A log of three batches, idle, as a crash leaves it.
async fn small_log() -> (TempDir, Vec<u8>) {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    for batch in [0..2, 2..4, 4..5] {
        append(&mut store, entries(batch)).await;
    }
    settle(&store);
    let image = crash_image(dir.path());
    let bytes = fs::read(chunk(image.path())).unwrap();
    (image, bytes)
}

#[tokio::test]
async fn torn_tail_of_any_bytes_is_cut() {
    let (image, bytes) = small_log().await;
    let path = chunk(image.path());
    let noise: Vec<u8> =
        (0..5_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // Zeros, noise, a record that promises more than there is, noise that begins like a state.
    let short = [[0, 0, 0, 1].as_slice(), &[0; 20]].concat();
    let state = [[0, 0, 0, 5, 1].as_slice(), &noise].concat();
    for tail in [&[0; 4_096], noise.as_slice(), &short, &state] {
        fs::write(&path, [&bytes, tail].concat()).unwrap();
        forget_note(image.path());
        let mut store = LogStore::open(image.path()).unwrap();
        assert_eq!(all(&mut store).await, entries(0..5));
        append(&mut store, entries(5..6)).await;
        drop(store);
        let mut store = LogStore::open(image.path()).unwrap();
        assert_eq!(all(&mut store).await, entries(0..6), "the log goes on behind the cut");
    }
}

/// Pages of one write reach the disk in any order: its first record may be missing and its second
/// there. The batch was never synced, so the log must open.
#[tokio::test]
async fn torn_batch_with_whole_records_behind_the_hole_is_cut() {
    let (image, before) = small_log().await;
    let mut store = LogStore::open(image.path()).unwrap();
    append(&mut store, entries(5..9)).await;
    let last = crash_image(image.path());
    drop(store);
    let path = chunk(last.path());
    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.len();
    // As if the idle mark behind the batch had not been written, which it may have been.
    let batch = records(&bytes, 0).into_iter().filter(|(at, _)| *at >= before.len());
    let appended: Vec<_> = batch.filter(|(_, record)| record.is_none()).collect();
    let (first, second) = (appended.first().unwrap().0, appended.get(1).unwrap().0);
    bytes.get_mut(first..second).unwrap().fill(0);
    let end = records(&fs::read(&path).unwrap(), 0)
        .into_iter()
        .find(|(at, mark)| *at > second && mark.is_some())
        .map_or(whole, |(at, _)| at);
    bytes.truncate(end);
    fs::write(&path, &bytes).unwrap();
    let mut store = LogStore::open(last.path()).unwrap();
    assert_eq!(all(&mut store).await, entries(0..5));
}

/// Positions of records in a file, and what those say that are marks.
fn records(bytes: &[u8], start: u64) -> Vec<(usize, Option<u64>)> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let mark = match RaftLogRecord::<Records>::decode(&mut rest).unwrap() {
            WALRecord::Checkpoint(state) => state.user_data.map(|Mark(mark)| mark),
            WALRecord::Action(_) => None,
        };
        found.push((at, mark.filter(|mark| *mark == start + at as u64)));
    }
    found
}

#[tokio::test]
async fn marks_name_their_position_across_files() {
    let dir = dir();
    let options = Options { chunk_bytes: 700, ..Options::default() };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    for index in 0..40 {
        append(&mut store, entries(index..index + 1)).await;
    }
    settle(&store);
    let mut start = 0;
    let mut marks = 0;
    for path in chunks(dir.path()) {
        let bytes = fs::read(path).unwrap();
        marks += records(&bytes, start).iter().filter(|(_, mark)| mark.is_some()).count();
        start += bytes.len() as u64;
    }
    assert!(marks >= 40, "{marks} marks for 40 batches");
}

/// Flips each bit of a log in which all is acknowledged. Either the log refuses to open, or nothing
/// acknowledged is missing: that is the mark at the end, which nobody waited for.
#[tokio::test]
async fn flipped_bit_is_refused_or_costs_nothing() {
    let (image, bytes) = small_log().await;
    let path = chunk(image.path());
    let last_mark = records(&bytes, 0).last().unwrap().0;
    for bit in (0..bytes.len() * 8).step_by(5) {
        let mut damaged = bytes.clone();
        *damaged.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        forget_note(image.path());
        let opened = LogStore::open(image.path());
        if bit / 8 < last_mark {
            assert!(is_corrupt(opened), "bit {bit}");
            assert_eq!(fs::read(&path).unwrap(), damaged, "bit {bit}: refused and left alone");
        } else {
            assert_eq!(all(&mut opened.unwrap()).await, entries(0..5), "bit {bit}");
        }
    }
}

/// raft-log alone takes a length that reaches past the end for a torn tail and cuts it.
#[tokio::test]
async fn flipped_length_in_the_middle_is_refused() {
    let (image, bytes) = small_log().await;
    let path = chunk(image.path());
    let is_append = |at: &usize| bytes.get(*at..at + 4).unwrap() == [0, 0, 0, 1];
    let first = records(&bytes, 0).into_iter().map(|(at, _)| at).find(is_append).unwrap();
    let mut damaged = bytes.clone();
    // Type, term, index, kind: then the length.
    *damaged.get_mut(first + 4 + 16 + 1).unwrap() ^= 0x40;
    fs::write(&path, &damaged).unwrap();
    assert!(is_corrupt(LogStore::open(image.path())));
}

#[tokio::test]
async fn file_cut_at_any_length_holds_the_first_entries() {
    let (image, bytes) = small_log().await;
    let path = chunk(image.path());
    for length in (0..bytes.len()).step_by(7) {
        for file in chunks(image.path()) {
            fs::remove_file(file).unwrap();
        }
        fs::write(&path, bytes.get(..length).unwrap()).unwrap();
        forget_note(image.path());
        let mut store = LogStore::open(image.path()).unwrap();
        let left = all(&mut store).await;
        assert_eq!(left, entries(0..left.len() as u64), "length {length}");
    }
}

#[tokio::test]
async fn damage_in_an_older_file_and_a_missing_file_are_refused() {
    let dir = dir();
    let options = Options { chunk_bytes: 700, ..Options::default() };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    for index in 0..40 {
        append(&mut store, entries(index..index + 1)).await;
    }
    drop(store);
    let files = chunks(dir.path());
    let middle = files.get(files.len() / 2).unwrap();
    let bytes = fs::read(middle).unwrap();
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(middle, &damaged).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), options)));
    fs::write(middle, bytes.get(..bytes.len() - 3).unwrap()).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), options)));
    fs::remove_file(middle).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), options)));
    fs::write(middle, bytes).unwrap();
    assert_eq!(all(&mut LogStore::open_with(dir.path(), options).unwrap()).await, entries(0..40));
}

/// What the log itself cannot tell: its end is missing, cut between two records or anywhere else.
#[tokio::test]
async fn log_that_ends_before_what_was_synced_is_refused() {
    let (image, bytes) = small_log().await;
    let path = chunk(image.path());
    let last_mark = records(&bytes, 0).last().unwrap().0;
    let (synced, _) = Synced::open(image.path()).unwrap();
    // As each start and each sync does.
    for length in 0..bytes.len() {
        synced.note(last_mark as u64).unwrap();
        let cut = bytes.get(..length).unwrap();
        fs::write(&path, cut).unwrap();
        let opened = LogStore::open(image.path());
        if length < last_mark {
            assert!(is_corrupt(opened), "length {length}");
            assert_eq!(fs::read(&path).unwrap(), cut, "length {length}: refused and left alone");
        } else {
            assert_eq!(all(&mut opened.unwrap()).await, entries(0..5), "length {length}");
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(is_corrupt(LogStore::open(image.path())), "no file at all");
}

/// What is acknowledged is noted before: the note is the end of the log, but for the mark behind it.
#[tokio::test]
async fn synced_position_is_noted_before_it_is_told() {
    let dir = dir();
    let options = Options { chunk_bytes: 700, ..Options::default() };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    for index in 0..40 {
        append(&mut store, entries(index..index + 1)).await;
        let (_, noted) = Synced::open(dir.path()).unwrap();
        let end: u64 = chunks(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(noted > 0 && noted <= end, "{noted} of {end}");
        let image = crash_image(dir.path());
        Synced::open(image.path()).unwrap().0.note(noted).unwrap();
        let mut survivor = LogStore::open_with(image.path(), options).unwrap();
        assert_eq!(all(&mut survivor).await, entries(0..index + 1));
    }
    store.save_vote(&Vote::new_committed(1, 7)).await.unwrap();
    drop(store);
    fs::remove_file(chunks(dir.path()).last().unwrap()).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), options)), "the newest file is gone");
}

#[tokio::test]
async fn lost_or_damaged_note_is_refused() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..5)).await;
    drop(store);
    let path = dir.path().join("SYNCED");
    let note = fs::read(&path).unwrap();
    for bit in 0..note.len() * 8 {
        let mut damaged = note.clone();
        *damaged.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        assert!(is_corrupt(LogStore::open(dir.path())), "bit {bit}");
    }
    fs::remove_file(&path).unwrap();
    assert!(is_corrupt(LogStore::open(dir.path())));
    assert!(!path.exists(), "not made anew");
    fs::write(&path, note).unwrap();
    assert_eq!(all(&mut LogStore::open(dir.path()).unwrap()).await, entries(0..5));
}

/// A crash while a new file is begun: the file before it is the last, and may be torn itself.
#[tokio::test]
async fn begun_file_without_a_record_goes() {
    let (image, bytes) = small_log().await;
    let path = chunk(image.path());
    let next = raft_log::chunked_wal::Config::chunk_file_name((bytes.len() as u64 + 9).into());
    fs::write(&path, [bytes.as_slice(), &[9; 9]].concat()).unwrap();
    for begun in [[].as_slice(), &[0; 100], &[1; 100]] {
        fs::write(image.path().join(FILES).join(&next), begun).unwrap();
        forget_note(image.path());
        let mut store = LogStore::open(image.path()).unwrap();
        assert_eq!(all(&mut store).await, entries(0..5));
        assert_eq!(chunks(image.path()).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_entries_before_they_are_synced() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut reader, flag) = (store.clone(), Arc::clone(&stop));
    let reading = tokio::spawn(async move {
        while !flag.load(Ordering::Relaxed) {
            let read = reader.try_get_log_entries(..).await.unwrap();
            assert_eq!(read, entries(0..read.len() as u64));
            tokio::task::yield_now().await;
        }
    });
    for index in 0..300 {
        drop(start(&mut store, entries(index..index + 1)).await);
        let read = store.try_get_log_entries(index..=index).await.unwrap();
        assert_eq!(read.len(), 1, "readable at once");
    }
    stop.store(true, Ordering::Relaxed);
    reading.await.unwrap();
}

/// A newer leader's entry was applied, since others had synced it, and its truncation here was lost with the
/// power: what the log holds from there on was never committed.
#[tokio::test]
async fn end_that_was_overwritten_is_dropped() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..8)).await;
    let held = all(&mut store).await;
    let at = |index: usize| held.get(index).unwrap().log_id;
    store.drop_overwritten(at(5)).unwrap();
    assert_eq!(all(&mut store).await, entries(0..8), "it holds what was applied");
    let newer = log_id(at(5).committed_leader_id().term + 1, 5);
    store.drop_overwritten(log_id(9, 100)).unwrap();
    assert_eq!(all(&mut store).await, entries(0..8), "a log that is merely behind stays");
    store.drop_overwritten(newer).unwrap();
    assert_eq!(all(&mut store).await, entries(0..5));
    drop(store);
    let mut store = LogStore::open(dir.path()).unwrap();
    assert_eq!(all(&mut store).await, entries(0..5), "on disk, too");
    store.purge(at(4)).await.unwrap();
    store.drop_overwritten(at(3)).unwrap();
}
