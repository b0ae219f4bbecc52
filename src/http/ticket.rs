//! Tickets as they travel: a nonce, and how often the call was redirected with one.

/// The most nodes that may hand a call on; more would be a loop.
pub(super) const HOPS_MAX: u8 = 3;

/// A ticket in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// What the node that issued it knows it by.
    pub(super) nonce: String,
    /// How many redirects led here; at least one.
    pub(super) hops: u8,
}

impl Ticket {
    /// Reads `NONCE` or, from the second redirect on, `NONCE.HOPS`.
    pub(super) fn parse(text: &str) -> Self {
        let (nonce, hops) = text.split_once('.').unwrap_or((text, "1"));
        // What is no count was not made here: count it as too many.
        Ticket { nonce: nonce.to_owned(), hops: hops.parse().unwrap_or(u8::MAX) }
    }

    /// The inverse of [`Ticket::parse`].
    pub(super) fn text(&self) -> String {
        match self.hops {
            0 | 1 => self.nonce.clone(),
            hops => format!("{}.{hops}", self.nonce),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::fuzz;

    #[test]
    fn hops_travel_from_the_second_redirect_on() {
        for (text, hops) in [("abc", 1), ("abc.2", 2), ("abc.3", 3)] {
            let ticket = Ticket::parse(text);
            assert_eq!((ticket.nonce.as_str(), ticket.hops), ("abc", hops));
            assert_eq!(ticket.text(), text);
        }
        for forged in ["abc.", "abc.x", "abc.-1", "abc.999"] {
            assert!(Ticket::parse(forged).hops > HOPS_MAX, "{forged}");
        }
    }

    #[test]
    fn no_ticket_harms() {
        fuzz(300, prop_oneof![any::<String>(), "[a-z]{0,3}\\.?[0-9.+-]{0,4}"], |text: String| {
            let ticket = Ticket::parse(&text);
            if (1..=HOPS_MAX).contains(&ticket.hops) {
                prop_assert_eq!(Ticket::parse(&ticket.text()), ticket);
            }
            Ok(())
        });
    }
}
