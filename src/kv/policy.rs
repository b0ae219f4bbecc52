//! Who may do what in a bucket: keys, permissions and grants.
//!
//! A bucket has up to four keys. The secret key may do everything. The write key and the read key
//! each stand for their kind; where no key of a kind is set, that kind is open to everybody, except
//! that listing needs the secret key once there is one. The signing key makes tokens (`kv::token`), which
//! stand for a part of all that. Keys are stored hashed and compared in constant time. HTTP only says who
//! asks ([`Credential`]); the grant is judged in the state that the command runs on ([`grant`]).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::limits::{POLICY_EMAIL_BYTES_MAX, POLICY_KEY_BYTES_MAX, TTL_SECONDS_MAX};
use super::name::ScriptName;
use super::token;
use super::transaction::Transaction;
use crate::error::{Error, Result};

/// A SHA-256 of a key: what is stored in place of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes a key; refuses an empty or oversized one.
    pub fn of(key: &str) -> Result<Self> {
        if key.is_empty() || key.len() > POLICY_KEY_BYTES_MAX {
            return Err(Error::invalid(format!("a key is 1 to {POLICY_KEY_BYTES_MAX} bytes")));
        }
        Ok(KeyHash(Sha256::digest(key.as_bytes()).into()))
    }

    fn matches(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        self.0.ct_eq(&hash).into()
    }

    /// The hash itself, as a key to sign with.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// A bucket's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The owner's key.
    pub secret_key: Option<KeyHash>,
    /// The key for writing.
    pub write_key: Option<KeyHash>,
    /// The key for reading.
    pub read_key: Option<KeyHash>,
    /// The key that tokens are signed with.
    pub signing_key: Option<SigningKey>,
    /// The one before, whose tokens are still valid.
    pub previous_signing_key: Option<SigningKey>,
    /// How many signing keys there have been.
    pub signing_keys: u64,
    /// Seconds that a key lives unless it says otherwise; 0 is for ever.
    pub default_ttl: u64,
    /// Keys that the bucket may hold; 0 is as many as the node lets it.
    pub max_keys: u64,
    /// Bytes of keys and values that the bucket may hold; 0 is as many as the node lets it.
    pub max_bytes: u64,
    /// Whom to write to about the bucket.
    pub email: Option<String>,
}

/// A key that tokens are signed with. It has a number: one that comes back later is another, and does not
/// make its old tokens valid again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// What signs in place of the key.
    pub hash: KeyHash,
    /// Which of the bucket's signing keys it is.
    pub number: u64,
}

/// A change of a policy; what is `None` stays. An empty key is taken away.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PolicyPatch {
    /// The owner's key; only a bucket that has one can change it.
    pub secret_key: Option<String>,
    /// The key for writing.
    pub write_key: Option<String>,
    /// The key for reading.
    pub read_key: Option<String>,
    /// The key that tokens are signed with. All tokens of the one before end, unless it is kept.
    pub signing_key: Option<String>,
    /// Whether a new signing key leaves the tokens of the one before valid.
    pub keep_signing_key: bool,
    /// Ends the tokens of the signing key before the present one.
    pub drop_previous_signing_key: bool,
    /// Seconds that a key lives unless it says otherwise.
    pub default_ttl: Option<u64>,
    /// Keys that the bucket may hold.
    pub max_keys: Option<u64>,
    /// Bytes that it may hold.
    pub max_bytes: Option<u64>,
    /// Whom to write to.
    pub email: Option<String>,
}

// Holds keys: never logged.
impl fmt::Debug for PolicyPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicyPatch(…)")
    }
}

impl PolicyPatch {
    /// The policy of a new bucket.
    pub fn create(&self) -> Result<Policy> {
        let secret_key = changed_key(&None, self.secret_key.as_deref())?;
        let mut policy = Policy { secret_key, ..Policy::default() };
        self.apply_to(&mut policy)?;
        Ok(policy)
    }

