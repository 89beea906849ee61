//! Values of documents as an index keeps them: bytes in the order of what they stand for.

use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};

use crate::storage::IndexValue;

/// A value in bytes. Nothing comes first, then `false`, `true`, numbers, and texts by their characters. A text
/// of more than [`TEXT_BYTES_MAX`] bytes stands behind all that begin with so many of its bytes, in no order
/// of its own; objects and arrays come last, in none. Different values have different bytes, but for numbers
/// that are equal.
#[must_use]
pub(crate) fn index_value(value: &Value) -> IndexValue {
    let bytes = match value {
        Value::Null => vec![NULL],
        Value::Bool(false) => vec![FALSE],
        Value::Bool(true) => vec![TRUE],
        Value::Number(number) => number_bytes(number),
        Value::String(text) => text_bytes(text.as_bytes()),
        Value::Array(_) | Value::Object(_) => {
            let digest = Sha256::digest(value.to_string());
            [&[OTHER], &*digest].concat()
        }
    };
    IndexValue(bytes.into())
}

const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const NUMBER: u8 = 4;
const TEXT: u8 = 5;
const OTHER: u8 = 6;

/// So much of a text is in its order.
const TEXT_BYTES_MAX: usize = 200;
/// Comes behind all bytes of UTF-8.
const LONGER: u8 = 0xff;

fn text_bytes(text: &[u8]) -> Vec<u8> {
    match text.split_at_checked(TEXT_BYTES_MAX) {
        Some((first, rest)) if !rest.is_empty() => {
            [&[TEXT], first, &[LONGER], &*Sha256::digest(text)].concat()
        }
        Some(_) | None => [&[TEXT], text].concat(),
    }
}

fn number_bytes(number: &Number) -> Vec<u8> {
    let float = number.as_f64().unwrap_or_default();
    // Zero has two signs and one value.
    let bits = (float + 0.0).to_bits();
    // Of negative ones all bits are turned, of others the sign: then they are in order.
    let ordered = if float.is_sign_negative() && bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    let mut bytes = [&[NUMBER], &ordered.to_be_bytes()[..]].concat();
    // Whole numbers beyond this are not all of them floats.
    if let Some(whole) = number.as_i128().filter(|whole| whole.unsigned_abs() > 1 << 53) {
        bytes.extend((whole ^ i128::MIN).to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_are_in_the_order_of_values() {
        let long = |end: &str| json!("x".repeat(TEXT_BYTES_MAX) + end);
        let values = [
            json!(null),
            json!(false),
            json!(true),
            json!(f64::MIN),
            json!(i64::MIN),
            json!(i64::MIN + 1),
            json!(-2),
            json!(-1.5),
            json!(-1),
            json!(-1e-300),
            json!(0),
            json!(1e-300),
            json!(1),
            json!(1.5),
            json!(1_705_329_120_000_i64),
            json!((1_i64 << 53) + 1),
            json!((1_i64 << 53) + 2),
            json!(u64::MAX - 1),
            json!(u64::MAX),
            json!(f64::MAX),
            json!(""),
            json!("\u{0}"),
            json!("A"),
            json!("a"),
            json!("a\u{0}"),
            json!("ab"),
            json!("b"),
            json!("x".repeat(TEXT_BYTES_MAX - 1)),
            long(""),
            long("y"),
            json!("y"),
            json!("ä"),
            json!("\u{10ffff}"),
            json!([]),
        ];
        let bytes: Vec<_> = values.iter().map(index_value).collect();
        for (index, pair) in bytes.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "{} and {}", values[index], values[index + 1]);
        }
        assert!(bytes.iter().all(|value| value.0.len() <= IndexValue::BYTES_MAX));
    }

    #[test]
    fn equal_values_have_equal_bytes_and_others_have_not() {
        let long = "x".repeat(TEXT_BYTES_MAX);
        for (one, other, are_equal) in [
            (json!(1), json!(1.0), true),
            (json!(0), json!(-0.0), true),
            (json!("1"), json!(1), false),
            (json!(format!("{long}a")), json!(format!("{long}b")), false),
            (json!([1]), json!([2]), false),
            (json!({}), json!([]), false),
        ] {
            assert_eq!(index_value(&one) == index_value(&other), are_equal, "{one} {other}");
        }
    }
}
