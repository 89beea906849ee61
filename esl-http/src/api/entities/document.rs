//! JSON out of a body as a value that is kept: nothing of it may change on the way.
//!
//! Where readers of JSON differ (members that stand there twice, halves of characters, numbers of more digits
//! than they hold), it is refused by its place, and not read in one of the ways.

use esl_core::{DOCUMENT_LEVELS_MAX, Document, FORBIDDEN_NAME};
use serde_json::{Number, Value, value::RawValue};

use super::super::{
    fault::{Faults, Place},
    json::{self, Items, Members},
    problem::{Code, Problem},
};

/// Reads a body that is to be one object.
pub(super) fn object(body: &[u8]) -> Result<Document, Problem> {
    match value(body)? {
        Value::Object(document) => Ok(document),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Faults::only(Place::root(), "expected an object"))
        }
    }
}

/// Reads a body.
pub(super) fn value(body: &[u8]) -> Result<Value, Problem> {
    let raw: &RawValue = serde_json::from_slice(body).map_err(|error| json::malformed(&error))?;
    let mut reader = Reader { at: String::new(), values: 0, faults: Faults::default() };
    let value = reader.value(raw, DOCUMENT_LEVELS_MAX)?;
    reader.faults.check()?;
    Ok(value)
}

struct Reader {
    /// The pointer to what is being read.
    at: String,
    /// How many there were.
    values: usize,
    faults: Faults,
}

impl Reader {
    /// Reads what may be nested so many levels deep. What is a fault is read as nothing.
    fn value(&mut self, raw: &RawValue, levels: usize) -> Result<Value, Problem> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(too_many());
        }
        let text = raw.get();
        let read = match text.as_bytes() {
            [b'{' | b'[', ..] if levels == 0 => return Err(too_deep()),
            [b'{', ..] => match Members::of(raw) {
                Some(members) => return self.object(&members, levels - 1).map(Value::Object),
                None => Err("expected names of members whose escapes are characters"),
            },
            [b'[', ..] => match Items::of(raw, usize::MAX) {
                Some(items) => return self.array(&items, levels - 1).map(Value::Array),
                None => Err("expected an array"),
            },
            [b'"', ..] => json::text(raw).map(|text| text.into_owned().into()),
            [b't', ..] => Ok(Value::Bool(true)),
            [b'f', ..] => Ok(Value::Bool(false)),
            [b'n', ..] => Ok(Value::Null),
            _ => number(text).map(Value::Number).ok_or(
                "expected a number that 64 bits hold as it is: a whole one, or one of up to 15 digits",
            ),
        };
        Ok(read.unwrap_or_else(|detail| {
            self.faults.add(Place::pointed(&self.at), detail);
            Value::Null
        }))
    }

    fn object(&mut self, members: &Members<'_>, levels: usize) -> Result<Document, Problem> {
        members.refuse_repeated(&self.at, &mut self.faults);
        let mut object = Document::new();
        for (name, raw) in members.iter() {
            if name == FORBIDDEN_NAME {
                let place = Place::member(&self.at, name);
                self.faults.add(place, "a member cannot have this name");
                continue;
            }
            let value = self.within(&name.replace('~', "~0").replace('/', "~1"), raw, levels)?;
            object.insert(name.to_owned(), value);
        }
        Ok(object)
    }

    fn array(&mut self, items: &Items<'_>, levels: usize) -> Result<Vec<Value>, Problem> {
        let items = items.list.iter().enumerate();
        items.map(|(index, raw)| self.within(&index.to_string(), raw, levels)).collect()
    }

    fn within(&mut self, name: &str, raw: &RawValue, levels: usize) -> Result<Value, Problem> {
        let above = self.at.len();
        self.at.push('/');
        self.at.push_str(name);
        let value = self.value(raw, levels);
        self.at.truncate(above);
        value
    }
}

fn too_deep() -> Problem {
    let detail = format!("the body is nested more than {DOCUMENT_LEVELS_MAX} levels deep");
    Problem::new(Code::Malformed, detail)
}

fn too_many() -> Problem {
    Problem::new(Code::TooLarge, format!("a body here has at most {VALUES_MAX} values"))
}

/// A number takes two bytes of a body, and in memory a value takes eighty, several times over.
const VALUES_MAX: usize = 50_000;

/// A number that says the same when it is written again.
fn number(text: &str) -> Option<Number> {
    let number: Number = text.parse().ok()?;
    let is_whole = number.is_i64() || number.is_u64();
    (is_whole || Decimal::of(text) == Decimal::of(&number.to_string())).then_some(number)
}

