//! `kvdb.scope`: the caller's grant, and what the script made of it.
//!
//! The effective scope is always the intersection of the grant and of what the script asked for, so
//! a script that builds a prefix from `kvdb.var` hands nobody somebody else's keys. A later
//! assignment replaces an earlier one: it may widen again, but never beyond the grant.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::kv::{Execute, Grant, Permission};

/// A grant and its narrowing.
pub(super) struct Scope {
    grant: Grant,
    effective: Grant,
    asked_prefix: Bytes,
    asked: Vec<Permission>,
    asked_execute: Execute,
}

impl Scope {
    pub(super) fn new(grant: Grant) -> Self {
        let effective = grant.clone();
        let (asked_prefix, asked) = (grant.prefix.clone(), grant.permissions.clone());
        let asked_execute = grant.execute.clone();
        Scope { grant, effective, asked_prefix, asked, asked_execute }
    }

    /// What the script may do.
    pub(super) fn effective(&self) -> &Grant {
        &self.effective
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

    pub(super) fn set_permissions(&mut self, permissions: Vec<Permission>, execute: Execute) {
        (self.asked, self.asked_execute) = (permissions, execute);
        self.narrow();
    }

    /// Which scripts a token may run that is asked for with these words. Where none of them speaks of
    /// scripts, it is as in the scope.
    pub(super) fn execute_within(&self, asked: Execute) -> Result<Execute> {
        match (&self.effective.execute, asked) {
            (own @ Execute::Only(_), Execute::Unsaid) => Ok(own.clone()),
            (Execute::Only(_), Execute::All) => {
                Err(Error::Forbidden("the permission `execute` is missing".to_owned()))
            }
            (_, Execute::Only(names)) => {
                names.iter().try_for_each(|name| self.effective.check_execute(name))?;
                Ok(Execute::Only(names))
            }
            (Execute::Unsaid | Execute::All, asked) => Ok(asked),
        }
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
        self.effective.execute = both(&self.grant.execute, &self.asked_execute);
    }
}

/// The scripts that both allow.
fn both(granted: &Execute, asked: &Execute) -> Execute {
    match (granted, asked) {
        (Execute::Only(granted), Execute::Only(asked)) => {
            Execute::Only(granted.iter().filter(|name| asked.contains(name)).cloned().collect())
        }
        (only @ Execute::Only(_), _) | (_, only @ Execute::Only(_)) => only.clone(),
        (granted, Execute::Unsaid) => granted.clone(),
        (_, Execute::All) => Execute::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::ScriptName;

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
        assert_eq!(scope.effective().prefix.as_ref(), b"users:");
        assert!(scope.check(Permission::Read, b"other").is_err());
        scope.set_prefix(Bytes::from_static(b"other:"));
        assert!(scope.effective().permissions.is_empty());
        assert!(scope.check(Permission::Read, b"other:a").is_err());
        scope.set_prefix(Bytes::from_static(b"users:2:"));
        scope.set_permissions(vec![Permission::Read], Execute::Unsaid);
        assert_eq!(scope.effective().permissions, [Permission::Read]);
        assert!(scope.check(Permission::Write, b"users:2:a").is_err());
    }

    #[test]
    fn scripts_only_narrow() {
        let name = |name: &str| ScriptName::parse(name).unwrap();
        let only = |names: &[&str]| Execute::Only(names.iter().copied().map(name).collect());
        let mut scope = Scope::new(Grant { execute: only(&["a", "b"]), ..Grant::owner() });
        for (asked, effective) in [
            (Execute::All, only(&["a", "b"])),
            (Execute::Unsaid, only(&["a", "b"])),
            (only(&["b", "c"]), only(&["b"])),
            (only(&["c"]), only(&[])),
        ] {
            scope.set_permissions(Vec::new(), asked);
            assert_eq!(scope.effective().execute, effective);
        }
        scope.set_permissions(Vec::new(), Execute::All);
        assert_eq!(scope.execute_within(Execute::Unsaid), Ok(only(&["a", "b"])));
        assert_eq!(scope.execute_within(only(&["a"])), Ok(only(&["a"])));
        assert!(scope.execute_within(only(&["a", "c"])).is_err());
        assert!(scope.execute_within(Execute::All).is_err());

        let mut free = Scope::new(Grant::owner());
        assert_eq!(free.execute_within(Execute::Unsaid), Ok(Execute::Unsaid));
        assert_eq!(free.execute_within(Execute::All), Ok(Execute::All));
        free.set_permissions(Vec::new(), only(&["a"]));
        assert!(free.execute_within(only(&["b"])).is_err());
    }

    #[test]
    fn lists_inside_of_both_prefixes() {
        let scope = scope("a:");
        assert_eq!(scope.list_prefix(Bytes::new()).unwrap().as_ref(), b"a:");
        assert_eq!(scope.list_prefix(Bytes::from_static(b"a:b")).unwrap().as_ref(), b"a:b");
        assert!(scope.list_prefix(Bytes::from_static(b"b")).is_err());
    }
}
