//! Counters: numbers as text, exact to the last bit.
//!
//! A value is an int64 where its text is one, else a float64. Integers add as integers, and overflow
//! is an error, never a wrap; as soon as one side is a float, the sum is one.

use crate::error::{Error, Result};

/// A number that a key can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Exact.
    Int(i64),
    /// Finite.
    Float(f64),
}

impl Number {
    /// Parses a counter's text, with an optional sign.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let refuse = || Error::invalid("not a number: a counter is an int64 or float64 as text");
        let text = std::str::from_utf8(text).map_err(|_| refuse())?.trim();
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() {
            return Err(refuse());
        }
        if digits.bytes().all(|b| b.is_ascii_digit()) {
            let overflow = |_| Error::invalid("the number does not fit in an int64");
            return text.parse().map(Number::Int).map_err(overflow);
        }
        // `inf` and `nan` parse as floats, but begin with no digit.
        let plausible = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        match text.parse::<f64>() {
            Ok(float) if plausible && float.is_finite() => Ok(Number::Float(float)),
            _ => Err(refuse()),
        }
    }

    /// The sum, or why there is none.
    pub fn plus(self, by: Number) -> Result<Number> {
        match (self, by) {
            (Number::Int(a), Number::Int(b)) => a
                .checked_add(b)
                .map(Number::Int)
                .ok_or_else(|| Error::invalid("the sum does not fit in an int64")),
            (a, b) => {
                let sum = a.as_float() + b.as_float();
                if !sum.is_finite() {
                    return Err(Error::invalid("the sum does not fit in a float64"));
                }
                Ok(Number::Float(sum))
            }
        }
    }

    fn as_float(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "a sum with a float is a float")]
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Int(int) => write!(f, "{int}"),
            Number::Float(float) => f.write_str(&float_text(*float)),
        }
    }
}

/// The shortest text that reads back as the same float. Whole numbers that fit in an int64 look like
/// one; larger and tiny ones take an exponent, so that they read back as floats.
#[must_use]
pub fn float_text(float: f64) -> String {
    const INT_END: f64 = 9_223_372_036_854_775_808.0;
    let whole = float.fract() == 0.0;
    if whole && (-INT_END..INT_END).contains(&float) {
        #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole int64")]
        let int = float as i64;
        return int.to_string();
    }
    if float.is_finite() && (whole || float.abs() < 1e-6) {
        return format!("{float:e}");
    }
    format!("{float}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn add(a: &str, b: &str) -> Result<String> {
        Ok(Number::parse(a.as_bytes())?.plus(Number::parse(b.as_bytes())?)?.to_string())
    }

    #[test]
    fn adds_as_text() {
        for (a, b, sum) in [
            ("0", "1", "1"),
            ("9007199254740992", "1", "9007199254740993"),
            ("9223372036854775806", "+1", "9223372036854775807"),
            ("-5", "-5", "-10"),
            ("0.1", "0.2", "0.30000000000000004"),
            ("1.5", "1.5", "3"),
            ("1", "0.5", "1.5"),
            ("1e300", "0", "1e300"),
            ("9223372036854775807", "0.0", "9.223372036854776e18"),
            (" 7\n", "1", "8"),
        ] {
            assert_eq!(add(a, b).unwrap(), sum, "{a} + {b}");
        }
    }

    #[test]
    fn refuses_what_is_no_number() {
        for bad in
            ["", "+", "a", "1x", "nan", "inf", "-inf", "1e999", "0x10", "9223372036854775808"]
        {
            assert!(Number::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Number::parse(b"\xff").is_err());
        assert!(add("9223372036854775807", "1").is_err());
        assert!(add("-9223372036854775808", "-1").is_err());
        assert!(add("1e308", "1e308").is_err());
    }

    proptest! {
        #[test]
        fn floats_read_back(float in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let read = Number::parse(float_text(float).as_bytes()).unwrap().as_float();
            prop_assert_eq!(read, float);
        }
    }
}
