use std::sync::Arc;

use futures::StreamExt;

use super::*;
use crate::encoding;
use crate::http::call::Origin;
use crate::http::room::Room;
use crate::kv::keyspace::{BucketMeta, Record, Row, meta_key};
use crate::kv::limits::TRANSACTION_READS_MAX;
use crate::kv::memory::Memory;
use crate::kv::store::Store;
use crate::kv::transaction::read_only;
use crate::kv::{BucketId, Key};

fn call(query: &str) -> Call {
    let request = http::Request::builder().uri(format!("/b/?{query}")).body(()).unwrap();
    Call::new(request.into_parts().0, Origin::default())
}

fn wanted(query: &str) -> Result<Wanted> {
    Wanted::of(&call(query))
}

const BUCKET: BucketId = BucketId(1);

/// A bucket of such keys, as a store has it.
fn stored(keys: impl IntoIterator<Item = (String, Vec<u8>)>) -> Memory {
    let mut store = Memory::default();
    let mut meta = BucketMeta { revision: 7, ..BucketMeta::default() };
    for (key, value) in keys {
        let value = value.into();
        let record = Record { version: 1, expires_at: None, content_type: None, value };
        store.put(row(&key), encoding::encode(&record).unwrap().into());
        meta.counts.keys += 1;
    }
    store.put(meta_key(BUCKET), encoding::encode(&meta).unwrap().into());
    store
}

fn row(key: &str) -> Vec<u8> {
    Row::key(&Key::parse(key.as_bytes().to_vec()).unwrap()).encode(BUCKET)
}

fn read(store: Memory) -> Transaction {
    read_only(Arc::new(store), BUCKET, 0).unwrap().unwrap()
}

/// A bucket with 200 keys `k000`…`k199`, and some of their own.
fn bucket() -> Transaction {
    let numbered = (0..200).map(|i| (format!("k{i:03}"), "v"));
    let own = [
        ("n:int", "42"),
        ("n:large", "9007199254740993"),
        ("n:plus", "+1"),
        ("n:text", "4 2"),
        ("x\ny", "two\nlines"),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value));
    read(stored(numbered.chain(own).map(|(key, value)| (key, value.as_bytes().to_vec()))))
}

/// A list that has the only turn of a room.
async fn listing(txn: Transaction, query: &str) -> (Listing, Room) {
    let room = Room::new(1, 0);
    let turn = room.list(BUCKET).await.unwrap();
    (Listing::begin(txn, wanted(query).unwrap(), turn), room)
}

/// The text of a list, however long, and its cursor.
async fn page(txn: Transaction, query: &str) -> (String, Option<Cursor>) {
    let (listing, _) = listing(txn, query).await;
    let (listing, stop) = listing.head().await.unwrap();
    let (mut listing, cursor) = listing.cursor(stop).await.unwrap();
    let text = match stop {
        Stop::Pause => streamed(listing, Pace::default()).await.unwrap(),
        _ => listing.writer.take().to_vec(),
    };
    (String::from_utf8(text).unwrap(), cursor)
}

async fn listed(query: &str) -> String {
    page(bucket(), query).await.0
}

/// Everything that a stream yields, or where it broke off.
async fn streamed(listing: Listing, pace: Pace) -> Result<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(listing, sender, pace));
    let mut chunks = Box::pin(chunks(receiver));
    let mut text = Vec::new();
    while let Some(chunk) = chunks.next().await {
        text.extend_from_slice(&chunk?);
    }
    Ok(text)
}

