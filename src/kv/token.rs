//! Tokens: a part of what a bucket permits, made out to whoever holds the text.
//!
//! A token's text is `ID.MAC`. Its row in the bucket says what it permits and until when; the MAC, made with
//! the signing key over bucket and id, proves that the text was given out and not guessed. It is valid
//! while both stand: deleting the row revokes one token, changing the signing key all of them. While
//! keys are rotated, two signing keys are live. As the key itself is not kept, its hash signs.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::command::BucketId;
use super::keyspace::{Row, Table};
use super::limits::{KEY_BYTES_MAX, TOKEN_PERMISSIONS_MAX, TOKENS_MAX, TTL_SECONDS_MAX};
use super::policy::{Credential, Execute, Grant, Permission, Policy, SigningKey};
use super::transaction::Transaction;
use crate::encoding;
use crate::error::{Error, Missing, Result};

/// Letters and digits without those that look alike (base58).
const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Characters of an id: 128 bits.
const ID_CHARACTERS: usize = 22;

/// What is stored for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// What it permits.
    pub permissions: Vec<Permission>,
    /// Which scripts it may run.
    pub execute: Execute,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
    /// The number of the signing key that it was made with.
    pub signing_key: u64,
}

impl Token {
    /// What it permits, as a grant.
    #[must_use]
    pub fn grant(self) -> Grant {
        let Token { prefix, permissions, execute, .. } = self;
        Grant { owner: false, prefix, permissions, execute }
    }
}

/// What a token is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// What it is to permit.
    pub permissions: Vec<Permission>,
    /// Which scripts it may run.
    pub execute: Execute,
    /// Seconds that it is valid.
    pub ttl: u64,
}

/// Makes a token out; its text. It is valid once the transaction has been applied. `nonce` is different for
/// each token of a call, `seed` for each call.
pub fn mint(
    txn: &mut Transaction,
    request: &TokenRequest,
    seed: u64,
    nonce: u64,
) -> Result<String> {
    check(request)?;
    let policy = txn.policy()?;
    let Some(key) = &policy.signing_key else {
        return Err(Error::invalid("the bucket has no signing_key: set one, tokens need it"));
    };
    if txn.counts().tokens >= TOKENS_MAX {
        return Err(Error::Quota { what: "tokens", max: TOKENS_MAX });
    }
    let expires_at = txn.now().saturating_add(request.ttl.saturating_mul(1000));
    let id = id(txn.bucket(), txn.revision(), seed, nonce);
    let row = Row::token(&id);
    let token = Token {
        prefix: request.prefix.clone(),
        permissions: request.permissions.clone(),
        execute: request.execute.clone(),
        expires_at,
        signing_key: key.number,
    };
    txn.move_expiry(&row, None, Some(expires_at))?;
    txn.put_row(row, Some(encoding::encode(&token)?.into()))?;
    Ok(format!(
        "{id}.{}",
        BASE64_URL_SAFE_NO_PAD.encode(sign(key, txn.bucket(), &id).finalize().into_bytes())
    ))
}

fn check(request: &TokenRequest) -> Result<()> {
    if request.ttl == 0 || request.ttl > TTL_SECONDS_MAX {
        return Err(Error::invalid(format!("a token's ttl is 1 to {TTL_SECONDS_MAX} seconds")));
    }
    if request.prefix.len() > KEY_BYTES_MAX {
        return Err(Error::TooLarge { limit: "a prefix", max: KEY_BYTES_MAX as u64 });
    }
    let named = match &request.execute {
        Execute::Only(names) => names.len(),
        Execute::Unsaid | Execute::All => 0,
    };
    if named > TOKEN_PERMISSIONS_MAX {
        let text = format!("a token names at most {TOKEN_PERMISSIONS_MAX} scripts");
        return Err(Error::invalid(text));
    }
    if request.permissions.is_empty() && request.execute == Execute::Unsaid {
        return Err(Error::invalid(
            "name the token's permissions: read, write, enumerate, delete, execute, execute:NAME",
        ));
    }
    Ok(())
}

