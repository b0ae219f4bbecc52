//! Who speaks on a peer connection: the cluster secret, the cluster, and the two nodes.
//!
//! Each request names the cluster, the sender, the receiver and the receiver's data directory, under an
//! HMAC-SHA-256 of the cluster secret. The receiver compares all of it with what it is. So a stranger
//! cannot vote, and a message for another cluster, for a node that moved, or for a node whose disk was
//! replaced is refused instead of being taken as meant. It is not encryption: run peers on a network
//! that you trust, or inside a tunnel.

use std::fmt::Write as _;
use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use super::types::NodeId;
use crate::error::{Error, Result};

/// Who sends to whom, in which cluster.
const PEER_HEADER: HeaderName = HeaderName::from_static("x-kvdb-peer");
const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("x-kvdb-peer-signature");

/// What this node is to its peers.
#[derive(Debug)]
pub struct PeerIdentity {
    /// Its node id.
    pub node_id: NodeId,
    /// Its data directory.
    pub instance: String,
    /// Its cluster; set once.
    cluster_id: OnceLock<String>,
    secret: Vec<u8>,
}

impl PeerIdentity {
    /// An identity that may not belong to a cluster yet.
    #[must_use]
    pub fn new(
        node_id: NodeId,
        instance: String,
        cluster_id: Option<String>,
        secret: &str,
    ) -> Self {
        let cell = OnceLock::new();
        if let Some(cluster_id) = cluster_id {
            let _ = cell.set(cluster_id);
        }
        PeerIdentity { node_id, instance, cluster_id: cell, secret: secret.as_bytes().to_vec() }
    }

    /// The cluster, once the node belongs to one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.get().map(String::as_str)
    }

    /// Joins a cluster; fails where the node belongs to another.
    pub fn set_cluster_id(&self, cluster_id: &str) -> Result<()> {
        if self.cluster_id.get_or_init(|| cluster_id.to_owned()) == cluster_id {
            return Ok(());
        }
        Err(Error::Conflict("the node belongs to another cluster".to_owned()))
    }

    /// Headers for a request to a member.
    pub fn headers(&self, to: NodeId, instance: &str) -> Result<HeaderMap> {
        let cluster = self
            .cluster_id()
            .ok_or_else(|| Error::Internal("the node belongs to no cluster yet".to_owned()))?;
        self.signed(&format!("{cluster} {} {to} {instance}", self.node_id))
    }

    /// Headers for a request to whoever listens at an address.
    pub fn introduction(&self) -> Result<HeaderMap> {
        self.signed(&format!("- {} - -", self.node_id))
    }

    fn signed(&self, statement: &str) -> Result<HeaderMap> {
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Error::Internal(format!("not a header value: {text:?}")))
        };
        let mut headers = HeaderMap::new();
        headers.insert(PEER_HEADER, value(statement)?);
        headers
            .insert(SIGNATURE_HEADER, value(&hex(&self.mac(statement).finalize().into_bytes()))?);
        Ok(headers)
    }

    /// Checks a request from a member to this node; the sender's id.
    pub fn check_member(&self, headers: &HeaderMap) -> Result<NodeId> {
        let statement = self.check_signature(headers)?;
        let mut words = statement.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (cluster, from, to, instance) = (next(), next(), next(), next());
        if Some(cluster) != self.cluster_id() {
            return Err(Error::Forbidden("this node belongs to another cluster".to_owned()));
        }
        if to != self.node_id.to_string() || instance != self.instance {
            let id = self.node_id;
            return Err(Error::Forbidden(format!("this is node {id}, on another disk or address")));
        }
        from.parse().map_err(|_| Error::Forbidden("no sender".to_owned()))
    }

    /// Checks that a request comes from somebody who knows the cluster secret.
    pub fn check_secret(&self, headers: &HeaderMap) -> Result<()> {
        self.check_signature(headers).map(|_| ())
    }

    fn check_signature<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let (Some(statement), Some(signature)) = (text(PEER_HEADER), text(SIGNATURE_HEADER)) else {
            return Err(Error::Unauthorized("not a peer: no signature".to_owned()));
        };
        let bytes = unhex(signature).unwrap_or_default();
        self.mac(statement).verify_slice(&bytes).map_err(|_| {
            Error::Unauthorized("not a peer: the cluster secret differs".to_owned())
        })?;
        Ok(statement)
    }

    fn mac(&self, statement: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        mac.update(b"kvdb peer 1 ");
        mac.update(statement.as_bytes());
        mac
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: NodeId, instance: &str, cluster: &str, secret: &str) -> PeerIdentity {
        PeerIdentity::new(id, instance.to_owned(), Some(cluster.to_owned()), secret)
    }

    #[test]
    fn members_know_each_other() {
        let (a, b) = (node(1, "a", "c", "s"), node(2, "b", "c", "s"));
        assert_eq!(b.check_member(&a.headers(2, "b").unwrap()), Ok(1));
    }

    #[test]
    fn others_are_refused() {
        let receiver = node(2, "b", "c", "s");
        let refused = |sender: &PeerIdentity, to, instance| {
            receiver.check_member(&sender.headers(to, instance).unwrap()).unwrap_err().to_string()
        };
        assert!(refused(&node(1, "a", "c", "t"), 2, "b").contains("secret differs"));
        assert!(refused(&node(1, "a", "d", "s"), 2, "b").contains("another cluster"));
        assert!(refused(&node(1, "a", "c", "s"), 3, "b").contains("this is node 2"));
        assert!(refused(&node(1, "a", "c", "s"), 2, "x").contains("this is node 2"));
        assert!(receiver.check_member(&HeaderMap::new()).is_err());
        // What introduces a stranger does not make it a member.
        let stranger = node(1, "a", "c", "s").introduction().unwrap();
        assert!(receiver.check_secret(&stranger).is_ok());
        assert!(receiver.check_member(&stranger).is_err());
    }

    #[test]
    fn a_statement_cannot_be_changed() {
        let (a, b) = (node(1, "a", "c", "s"), node(2, "b", "c", "s"));
        let mut headers = a.headers(2, "b").unwrap();
        headers.insert(PEER_HEADER, HeaderValue::from_static("c 9 2 b"));
        assert!(b.check_member(&headers).is_err());
    }

    #[test]
    fn a_node_joins_one_cluster() {
        let node = PeerIdentity::new(1, "a".to_owned(), None, "s");
        assert!(node.headers(2, "b").is_err());
        node.set_cluster_id("c").unwrap();
        node.set_cluster_id("c").unwrap();
        assert!(node.set_cluster_id("d").is_err());
    }
}