    /// Changes the policy of a bucket for its owner.
    pub fn change(&self, policy: &Policy) -> Result<Policy> {
        let mut policy = policy.clone();
        if policy.secret_key.is_none() {
            // Or a stranger could claim a public bucket, by any of its keys.
            let text = "the bucket was made without a secret key: its policy cannot be changed";
            return Err(Error::Forbidden(text.to_owned()));
        }
        if let Some(secret_key) = self.secret_key.as_deref() {
            if secret_key.is_empty() {
                return Err(Error::invalid("the secret key cannot be taken away, only changed"));
            }
            policy.secret_key = Some(KeyHash::of(secret_key)?);
        }
        self.apply_to(&mut policy)?;
        Ok(policy)
    }

    /// Changes all but the secret key.
    fn apply_to(&self, policy: &mut Policy) -> Result<()> {
        policy.write_key = changed_key(&policy.write_key, self.write_key.as_deref())?;
        policy.read_key = changed_key(&policy.read_key, self.read_key.as_deref())?;
        if let Some(new) = self.signing_key.as_deref() {
            let old = policy.signing_key.take();
            let number = policy.signing_keys + 1;
            policy.signing_keys = number;
            let hash = changed_key(&None, Some(new))?;
            policy.signing_key = hash.map(|hash| SigningKey { hash, number });
            policy.previous_signing_key = old.filter(|_| self.keep_signing_key);
        }
        if self.drop_previous_signing_key {
            policy.previous_signing_key = None;
        }
        if let Some(ttl) = self.default_ttl {
            if ttl > TTL_SECONDS_MAX {
                let text = format!("default_ttl is at most {TTL_SECONDS_MAX} seconds");
                return Err(Error::invalid(text));
            }
            policy.default_ttl = ttl;
        }
        policy.max_keys = self.max_keys.unwrap_or(policy.max_keys);
        policy.max_bytes = self.max_bytes.unwrap_or(policy.max_bytes);
        if let Some(email) = &self.email {
            if email.len() > POLICY_EMAIL_BYTES_MAX {
                let max = POLICY_EMAIL_BYTES_MAX as u64;
                return Err(Error::TooLarge { limit: "an email", max });
            }
            policy.email = Some(email.clone()).filter(|email| !email.is_empty());
        }
        Ok(())
    }
}

fn changed_key(old: &Option<KeyHash>, new: Option<&str>) -> Result<Option<KeyHash>> {
    match new {
        None => Ok(old.clone()),
        Some("") => Ok(None),
        Some(key) => KeyHash::of(key).map(Some),
    }
}

/// What a request brings to prove who asks.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential(Option<String>);

impl Credential {
    /// A stranger.
    pub const NONE: Credential = Credential(None);

    /// Somebody with a key or token.
    pub fn new(secret: impl Into<String>) -> Self {
        Credential(Some(secret.into()))
    }

    /// Whether anything was brought.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// What was brought.
    pub(super) fn secret(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether it is this secret, compared in constant time.
    #[must_use]
    pub fn is(&self, secret: &str) -> bool {
        self.0.as_ref().is_some_and(|own| own.as_bytes().ct_eq(secret.as_bytes()).into())
    }
}

// Never logged.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "Credential(none)" } else { "Credential(…)" })
    }
}

/// One thing that a caller may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// Read a key whose name one knows.
    Read,
    /// Set a key, count on it.
    Write,
    /// List keys.
    Enumerate,
    /// Delete a key.
    Delete,
}

impl Permission {
    /// All of them, in the order they are shown.
    pub const ALL: [Permission; 4] =
        [Permission::Read, Permission::Write, Permission::Enumerate, Permission::Delete];

    /// The word on the wire and in scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Read => "read",
            Permission::Write => "write",
            Permission::Enumerate => "enumerate",
            Permission::Delete => "delete",
        }
    }

    /// The inverse of [`Permission::as_str`].
    pub fn parse(word: &str) -> Result<Self> {
        Permission::ALL.into_iter().find(|p| p.as_str() == word).ok_or_else(|| {
            Error::invalid(format!(
                "no permission `{word}`: there are read, write, enumerate, delete, execute and \
                 execute:NAME"
            ))
        })
    }
}

/// What a caller may do, and to which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The caller holds the bucket: policy, scripts and everything else.
    pub owner: bool,
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// In the order of [`Permission::ALL`], without repeats.
    pub permissions: Vec<Permission>,
    /// Which scripts it may run.
    pub execute: Execute,
}