/// The id of a call's token: random, as the seed is, and the same on a replay.
fn id(bucket: BucketId, revision: u64, seed: u64, nonce: u64) -> String {
    let mut hash = Sha256::new_with_prefix(b"token");
    for number in [bucket.0, revision, seed, nonce] {
        hash.update(number.to_le_bytes());
    }
    let digest = hash.finalize();
    let (head, _) = digest.split_at(16);
    let mut number = head.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let mut id = String::with_capacity(ID_CHARACTERS);
    for _ in 0..ID_CHARACTERS {
        let digit = usize::try_from(number % 58).unwrap_or_default();
        id.extend(ALPHABET.get(digit).map(|byte| char::from(*byte)));
        number /= 58;
    }
    id
}

fn sign(key: &SigningKey, bucket: BucketId, id: &str) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.hash.bytes())
        .expect("a key of any length will do");
    mac.update(b"kvdb token");
    mac.update(&key.number.to_be_bytes());
    mac.update(&bucket.0.to_be_bytes());
    mac.update(id.as_bytes());
    mac
}

/// What a token permits; `None` where the credential is none that is valid here.
pub(super) fn grant(
    txn: &mut Transaction,
    policy: &Policy,
    credential: &Credential,
) -> Result<Option<Grant>> {
    let Some((id, mac)) = credential.secret().and_then(|text| text.split_once('.')) else {
        return Ok(None);
    };
    let Ok(mac) = BASE64_URL_SAFE_NO_PAD.decode(mac) else { return Ok(None) };
    let keys = [&policy.signing_key, &policy.previous_signing_key];
    let bucket = txn.bucket();
    let signs = |key: &SigningKey| sign(key, bucket, id).verify_slice(&mac).is_ok();
    if id.len() != ID_CHARACTERS || !keys.into_iter().flatten().any(signs) {
        return Ok(None);
    }
    Ok(find(txn, id)?.map(Token::grant))
}

fn find(txn: &mut Transaction, id: &str) -> Result<Option<Token>> {
    let Some(bytes) = txn.row(&Row::token(id))? else { return Ok(None) };
    let token: Token = encoding::decode("token", &bytes)?;
    Ok(txn.is_alive(Some(token.expires_at)).then_some(token))
}

/// When a token's row dies.
pub(super) fn expires_at(row: &[u8]) -> Result<u64> {
    Ok(encoding::decode::<Token>("token", row)?.expires_at)
}

/// Ends a token.
pub(super) fn revoke(txn: &mut Transaction, id: &str) -> Result<()> {
    let token = find(txn, id)?.ok_or_else(|| Error::not_found(Missing::Token, id))?;
    let row = Row::token(id);
    txn.move_expiry(&row, Some(token.expires_at), None)?;
    txn.put_row(row, None)
}

/// Removes the tokens whose signing key is none of the policy's any more.
pub(super) fn drop_unsigned(txn: &mut Transaction, policy: &Policy) -> Result<()> {
    let keys = [&policy.signing_key, &policy.previous_signing_key];
    let live: Vec<u64> = keys.into_iter().flatten().map(|key| key.number).collect();
    for (id, bytes) in txn.rows(Table::Token, b"")? {
        let token: Token = encoding::decode("token", &bytes)?;
        if !live.contains(&token.signing_key) {
            let row = Row { table: Table::Token, name: id };
            txn.move_expiry(&row, Some(token.expires_at), None)?;
            txn.put_row(row, None)?;
        }
    }
    Ok(())
}

/// The tokens whose rows stand, in the order of their ids.
pub fn list(txn: &mut Transaction) -> Result<Vec<(String, Token)>> {
    let mut tokens = Vec::new();
    for (id, bytes) in txn.rows(Table::Token, b"")? {
        let token: Token = encoding::decode("token", &bytes)?;
        if txn.is_alive(Some(token.expires_at)) {
            tokens.push((String::from_utf8_lossy(&id).into_owned(), token));
        }
    }
    Ok(tokens)
}
