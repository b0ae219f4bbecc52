//! Keys and values as JSON text: a number that a value spells goes unquoted, to the last digit.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::number::Number;

/// Appends a JSON string; bytes that are no UTF-8 become U+FFFD, for JSON has no others.
pub fn push_string(text: &mut Vec<u8>, bytes: &[u8]) {
    let string = String::from_utf8_lossy(bytes);
    text.extend_from_slice(serde_json::Value::from(string).to_string().as_bytes());
}

/// Appends a value: a number as it is spelled, all else as a string.
pub fn push_value(text: &mut Vec<u8>, value: &[u8]) {
    if is_number(value) {
        text.extend_from_slice(value);
    } else {
        push_string(text, value);
    }
}

/// Appends `"NAME":"TEXT"`, or `"NAME_base64":"…"` where the bytes are no UTF-8.
pub fn push_text(text: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    if std::str::from_utf8(bytes).is_err() {
        return push_field(text, name, bytes);
    }
    push_string(text, name.as_bytes());
    text.push(b':');
    push_string(text, bytes);
}

/// Appends `"NAME":VALUE`, or `"NAME_base64":"…"` where the bytes are no UTF-8: nothing is lost.
pub fn push_field(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    if std::str::from_utf8(value).is_ok() {
        push_string(text, name.as_bytes());
        text.push(b':');
        return push_value(text, value);
    }
    push_string(text, format!("{name}_base64").as_bytes());
    text.push(b':');
    push_string(text, BASE64_STANDARD.encode(value).as_bytes());
}

/// Whether a value is a number that goes unquoted: one of ours, in JSON's own spelling.
#[must_use]
pub fn is_number(value: &[u8]) -> bool {
    let spelled = value.first().is_some_and(|byte| *byte == b'-' || byte.is_ascii_digit())
        && value.last().is_some_and(u8::is_ascii_digit)
        && serde_json::from_slice::<serde_json::Number>(value).is_ok();
    spelled && Number::parse(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        push(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn numbers_go_unquoted_to_the_last_digit() {
        for number in ["9007199254740993", "-1", "0.1", "1e300", "9223372036854775807"] {
            assert_eq!(shown(|text| push_value(text, number.as_bytes())), number);
        }
        for other in ["", "01", "+1", " 1", "1 ", ".5", "9223372036854775808", "nan", "a\"b"] {
            let quoted = serde_json::Value::from(other).to_string();
            assert_eq!(shown(|text| push_value(text, other.as_bytes())), quoted);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        assert_eq!(shown(|text| push_field(text, "value", b"a")), r#""value":"a""#);
        assert_eq!(shown(|text| push_field(text, "value", b"7")), r#""value":7"#);
        assert_eq!(shown(|text| push_field(text, "value", b"\xff")), r#""value_base64":"/w==""#);
    }
}
