//! How fresh a read must be: `consistency` and `min_revision`.

#![cfg_attr(not(test), expect(dead_code, reason = "no read asks for it yet"))]

use super::query::Query;
use crate::error::{Error, Result};

/// What a read asks of the state that it is served from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Consistency {
    /// Whether what this node has will do, without a word from the leader.
    pub(super) stale: bool,
    /// The bucket's revision that must be there at least.
    pub(super) min_revision: Option<u64>,
}

impl Consistency {
    /// What a query asks for; linearizable, and any revision, where it is silent.
    pub(super) fn of(query: &Query) -> Result<Self> {
        let stale = match query.text("consistency").as_deref() {
            None | Some("linearizable") => false,
            Some("stale") => true,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "there is no consistency `{other}`: choose linearizable or stale"
                )));
            }
        };
        let min_revision = query.text("min_revision").map(|text| {
            text.parse().map_err(|_| {
                Error::invalid(format!(
                    "`min_revision` is a revision as X-Kvdb-Revision tells it, not `{text}`"
                ))
            })
        });
        Ok(Consistency { stale, min_revision: min_revision.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_asks_for() {
        let of = |query: &str| Consistency::of(&Query::parse(query.as_bytes()));
        let fresh = Consistency::default();
        for (query, expected) in [
            ("", fresh),
            ("consistency=linearizable&x=1", fresh),
            ("consistency=stale", Consistency { stale: true, ..fresh }),
            ("min_revision=0", Consistency { min_revision: Some(0), ..fresh }),
            (
                "min_revision=18446744073709551615&consistency=stale",
                Consistency { stale: true, min_revision: Some(u64::MAX) },
            ),
        ] {
            assert_eq!(of(query).unwrap(), expected, "{query}");
        }
        for (query, named) in [
            ("consistency=", "linearizable or stale"),
            ("consistency=STALE", "`STALE`"),
            ("min_revision=", "min_revision"),
            ("min_revision=-1", "`-1`"),
            ("min_revision=18446744073709551616", "X-Kvdb-Revision"),
        ] {
            let error = of(query).unwrap_err();
            assert!(matches!(&error, Error::Invalid(text) if text.contains(named)), "{error}");
        }
    }
}