#[tokio::test]
async fn formats() {
    for (query, expected) in [
        ("prefix=n:", "n:int\nn:large\nn:plus\nn:text\n"),
        ("prefix=n:&values=true&end=n:q", "n:int=42\nn:large=9007199254740993\nn:plus=+1\n"),
        ("prefix=n:&format=json", r#"["n:int","n:large","n:plus","n:text"]"#),
        (
            "prefix=n:&format=json&values=1",
            r#"[["n:int",42],["n:large",9007199254740993],["n:plus","+1"],["n:text","4 2"]]"#,
        ),
        ("prefix=n:i&format=jsonl&values=1", "[\"n:int\",42]\n"),
        ("prefix=n:i&format=jsonl", "\"n:int\"\n"),
        ("prefix=x&values=1", "x\\ny=two\\nlines\n"),
        ("prefix=x&values=1&format=json", r#"[["x\ny","two\nlines"]]"#),
        ("prefix=none&format=json", "[]"),
        ("prefix=k&limit=0&format=json", "[]"),
        ("prefix=none", ""),
    ] {
        assert_eq!(listed(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn ranges() {
    for (query, count, first) in [
        ("", 205, "k000"),
        ("prefix=k", 200, "k000"),
        ("prefix=k&skip=150", 50, "k150"),
        ("prefix=k&skip=64&limit=70", 70, "k064"),
        ("prefix=k&skip=199&limit=5", 1, "k199"),
        ("prefix=k&skip=200", 0, ""),
        ("prefix=k&skip=18446744073709551615&limit=18446744073709551615", 0, ""),
        ("prefix=k&limit=18446744073709551615", 200, "k000"),
        ("limit=0", 0, ""),
        ("prefix=k&reverse=true&limit=130", 130, "k199"),
        ("prefix=k&reverse=true&skip=130", 70, "k069"),
        ("start=k100&end=k110", 10, "k100"),
        ("start=k100&end=k110&reverse=1", 10, "k109"),
        ("prefix=k&start=k190", 10, "k190"),
    ] {
        let text = listed(query).await;
        let first_line = text.lines().next().unwrap_or_default();
        assert_eq!((text.lines().count(), first_line), (count, first), "{query}");
    }
}

#[tokio::test]
async fn the_dead_are_not_shown_and_not_counted() {
    let mut store = stored([("k2".to_owned(), b"v".to_vec())]);
    let mut meta = BucketMeta::default();
    for (key, expires_at) in [("k1", 5), ("k3", 10), ("k4", 11)] {
        let (version, content_type, value) = (1, None, Bytes::new());
        let record = Record { version, expires_at: Some(expires_at), content_type, value };
        store.put(row(key), encoding::encode(&record).unwrap().into());
    }
    (meta.counts.keys, meta.counts.expiring) = (4, 3);
    store.put(meta_key(BUCKET), encoding::encode(&meta).unwrap().into());
    let at_ten = || read_only(Arc::new(store.clone()), BUCKET, 10).unwrap().unwrap();
    assert_eq!(page(at_ten(), "").await.0, "k2\nk4\n");
    assert_eq!(page(at_ten(), "limit=1&skip=1").await, ("k4\n".to_owned(), None));
    assert_eq!(page(at_ten(), "limit=2").await.1, None, "nobody alive is behind");
    assert!(page(at_ten(), "limit=1").await.1.is_some());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for query in ["limit=x", "limit=-1", "cursor=x", "cursor="] {
        assert!(matches!(wanted(query), Err(Error::Invalid(_))), "{query}");
    }
    assert!(matches!(wanted("format=xml"), Err(Error::NotAcceptable(_))));
    let cursor = Cursor::behind(b"k1", &ListRange::default(), 1).text().unwrap();
    assert!(wanted(&format!("cursor={cursor}")).is_ok());
    for other in ["prefix=k", "reverse=1", "skip=1"] {
        let query = format!("{other}&cursor={cursor}");
        assert!(matches!(wanted(&query), Err(Error::Invalid(_))), "{other}");
    }
}

#[tokio::test]
async fn pages_are_the_list_and_the_last_has_no_cursor() {
    for query in ["limit=7", "limit=41&reverse=1", "limit=200&prefix=k", "limit=30&start=k1&end=k2"]
    {
        let whole = listed(&query.replace("limit=", "ignored=")).await;
        let (mut pages, mut text) = (String::new(), query.to_owned());
        for turn in 0.. {
            assert!(turn < 100, "{query} does not end");
            let (page, cursor) = page(bucket(), &text).await;
            pages.push_str(&page);
            let Some(cursor) = cursor else { break };
            assert!(!page.is_empty(), "{query}");
            text = format!("{query}&cursor={}", cursor.text().unwrap());
        }
        assert_eq!(pages, whole, "{query}");
    }
    assert_eq!(page(bucket(), "limit=205").await.1, None, "all of them, and not one more");
    assert_eq!(page(bucket(), "limit=0").await.1, None);
}

/// More than the beginning and some chunks hold: 300 values of 10,000 bytes, and 3,000 short ones.
fn large() -> Memory {
    let long = (0..300).map(|i| (format!("a{i:04}"), vec![b'v'; 10_000]));
    let short = (0..3000).map(|i| (format!("b{i:04}"), b"w".to_vec()));
    stored(long.chain(short))
}

fn large_text(entries: impl Iterator<Item = usize>) -> String {
    let line = |i| match i {
        0..300 => format!("a{i:04}={}\n", "v".repeat(10_000)),
        _ => format!("b{:04}=w\n", i - 300),
    };
    entries.map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_streamed_and_its_cursor_known_before() {
    for (query, entries) in [("limit=3300", 0..3300), ("limit=2000", 0..2000)] {
        let (listing, _) = listing(read(large()), &format!("values&{query}")).await;
        let (listing, stop) = listing.head().await.unwrap();
        assert_eq!(stop, Stop::Pause, "more than the beginning");
        assert!(listing.writer.len() < HEAD_BYTES + 20_000);
        let (listing, cursor) = listing.cursor(stop).await.unwrap();
        let behind = |key: &[u8]| Some(Cursor::behind(key, &ListRange::default(), 7));
        assert_eq!(cursor, if entries.end == 3300 { None } else { behind(b"b1699") }, "{query}");
        let text = streamed(listing, Pace::default()).await.unwrap();
        assert!(text == large_text(entries).into_bytes(), "{query}");
    }
    let (reverse, cursor) = page(read(large()), "values&reverse&limit=3200").await;
    assert!(
        reverse == large_text((100..3300).rev()).as_str().split_inclusive('\n').collect::<String>()
    );
    assert_eq!(cursor.map(|cursor| cursor.text().unwrap().is_empty()), Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scripts_limit_of_reads_is_no_lists() {
    let keys = TRANSACTION_READS_MAX + 10;
    let many = || read(stored((0..keys).map(|i| (format!("{i:06}"), Vec::new()))));
    let (all, cursor) = page(many(), &format!("limit={keys}")).await;
    assert_eq!((all.lines().count(), cursor), (keys, None));
    let (last, _) = page(many(), &format!("skip={}", keys - 1)).await;
    assert_eq!(last, format!("{:06}\n", keys - 1));
}

/// Waits until a list let go of its turn, and so of its view.
async fn free(room: &Room) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while room.list(BUCKET).await.is_err() {
        assert!(Instant::now() < deadline, "the turn is free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_and_sees_it() {
    let most = Duration::from_millis(100);
    let later = Instant::now() + LIST_TIME;
    for pace in [
        Pace { most, left: most, end: later },
        // Patience enough, and no time.
        Pace { end: Instant::now() + most, ..Pace::default() },
    ] {
        let (listing, room) = listing(read(large()), "values").await;
        let (listing, _) = listing.head().await.unwrap();
        let (sender, receiver) = mpsc::channel(1);
        let sent = tokio::spawn(send(listing, sender, pace));
        free(&room).await;
        assert!(matches!(sent.await.unwrap(), Err(Error::Overloaded(_))));
        let got: Vec<_> = chunks(receiver).collect().await;
        assert!(got.len() > 1 && got.last().unwrap().is_err(), "it breaks off");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_frees_the_turn() {
    let (listing, room) = listing(read(large()), "values").await;
    let (listing, _) = listing.head().await.unwrap();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(listing, sender, Pace::default()));
    drop(receiver);
    free(&room).await;
}

#[test]
fn patience_is_earned_by_reading() {
    let second = Duration::from_secs(1);
    let mut pace = Pace { most: second * 3, left: second, ..Pace::default() };
    let mut settle = |waited, bytes| {
        pace.settle(waited, bytes);
        pace.left
    };
    assert_eq!(settle(second / 2, 0), second / 2);
    assert_eq!(settle(second / 2, 2 * BYTES_PER_SECOND), second * 2);
    assert_eq!(settle(second, 9 * BYTES_PER_SECOND), second * 3, "at most so much");
    assert_eq!(settle(second * 9, 0), Duration::ZERO);
}

/// A stored row that cannot be read, behind more than the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_is_met_late_breaks_the_list_off() {
    let mut store = large();
    store.put(row("b2000"), Bytes::from_static(b"rubbish"));
    let (listing, _) = listing(read(store), "values&format=json").await;
    let (listing, stop) = listing.head().await.unwrap();
    assert_eq!(stop, Stop::Pause);
    let (sender, receiver) = mpsc::channel(1);
    let sent = tokio::spawn(send(listing, sender, Pace::default()));
    let got: Vec<_> = chunks(receiver).collect().await;
    assert!(got.last().unwrap().is_err());
    assert!(matches!(sent.await.unwrap(), Err(Error::Corrupt { .. })), "the node is told");
    let text: Vec<u8> = got.into_iter().filter_map(Result::ok).flatten().collect();
    assert!(text.len() > HEAD_BYTES, "what was good was sent");
    assert!(serde_json::from_slice::<serde_json::Value>(&text).is_err(), "it never looks complete");
}
