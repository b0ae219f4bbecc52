//! Who may do what in a bucket: keys, permissions and grants.
//!
//! A bucket has up to four keys. The secret key may do everything. The write key and the read key
//! each stand for their kind; where no key of a kind is set, that kind is open to everybody, except
//! that listing needs the secret key once there is one. Keys are stored hashed and compared in
//! constant time. HTTP only says who asks ([`Credential`]); the grant is judged in the state that the
//! command runs on.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::limits::POLICY_KEY_BYTES_MAX;
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
    /// Seconds that a key lives unless it says otherwise; 0 is for ever.
    pub default_ttl: u64,
    /// Whom to write to about the bucket.
    pub email: Option<String>,
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
                "no permission `{word}`: there are read, write, enumerate and delete"
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
}

impl Grant {
    /// Everything.
    #[must_use]
    pub fn owner() -> Self {
        Grant { owner: true, prefix: Bytes::new(), permissions: Permission::ALL.to_vec() }
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

impl Policy {
    /// What the bearer of a credential may do.
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
                "the credential fits no key of this bucket".to_owned(),
            ));
        }
        let write = writer || self.write_key.is_none();
        let read = reader || self.read_key.is_none();
        let may = |permission: &Permission| match permission {
            Permission::Read => read,
            Permission::Write | Permission::Delete => write,
            Permission::Enumerate => read && self.secret_key.is_none(),
        };
        Ok(Grant {
            // Without a secret key nobody is a stranger; else a stranger could claim the bucket.
            owner: self.secret_key.is_none() && write && read,
            prefix: Bytes::new(),
            permissions: Permission::ALL.into_iter().filter(may).collect(),
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
    fn checks_name_what_is_missing() {
        let grant = Grant {
            owner: false,
            prefix: Bytes::from_static(b"a:"),
            permissions: vec![Permission::Read],
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
