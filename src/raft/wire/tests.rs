//! Round trips through openraft's types and through bytes, and the bytes themselves.

use std::fmt::{Debug, Write};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde::de::DeserializeOwned;

use super::*;
use crate::encoding::{decode, encode};
use crate::testing::{damage, decodes, fuzz, resealed, sealed};

fn log_id() -> impl Strategy<Value = LogId> {
    any::<(u64, u64)>().prop_map(|(term, index)| LogId { term, index })
}

fn vote() -> impl Strategy<Value = Vote> {
    any::<(u64, u64, bool)>().prop_map(|(term, node, committed)| Vote { term, node, committed })
}

fn peer() -> impl Strategy<Value = Peer> {
    any::<(String, String, String)>().prop_map(|(peer_addr, url, instance)| Peer {
        peer_addr,
        url,
        instance,
    })
}

/// A membership that openraft accepts: no empty set of voters, every voter a node.
fn membership() -> impl Strategy<Value = Membership> {
    (vec(btree_set(0u64..9, 1..4), 1..3), btree_map(0u64..20, peer(), 0..4), peer()).prop_map(
        |(configs, mut nodes, peer)| {
            for voter in configs.iter().flatten() {
                nodes.entry(*voter).or_insert_with(|| peer.clone());
            }
            Membership { configs, nodes }
        },
    )
}

fn stored_membership() -> impl Strategy<Value = StoredMembership> {
    (option::of(log_id()), membership())
        .prop_map(|(log_id, membership)| StoredMembership { log_id, membership })
}

fn entry() -> impl Strategy<Value = Entry> {
    let body = prop_oneof![
        Just(Body::Blank),
        any::<Vec<u8>>().prop_map(|bytes| Body::Command(bytes.into())),
        membership().prop_map(Body::Membership),
    ];
    (log_id(), body).prop_map(|(log_id, body)| Entry { log_id, body })
}

/// Through bytes and back.
fn through_bytes<T: Serialize + DeserializeOwned>(value: &T) -> T {
    decode("test", &encode(value).unwrap()).unwrap()
}

/// Through bytes, into openraft's type `O`, and back.
fn round_trip<T, O>(value: T)
where
    T: Clone + Debug + PartialEq + Serialize + DeserializeOwned + From<O>,
    O: TryFrom<T, Error: Debug>,
{
    let theirs = O::try_from(through_bytes(&value)).unwrap();
    assert_eq!(T::from(theirs), value);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ids_and_votes_round_trip(id in log_id(), vote in vote()) {
        round_trip::<_, types::LogId>(id);
        round_trip::<_, types::Vote>(vote);
        round_trip::<_, raft::SnapshotResponse<TypeConfig>>(SnapshotResponse { vote });
    }

    #[test]
    fn appends_round_trip(
        vote in vote(),
        ids in (option::of(log_id()), option::of(log_id())),
        entries in vec(entry(), 0..4),
    ) {
        let (prev_log_id, leader_commit) = ids;
        let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
        round_trip::<_, raft::AppendEntriesRequest<TypeConfig>>(request);
    }

    #[test]
    fn answers_to_appends_round_trip(vote in vote(), id in log_id()) {
        for response in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(id)),
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote),
        ] {
            round_trip::<_, raft::AppendEntriesResponse<TypeConfig>>(response);
        }
        for result in [
            StreamAppendResult::Matching(Some(id)),
            StreamAppendResult::Matching(None),
            StreamAppendResult::Conflict(id),
            StreamAppendResult::HigherVote(vote),
        ] {
            round_trip::<_, raft::StreamAppendResult<TypeConfig>>(result);
        }
    }

    #[test]
    fn elections_round_trip(vote in vote(), last_log_id in option::of(log_id()), flag: bool, to: u64) {
        round_trip::<_, raft::VoteRequest<TypeConfig>>(
            VoteRequest { vote, last_log_id, leadership_transfer: flag });
        round_trip::<_, raft::VoteResponse<TypeConfig>>(
            VoteResponse { vote, granted: flag, last_log_id });
        round_trip::<_, raft::TransferLeaderRequest<TypeConfig>>(
            TransferLeaderRequest { from: vote, to, last_log_id });
        for response in [
            TransferLeaderResponse::Accepted,
            TransferLeaderResponse::VoteChanged { expected: vote, actual: vote },
            TransferLeaderResponse::LogNotFlushed { expected: last_log_id, actual: None },
        ] {
            round_trip::<_, raft::TransferLeaderResponse<TypeConfig>>(response);
        }
    }

    #[test]
    fn snapshots_round_trip(
        last_log_id in option::of(log_id()),
        last_membership in stored_membership(),
    ) {
        let meta = SnapshotMeta { last_log_id, last_membership };
        let theirs = types::SnapshotMeta::try_from(through_bytes(&meta)).unwrap();
        prop_assert_eq!(SnapshotMeta::from(&theirs), meta);
    }

    #[test]
    fn votes_compare_as_openraft_compares_them(a in vote(), b in vote()) {
        prop_assert_eq!(
            a.partial_cmp(&b),
            types::Vote::from(a).partial_cmp(&types::Vote::from(b))
        );
    }
}

