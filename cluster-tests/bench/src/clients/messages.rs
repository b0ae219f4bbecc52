//! What etcd's clients and servers say to each other: the parts of its protocol that are used here.
//!
//! Numbers and types are those of etcd's `rpc.proto` and `kv.proto`, version 3. A field that is not here is
//! skipped when it is read, as protocol buffers have it.

use prost::{Message, Oneof};

/// A key as it is stored.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The revision of its last write.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// The value.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

/// What every answer begins with.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    /// The store's revision.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// Asks for a key; linearizable unless `serializable` says otherwise.
#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Whether this member's own state will do.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
}

/// The answer.
#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    /// Its header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// What was found.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
}

/// Sets a key.
#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The answer.
#[derive(Clone, PartialEq, Message)]
pub struct PutResponse {
    /// Its header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// A condition of a transaction: that a key was last written at a revision.
#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    /// 0: equal.
    #[prost(int32, tag = "1")]
    pub result: i32,
    /// What is compared; [`MOD`].
    #[prost(int32, tag = "2")]
    pub target: i32,
    /// The key.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// With what. Of a `oneof`, so a 0 is written, too.
    #[prost(int64, optional, tag = "6")]
    pub mod_revision: Option<i64>,
}

/// The target of a comparison that is a key's last revision.
pub const MOD: i32 = 2;

/// What a transaction does.
#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    /// One of these.
    #[prost(oneof = "Operation", tags = "1, 2")]
    pub request: Option<Operation>,
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, Oneof)]
pub enum Operation {
    /// Reads a key.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Sets a key.
    #[prost(message, tag = "2")]
    Put(PutRequest),
}

/// What came of an operation that reads. What others answer is not looked at.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseOp {
    /// What was found.
    #[prost(message, optional, tag = "1")]
    pub range: Option<RangeResponse>,
}

/// Operations, all or none.
#[derive(Clone, PartialEq, Message)]
pub struct TxnRequest {
    /// What must hold.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What is done where it does.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
}

/// The answer.
#[derive(Clone, PartialEq, Message)]
pub struct TxnResponse {
    /// Its header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the conditions held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// What came of each operation.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// Reads a key in a transaction.
#[must_use]
pub fn get(key: &str) -> RequestOp {
    let range = RangeRequest { key: key.into(), serializable: false };
    RequestOp { request: Some(Operation::Range(range)) }
}

/// Sets a key in a transaction.
#[must_use]
pub fn put(key: &str, value: impl Into<Vec<u8>>) -> RequestOp {
    let put = PutRequest { key: key.into(), value: value.into() };
    RequestOp { request: Some(Operation::Put(put)) }
}

/// Demands that a key was last written at a revision.
#[must_use]
pub fn unchanged(key: &str, mod_revision: i64) -> Compare {
    Compare { result: 0, target: MOD, key: key.into(), mod_revision: Some(mod_revision) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The bytes were derived by hand from the encoding's rules: (number << 3 | wire type), length, content.

    #[test]
    fn put_is_encoded_as_etcd_reads_it() {
        let put = PutRequest { key: b"k".into(), value: b"vv".into() };
        assert_eq!(put.encode_to_vec(), [0x0a, 1, b'k', 0x12, 2, b'v', b'v']);
    }

    #[test]
    fn transaction_is_encoded_as_etcd_reads_it() {
        let txn = TxnRequest {
            compare: vec![unchanged("k", 300)],
            success: vec![get("k"), put("k", "v")],
        };
        #[rustfmt::skip]
        let expected = [
            0x0a, 8, 0x10, 2, 0x1a, 1, b'k', 0x30, 0xac, 0x02, // compare: target MOD, key, revision 300
            0x12, 5, 0x0a, 3, 0x0a, 1, b'k',                   // success: range
            0x12, 8, 0x12, 6, 0x0a, 1, b'k', 0x12, 1, b'v',    // success: put
        ];
        assert_eq!(txn.encode_to_vec(), expected);
    }

    #[test]
    fn answer_of_a_transaction_is_read() {
        #[rustfmt::skip]
        let bytes: &[u8] = &[
            0x0a, 4, 0x08, 9, 0x18, 7,  // header: a cluster id that nobody asks for, revision 7
            0x10, 1,                    // succeeded
            0x1a, 13, 0x0a, 11, 0x12, 9, // a range's key and value
            0x0a, 1, b'k', 0x18, 5, 0x2a, 2, b'4', b'2',
        ];
        let txn = TxnResponse::decode(bytes).unwrap();
        assert!(txn.succeeded);
        assert_eq!(txn.header.unwrap().revision, 7);
        let found = &txn.responses[0].range.as_ref().unwrap().kvs[0];
        assert_eq!((found.mod_revision, found.value.as_slice()), (5, &b"42"[..]));
    }
}