/// The scripts that a caller may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Execute {
    /// All, and nobody said so: it is not among the words of a grant.
    #[default]
    Unsaid,
    /// All.
    All,
    /// These, in order, without repeats.
    Only(Vec<ScriptName>),
}

/// What begins the word for the permission to run a script.
const EXECUTE: &str = "execute";

impl Execute {
    /// Whether a script may be run.
    #[must_use]
    pub fn allows(&self, name: &ScriptName) -> bool {
        match self {
            Execute::Unsaid | Execute::All => true,
            Execute::Only(names) => names.contains(name),
        }
    }

    /// Adds what a word says, if it is one of these.
    fn add(&mut self, word: &str) -> Result<bool> {
        if word == EXECUTE {
            *self = Execute::All;
            return Ok(true);
        }
        let name = word.strip_prefix(EXECUTE).and_then(|rest| rest.strip_prefix(':'));
        let Some(name) = name else { return Ok(false) };
        let name = ScriptName::parse(name)?;
        match self {
            Execute::Unsaid => *self = Execute::Only(vec![name]),
            Execute::All => {}
            Execute::Only(names) => {
                names.push(name);
                names.sort();
                names.dedup();
            }
        }
        Ok(true)
    }

    /// The words for it.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let names = match self {
            Execute::Only(names) => names.as_slice(),
            Execute::Unsaid | Execute::All => &[],
        };
        let all = (*self == Execute::All).then(|| EXECUTE.to_owned());
        all.into_iter().chain(names.iter().map(|name| format!("{EXECUTE}:{name}")))
    }
}

/// Reads the words of a list of permissions.
pub fn parse_permissions<'w>(
    words: impl IntoIterator<Item = &'w str>,
) -> Result<(Vec<Permission>, Execute)> {
    let (mut named, mut execute) = (Vec::new(), Execute::default());
    for word in words.into_iter().map(str::trim).filter(|word| !word.is_empty()) {
        if !execute.add(word)? {
            named.push(Permission::parse(word)?);
        }
    }
    let all = Permission::ALL.into_iter();
    Ok((all.filter(|permission| named.contains(permission)).collect(), execute))
}

impl Grant {
    /// Everything.
    #[must_use]
    pub fn owner() -> Self {
        let permissions = Permission::ALL.to_vec();
        Grant { owner: true, prefix: Bytes::new(), permissions, execute: Execute::Unsaid }
    }

    /// The words for what it permits.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let permissions = self.permissions.iter().map(|permission| permission.as_str().to_owned());
        permissions.chain(self.execute.words())
    }

    /// Fails unless the caller may run a script.
    pub fn check_execute(&self, name: &ScriptName) -> Result<()> {
        if self.execute.allows(name) {
            return Ok(());
        }
        Err(Error::Forbidden(format!("the permission `{EXECUTE}:{name}` is missing")))
    }

    /// Fails with what is missing, unless the caller may do this to the key or prefix.
    pub fn check(&self, permission: Permission, key: &[u8]) -> Result<()> {
        if !self.permissions.contains(&permission) {
            return Err(Error::Forbidden(format!(
                "the permission `{}` is missing",
                permission.as_str()
            )));
        }
        if !key.starts_with(&self.prefix) {
            return Err(Error::Forbidden(format!(
                "the permission covers only keys that begin with `{}`",
                self.prefix.escape_ascii()
            )));
        }
        Ok(())
    }

    /// Fails unless the caller owns the bucket.
    pub fn check_owner(&self) -> Result<()> {
        if self.owner {
            return Ok(());
        }
        Err(Error::Forbidden("the secret key is missing".to_owned()))
    }
}

/// What the bearer of a credential may do, judged in the state that a transaction reads.
pub fn grant(txn: &mut Transaction, credential: &Credential) -> Result<Grant> {
    let policy = txn.policy()?;
    match policy.grant(credential) {
        Err(Error::Unauthorized(reason)) => {
            token::grant(txn, &policy, credential)?.ok_or(Error::Unauthorized(reason))
        }
        judged => judged,
    }
}