#[test]
fn membership_of_a_fresh_node_round_trips() {
    let fresh = types::SnapshotMeta::default();
    let meta = through_bytes(&SnapshotMeta::from(&fresh));
    assert_eq!(types::SnapshotMeta::try_from(meta).unwrap(), fresh);
}

#[test]
fn voter_without_an_address_is_refused() {
    let membership = Membership { configs: vec![BTreeSet::from([1])], nodes: BTreeMap::new() };
    let error = types::Membership::try_from(membership).unwrap_err();
    assert!(matches!(error, Error::Corrupt { what: "membership", .. }), "{error}");
}

#[test]
fn command_is_carried_and_not_shown() {
    let body = Body::Command(Bytes::from_static(b"secret"));
    assert_eq!(format!("{body:?}"), "Command(6 bytes)");
    let types::EntryPayload::Normal(Payload(bytes)) = body.clone().try_into().unwrap() else {
        panic!("a command");
    };
    let Body::Command(before) = body else { unreachable!() };
    assert_eq!(bytes.as_ptr(), before.as_ptr(), "the bytes themselves, no copy");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn hex_of<T: Serialize>(value: &T) -> String {
    hex(&encode(value).unwrap())
}

#[test]
fn bytes_of_messages_do_not_change() {
    let vote = Vote { term: 3, node: 1, committed: true };
    let id = LogId { term: 3, index: 300 };
    let peer = Peer { peer_addr: "a:1".into(), url: "http://a".into(), instance: "i".into() };
    let membership =
        Membership { configs: vec![BTreeSet::from([1])], nodes: BTreeMap::from([(1, peer)]) };
    let entry = |body| Entry { log_id: id, body };
    let request = AppendEntriesRequest {
        vote,
        prev_log_id: Some(LogId { term: 2, index: 299 }),
        entries: vec![
            entry(Body::Blank),
            entry(Body::Command(Bytes::from_static(b"xyz"))),
            entry(Body::Membership(membership.clone())),
        ],
        leader_commit: None,
    };
    let last_membership = StoredMembership { log_id: Some(id), membership };
    let messages = [
        hex_of(&request),
        hex_of(&AppendEntriesResponse::HigherVote(vote)),
        hex_of(&StreamAppendResult::Conflict(id)),
        hex_of(&VoteRequest { vote, last_log_id: Some(id), leadership_transfer: true }),
        hex_of(&VoteResponse { vote, granted: false, last_log_id: None }),
        hex_of(&SnapshotMeta { last_log_id: Some(id), last_membership }),
        hex_of(&TransferLeaderRequest { from: vote, to: 2, last_log_id: Some(id) }),
        hex_of(&TransferLeaderResponse::LogNotFlushed { expected: Some(id), actual: None }),
    ];
    assert_eq!(
        messages,
        [
            "020301010102fb2b010303fb2c010003fb2c01010378797a03fb2c0102010101010103613a3108687474703a2f2f61016900ba696a1e",
            "02030301011db40dc2",
            "020103fb2c01ff417824",
            "020301010103fb2c01012409ff36",
            "0203010100002a77d402",
            "020103fb2c010103fb2c01010101010103613a3108687474703a2f2f610169f31abd59",
            "02030101020103fb2c01f86f9521",
            "02020103fb2c01002b7f4f45",
        ]
    );
}

/// Reads bytes as every message, and what it can as openraft's.
fn read(bytes: &[u8]) -> TestCaseResult {
    if let Some(request) = decodes::<AppendEntriesRequest>(bytes)? {
        let _ = raft::AppendEntriesRequest::<TypeConfig>::try_from(request);
    }
    if let Some(meta) = decodes::<SnapshotMeta>(bytes)? {
        let _ = types::SnapshotMeta::try_from(meta);
    }
    decodes::<AppendEntriesResponse>(bytes)?;
    decodes::<StreamAppendResult>(bytes)?;
    decodes::<VoteRequest>(bytes)?;
    decodes::<VoteResponse>(bytes)?;
    decodes::<TransferLeaderRequest>(bytes)?;
    decodes::<TransferLeaderResponse>(bytes)?;
    Ok(())
}

#[test]
fn no_message_harms() {
    fuzz(300, vec(any::<u8>(), 0..100), |bytes| {
        read(&bytes)?;
        read(&sealed(&bytes))
    });
}

#[test]
fn no_damaged_message_harms() {
    let request = (vote(), option::of(log_id()), vec(entry(), 0..3), stored_membership());
    fuzz(100, (request, damage(4)), |((vote, id, entries, last_membership), damage)| {
        let request = AppendEntriesRequest { vote, prev_log_id: id, entries, leader_commit: id };
        read(&resealed(&request, &damage))?;
        read(&resealed(&SnapshotMeta { last_log_id: id, last_membership }, &damage))
    });
}
