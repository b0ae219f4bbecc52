//! How fresh a read has to be: `?consistency=` and `?min_revision=`; and the age of what is stale.

use std::time::Duration;

use http::HeaderValue;

use super::Edge;
use super::answer::{self, AGE, Outcome, with_applied};
use super::call::Call;
use super::query::Query;
use crate::api::ErrorCode;
use crate::error::{Error, Result};
use crate::node::Consistency;

/// What a query asks of a read.
pub(super) fn of(query: &Query) -> Result<Consistency> {
    let stale = match query.text("consistency").as_deref() {
        None | Some("linearizable") => false,
        Some("stale") => true,
        Some(other) => {
            return Err(Error::invalid(format!(
                "there is no consistency `{other}`: choose linearizable or stale"
            )));
        }
    };
    let min_revision = match query.text("min_revision") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Error::invalid(format!("`min_revision` is a revision, a whole number, not `{text}`"))
        })?),
    };
    Ok(Consistency { stale, min_revision })
}

/// Says how old an answer may be, if it may: also a refusal, since a 404 of an old state is stale, too.
pub(super) fn with_age(
    edge: &Edge,
    call: &Call,
    outcome: Outcome,
    age: Option<Duration>,
) -> Outcome {
    let Some(age) = age else { return outcome };
    let mut response = outcome.unwrap_or_else(|failure| {
        edge.node.heed(&failure.error);
        // Of a script as well: nothing that reads stale data writes.
        let applied = ErrorCode::of(&failure.error).applied();
        with_applied(answer::from_failure(call, &failure, None), applied)
    });
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    response.headers_mut().insert(AGE, HeaderValue::from(age_ms));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked() {
        let ask = |raw: &str| of(&Query::parse(raw.as_bytes())).ok();
        let wanted = |stale, min_revision| Some(Consistency { stale, min_revision });
        assert_eq!(ask(""), wanted(false, None));
        assert_eq!(ask("consistency=linearizable"), wanted(false, None));
        assert_eq!(ask("consistency=stale&min_revision=7"), wanted(true, Some(7)));
        assert_eq!(ask("min_revision=18446744073709551615"), wanted(false, Some(u64::MAX)));
        for bad in [
            "consistency=",
            "consistency=STALE",
            "consistency=eventual",
            "min_revision=",
            "min_revision=-1",
            "min_revision=x",
            "min_revision=18446744073709551616",
        ] {
            assert_eq!(ask(bad), None, "{bad}");
        }
    }
}
