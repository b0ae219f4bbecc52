//! `kvdb.scope`: the caller's grant, and what the script made of it.
//!
//! The effective scope is always the intersection of the grant and of what the script asked for, so
//! a script that builds a prefix from `kvdb.var` hands nobody somebody else's keys. A later
//! assignment replaces an earlier one: it may widen again, but never beyond the grant.

use bytes::Bytes;

use crate::error::Result;
use crate::kv::{Grant, Permission};

/// A grant and its narrowing.
pub(super) struct Scope {
    grant: Grant,
    effective: Grant,
    asked_prefix: Bytes,
    asked: Vec<Permission>,
}

impl Scope {
    pub(super) fn new(grant: Grant) -> Self {
        let effective = grant.clone();
        let (asked_prefix, asked) = (grant.prefix.clone(), grant.permissions.clone());
        Scope { grant, effective, asked_prefix, asked }
    }

    pub(super) fn prefix(&self) -> &Bytes {
        &self.effective.prefix
    }

    pub(super) fn permissions(&self) -> &[Permission] {
        &self.effective.permissions
    }

    pub(super) fn check(&self, permission: Permission, key: &[u8]) -> Result<()> {
        self.effective.check(permission, key)
    }

    /// The prefix to list when `prefix` is asked for: inside both.
    pub(super) fn list_prefix(&self, prefix: Bytes) -> Result<Bytes> {
        let inside = if self.effective.prefix.starts_with(&prefix) {
            self.effective.prefix.clone()
        } else {
            prefix
        };
        self.check(Permission::Enumerate, &inside)?;
        Ok(inside)
    }

    pub(super) fn set_prefix(&mut self, prefix: Bytes) {
        self.asked_prefix = prefix;
        self.narrow();
    }

    pub(super) fn set_permissions(&mut self, permissions: Vec<Permission>) {
        self.asked = permissions;
        self.narrow();
    }

    fn narrow(&mut self) {
        let (granted, asked) = (&self.grant.prefix, &self.asked_prefix);
        // Where neither prefix lies within the other, no key is left, and so no permission.
        let disjoint = !asked.starts_with(granted) && !granted.starts_with(asked);
        let inside = if granted.starts_with(asked) { granted } else { asked };
        self.effective.prefix = inside.clone();
        self.effective.permissions = self
            .grant
            .permissions
            .iter()
            .filter(|permission| !disjoint && self.asked.contains(permission))
            .copied()
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(prefix: &'static str) -> Scope {
        Scope::new(Grant { prefix: Bytes::from_static(prefix.as_bytes()), ..Grant::owner() })
    }

    #[test]
    fn narrows_and_never_widens() {
        let mut scope = scope("users:");
        scope.set_prefix(Bytes::from_static(b"users:1:"));
        assert!(scope.check(Permission::Read, b"users:1:a").is_ok());
        assert!(scope.check(Permission::Read, b"users:2:a").is_err());
        scope.set_prefix(Bytes::new());
        assert_eq!(scope.prefix().as_ref(), b"users:");
        assert!(scope.check(Permission::Read, b"other").is_err());
        scope.set_prefix(Bytes::from_static(b"other:"));
        assert!(scope.permissions().is_empty());
        assert!(scope.check(Permission::Read, b"other:a").is_err());
        scope.set_prefix(Bytes::from_static(b"users:2:"));
        scope.set_permissions(vec![Permission::Read]);
        assert_eq!(scope.permissions(), [Permission::Read]);
        assert!(scope.check(Permission::Write, b"users:2:a").is_err());
    }

    #[test]
    fn lists_inside_of_both_prefixes() {
        let scope = scope("a:");
        assert_eq!(scope.list_prefix(Bytes::new()).unwrap().as_ref(), b"a:");
        assert_eq!(scope.list_prefix(Bytes::from_static(b"a:b")).unwrap().as_ref(), b"a:b");
        assert!(scope.list_prefix(Bytes::from_static(b"b")).is_err());
    }
}