impl Policy {
    /// What the bearer of a key, or a stranger, may do.
    pub fn grant(&self, credential: &Credential) -> Result<Grant> {
        let holds = |key: &Option<KeyHash>| match (key, &credential.0) {
            (Some(hash), Some(secret)) => hash.matches(secret),
            _ => false,
        };
        let (owner, writer, reader) =
            (holds(&self.secret_key), holds(&self.write_key), holds(&self.read_key));
        if owner {
            return Ok(Grant::owner());
        }
        if !credential.is_none() && !writer && !reader {
            return Err(Error::Unauthorized(
                "the credential fits no key and no token of this bucket".to_owned(),
            ));
        }
        // Without any key everybody owns the bucket; without a secret key, whoever may write and read it by
        // a key: one that only reads is for those who are not to change anything.
        let open = self.write_key.is_none() && self.read_key.is_none();
        let write = writer || self.write_key.is_none();
        let read = reader || self.read_key.is_none();
        let may = |permission: &Permission| match permission {
            Permission::Read => read,
            Permission::Write | Permission::Delete => write,
            Permission::Enumerate => read && self.secret_key.is_none(),
        };
        Ok(Grant {
            owner: self.secret_key.is_none() && (open || (writer && read)),
            prefix: Bytes::new(),
            permissions: Permission::ALL.into_iter().filter(may).collect(),
            execute: Execute::Unsaid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(secret: bool, write: bool, read: bool) -> Policy {
        let key = |set: bool, key| set.then(|| KeyHash::of(key).unwrap());
        Policy {
            secret_key: key(secret, "s"),
            write_key: key(write, "w"),
            read_key: key(read, "r"),
            ..Policy::default()
        }
    }

    fn granted(policy: &Policy, credential: &str) -> String {
        let credential = match credential {
            "" => Credential::NONE,
            secret => Credential::new(secret),
        };
        match policy.grant(&credential) {
            Ok(grant) => {
                let mut words: Vec<_> = grant.permissions.iter().map(|p| p.as_str()).collect();
                if grant.owner {
                    words.push("owner");
                }
                words.join(" ")
            }
            Err(error) => format!("{error:?}").chars().take(12).collect(),
        }
    }

    #[test]
    fn grants() {
        let all = "read write enumerate delete owner";
        let open = policy(false, false, false);
        assert_eq!(granted(&open, ""), all);
        assert_eq!(granted(&open, "x"), "Unauthorized");

        let secret = policy(true, false, false);
        assert_eq!(granted(&secret, "s"), all);
        assert_eq!(granted(&secret, ""), "read write delete");
        assert_eq!(granted(&secret, "x"), "Unauthorized");

        let closed = policy(true, true, true);
        assert_eq!(granted(&closed, "s"), all);
        assert_eq!(granted(&closed, "w"), "write delete");
        assert_eq!(granted(&closed, "r"), "read");
        assert_eq!(granted(&closed, ""), "");

        let unowned = policy(false, true, false);
        assert_eq!(granted(&unowned, ""), "read enumerate");
        assert_eq!(granted(&unowned, "w"), all);
    }

    #[test]
    fn a_bucket_without_a_secret_key_cannot_be_changed() {
        let patch = PolicyPatch { read_key: Some("x".to_owned()), ..PolicyPatch::default() };
        assert!(patch.change(&policy(true, false, false)).is_ok());
        for write in [false, true] {
            let refused = patch.change(&policy(false, write, true));
            assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        }
    }

    #[test]
    fn checks_name_what_is_missing() {
        let grant = Grant {
            owner: false,
            prefix: Bytes::from_static(b"a:"),
            permissions: vec![Permission::Read],
            execute: Execute::Unsaid,
        };
        assert!(grant.check(Permission::Read, b"a:1").is_ok());
        let outside = grant.check(Permission::Read, b"b:1").unwrap_err();
        assert_eq!(outside.to_string(), "the permission covers only keys that begin with `a:`");
        let missing = grant.check(Permission::Write, b"a:1").unwrap_err();
        assert_eq!(missing.to_string(), "the permission `write` is missing");
        assert!(grant.check_owner().is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", Credential::new("hunter2")).contains("hunter2"));
        assert!(!format!("{:?}", KeyHash::of("hunter2").unwrap()).contains("hunter2"));
    }
}