/// Whether two numbers are the same, however they are written.
pub(super) fn are_equal(one: &Number, other: &Number) -> bool {
    one == other || Decimal::of(&one.to_string()) == Decimal::of(&other.to_string())
}

/// What the digits of a number in JSON stand for: `0.digits × 10^exponent`, the first and the last of them not
/// zero.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let is_negative = mantissa.starts_with('-');
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('-');
        let digits = [whole, fraction].concat();
        let significant = digits.trim_start_matches('0');
        if significant.is_empty() {
            return Self { is_negative: false, digits: String::new(), exponent: 0 };
        }
        // No number of ours has an exponent of so many digits.
        let exponent: i32 = exponent.parse().unwrap_or(i32::MAX);
        let zeros = digits.len() - significant.len();
        let point = i64::try_from(whole.len()).unwrap_or(i64::MAX / 2);
        let exponent = i64::from(exponent) + point - i64::try_from(zeros).unwrap_or_default();
        Self { is_negative, digits: significant.trim_end_matches('0').to_owned(), exponent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_if_it_is_the_same_when_it_is_written() {
        for right in [
            "0",
            "-0",
            "-0.0e5",
            "1",
            "1.0",
            "1e2",
            "1E+2",
            "100e-2",
            "0.1",
            "0.10",
            "-1.5",
            "1e-7",
            "0.000001",
            "123456789012345.6",
            "9007199254740993",
            "18446744073709551615",
            "-9223372036854775808",
            "1e300",
            "1.7976931348623157e308",
            "5e-324",
            "0.30000000000000004",
            "1000000000000000000000",
            "2.638344616030823e-256",
            "0e99999999999",
        ] {
            assert!(number(right).is_some(), "{right}");
        }
        let many = "9".repeat(100_000);
        for wrong in [
            "18446744073709551617",
            "-9223372036854775809",
            "0.1234567890123456789",
            "1e999",
            "-1e999",
            "1e-999",
            "1e-99999999999999999999",
            "1e99999999999999999999",
            "1.00000000000000000001",
            "123456789.123456789123",
            &many,
            &format!("0.{many}"),
            &format!("1e{many}"),
        ] {
            assert_eq!(number(wrong), None, "{}", &wrong[..wrong.len().min(60)]);
        }
    }

    #[test]
    fn every_fault_has_its_place_and_what_is_right_stays_as_it_is() {
        let right = r#"{"b":[1,{"a":"\u00e9\n"},null,true],"a":{"":-1.5e3,"~/":false}}"#;
        let read = object(right.as_bytes()).expect("it is right");
        assert_eq!(
            Value::Object(read).to_string(),
            right.replace("\\u00e9", "é").replace("-1.5e3", "-1500.0")
        );
        for (wrong, places) in [
            (r#"{"a":1,"a":1}"#, &["/a"][..]),
            (r#"{"a":[{"b":{"~/":1,"\u007e/":2}}]}"#, &["/a/0/b/~0~1"]),
            (r#"{"a":1e999,"b":[0.1,"\ud800"],"c":{"\ud800":1}}"#, &["/a", "/b/1", "/c"]),
            ("[]", &[""]),
            ("1", &[""]),
        ] {
            let problem = format!("{:?}", object(wrong.as_bytes()).expect_err(wrong));
            assert_eq!(problem.matches("place: ").count(), places.len(), "{problem}");
            for place in places {
                assert!(problem.contains(&format!("Pointer({place:?})")), "{place} in {problem}");
            }
        }
    }

    #[test]
    fn a_body_of_endless_values_is_cut_off() {
        let items = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(value(items(VALUES_MAX - 1).as_bytes()).is_ok());
        let problem = format!("{:?}", value(items(VALUES_MAX).as_bytes()).expect_err("too many"));
        assert!(problem.contains("TooLarge"), "{problem}");
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused_whole() {
        let nested = |levels: usize| "[".repeat(levels) + "1" + &"]".repeat(levels);
        assert!(value(nested(DOCUMENT_LEVELS_MAX).as_bytes()).is_ok());
        for levels in [DOCUMENT_LEVELS_MAX + 1, 500_000] {
            let problem =
                format!("{:?}", value(nested(levels).as_bytes()).expect_err("it is deep"));
            assert!(problem.contains("Malformed"), "{problem}");
        }
    }
}
