//! etcd over gRPC, as its own clients do it: some channels, each shared by several callers.

use std::cell::RefCell;

use kvdb::bench::Client;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::messages::{
    KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, get,
    put, unchanged,
};
use super::{Draw, VALUE_BYTES, Work, account, key};

/// Most channels of a run; with more clients, they share.
pub const CHANNELS_MAX: usize = 8;
/// How often one transfer tries its compare-and-swap.
const TRIES_MAX: usize = 1000;

/// A connection that clients may share.
#[derive(Clone)]
pub struct Etcd {
    grpc: Grpc<Channel>,
}

impl Etcd {
    /// Connects on the first call. To be called on a runtime.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &str) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| format!("{url}: {e}"))?;
        Ok(Etcd { grpc: Grpc::new(endpoint.tcp_nodelay(true).connect_lazy()) })
    }

    async fn unary<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, String>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.map_err(|e| format!("etcd: {e}"))?;
        let path = method.parse().map_err(|_| format!("{method}: no path"))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = self.grpc.unary(tonic::Request::new(request), path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|e| format!("etcd: {e}"))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// When it is not set.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        let request = PutRequest { key: key.into(), value: value.into() };
        let answer: PutResponse = self.unary("/etcdserverpb.KV/Put", request).await?;
        match answer.header {
            Some(header) if header.revision > 0 => Ok(()),
            _ => Err("etcd: a put without a revision".to_owned()),
        }
    }

    /// Reads a key, linearizable.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&mut self, key: &str) -> Result<KeyValue, String> {
        let request = RangeRequest { key: key.into(), serializable: false };
        let answer: RangeResponse = self.unary("/etcdserverpb.KV/Range", request).await?;
        let missing = || format!("etcd: `{key}` is not there");
        answer.kvs.into_iter().next().ok_or_else(missing)
    }

    /// Does a transaction; whether its conditions held is in the answer.
    ///
    /// # Errors
    /// When it failed.
    pub async fn transact(&mut self, request: TxnRequest) -> Result<TxnResponse, String> {
        self.unary("/etcdserverpb.KV/Txn", request).await
    }

    /// Reads both accounts in one transaction, writes both in another if neither changed, and again if one did.
    async fn transfer(&mut self, from: &str, to: &str) -> Result<(), String> {
        for _ in 0..TRIES_MAX {
            let both = TxnRequest { compare: Vec::new(), success: vec![get(from), get(to)] };
            let found = self.transact(both).await?;
            let mut balances = found.responses.iter().map(balance);
            let (Some(Ok(have)), Some(Ok(there))) = (balances.next(), balances.next()) else {
                return Err("etcd: an account is missing".to_owned());
            };
            let write = TxnRequest {
                compare: vec![unchanged(from, have.1), unchanged(to, there.1)],
                success: vec![
                    put(from, (have.0 - 1).to_string()),
                    put(to, (there.0 + 1).to_string()),
                ],
            };
            if self.transact(write).await?.succeeded {
                return Ok(());
            }
        }
        Err(format!("etcd: a transfer did not get through in {TRIES_MAX} tries"))
    }
}

/// What an account holds, and the revision of that.
fn balance(found: &super::messages::ResponseOp) -> Result<(i64, i64), String> {
    let kv = found.range.as_ref().and_then(|range| range.kvs.first()).ok_or("no account")?;
    let value = std::str::from_utf8(&kv.value).map_err(|e| e.to_string())?;
    let value = value.parse().map_err(|_| format!("no balance: {value}"))?;
    Ok((value, kv.mod_revision))
}

/// The channels of a run, made as clients come.
pub struct Channels {
    urls: Vec<String>,
    clients: usize,
    made: RefCell<Vec<Etcd>>,
}

impl Channels {
    /// For so many clients, over these members in turn.
    #[must_use]
    pub fn new(urls: Vec<String>, clients: usize) -> Self {
        Channels { urls, clients, made: RefCell::new(Vec::new()) }
    }

    /// The channel of a client.
    ///
    /// # Errors
    /// When there is no member.
    pub fn of(&self, client: usize) -> Result<Etcd, String> {
        // As many on each member: nine for three, where there are clients enough.
        let most = CHANNELS_MAX.next_multiple_of(self.urls.len().max(1));
        let channel = client % self.clients.min(most).max(1);
        let mut made = self.made.borrow_mut();
        while made.len() <= channel {
            let url = self.urls.get(made.len() % self.urls.len().max(1)).ok_or("no member")?;
            made.push(Etcd::new(url)?);
        }
        made.get(channel).cloned().ok_or_else(|| "no channel".to_owned())
    }
}

/// One caller.
pub struct Caller {
    etcd: Etcd,
    work: Work,
    draw: Draw,
}

impl Caller {
    /// Over this channel.
    #[must_use]
    pub fn new(etcd: Etcd, work: Work, draw: Draw) -> Self {
        Caller { etcd, work, draw }
    }
}

impl Client for Caller {
    async fn call(&mut self, _serial: u64) -> Result<(), String> {
        match self.work {
            Work::Put(keys) => {
                let key = key(self.draw.below(keys));
                self.etcd.put(&key, self.draw.value()).await
            }
            Work::Get(keys) => {
                let found = self.etcd.get(&key(self.draw.below(keys))).await?;
                let bytes = found.value.len();
                let right = bytes == VALUE_BYTES;
                if right { Ok(()) } else { Err(format!("etcd: a value of {bytes} bytes")) }
            }
            Work::Transfer(accounts) => {
                let (from, to) = self.draw.pair(accounts);
                self.etcd.transfer(&account(from), &account(to)).await
            }
            Work::Count(_) => Err("etcd runs no scripts".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_shared_evenly() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let urls: Vec<String> = (1..=3).map(|n| format!("http://127.0.0.1:{n}")).collect();
        for (members, clients, expected) in [(1, 64, 8), (1, 4, 4), (3, 64, 9), (3, 1, 1)] {
            let channels = Channels::new(urls[..members].to_vec(), clients);
            for client in 0..clients {
                channels.of(client).unwrap();
            }
            assert_eq!(
                channels.made.borrow().len(),
                expected,
                "{members} members, {clients} clients"
            );
        }
    }
}
