//! JSON out of a body, once.
//!
//! Bodies are not deserialized into structs, because a caller is to be told everything that is wrong
//! at once and by place, and because `data` must stay the JSON it is. So an object is read into its
//! [`Members`], each still raw; no reader here recurses, however deep the JSON is nested.

use std::{borrow::Cow, collections::HashSet, fmt, ops::RangeInclusive};

use esl_core::{Timestamp, TimestampError};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    fault::{Faults, Place},
    problem::{Code, Problem},
};

/// A body that is one object or an array.
#[derive(Debug)]
pub(super) enum OneOrMany<'a> {
    One(Members<'a>),
    Many(Items<'a>),
}

/// Parses a body that is to be one object or an array, of which `kept_max` items matter.
pub(super) fn one_or_many(body: &[u8], kept_max: usize) -> Result<OneOrMany<'_>, Problem> {
    if first(body) == Some(b'[') {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let items = ItemsSeed { kept_max }
            .deserialize(&mut deserializer)
            .map_err(|error| malformed(&error))?;
        deserializer.end().map_err(|error| malformed(&error))?;
        return Ok(OneOrMany::Many(items));
    }
    object(body).map(OneOrMany::One)
}

/// Parses a body that is to be one object.
pub(super) fn object(body: &[u8]) -> Result<Members<'_>, Problem> {
    if first(body) == Some(b'{') {
        return serde_json::from_slice(body).map_err(|error| malformed(&error));
    }
    serde_json::from_slice::<IgnoredAny>(body).map_err(|error| malformed(&error))?;
    Err(Faults::only(Place::root(), "expected an object"))
}

fn first(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// The members of an object, in order, their values raw.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    list: Vec<(Cow<'a, str>, &'a RawValue)>,
    is_cut_off: bool,
}

impl<'a> Members<'a> {
    /// Reads an object from its raw JSON; `None` if it is something else.
    pub(super) fn of(raw: &'a RawValue) -> Option<Self> {
        // Raw JSON has been parsed before, but an object's keys only now become text, and not every
        // escape is one.
        raw.get().starts_with('{').then(|| serde_json::from_str(raw.get()).ok())?
    }

    /// The value of a member; of several, the first.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.list.iter().find(|(key, _)| key == name).map(|&(_, value)| value)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.list.iter().map(|(name, value)| (&**name, *value))
    }

    /// Reads a member that may be left out; a fault if it is there and `read` refuses it.
    pub(super) fn optional<T, E: Into<Cow<'static, str>>>(
        &self,
        at: &str,
        name: &str,
        faults: &mut Faults,
        read: impl FnOnce(&'a RawValue) -> Result<T, E>,
    ) -> Option<T> {
        match read(self.get(name)?) {
            Ok(value) => Some(value),
            Err(detail) => {
                faults.add(Place::member(at, name), detail);
                None
            }
        }
    }

    /// Reads a member that must be there; `None` comes with a fault.
    pub(super) fn required<T, E: Into<Cow<'static, str>>>(
        &self,
        at: &str,
        name: &str,
        faults: &mut Faults,
        read: impl FnOnce(&'a RawValue) -> Result<T, E>,
    ) -> Option<T> {
        if self.get(name).is_none() {
            faults.add(Place::member(at, name), "this member is missing");
        }
        self.optional(at, name, faults, read)
    }

    /// Finds fault with members that are not among `known`, or that stand there twice.
    pub(super) fn finish(&self, at: &str, known: &[&str], faults: &mut Faults) {
        self.refuse_repeated(at, faults);
        for (name, _) in self.iter().filter(|(name, _)| !known.contains(name)) {
            faults.add(Place::member(at, name), "there is no such member");
        }
    }

    /// Finds fault with members that stand there twice: readers differ on which of them counts.
    pub(super) fn refuse_repeated(&self, at: &str, faults: &mut Faults) {
        let mut names = HashSet::new();
        for (index, (name, _)) in self.list.iter().enumerate() {
            // Few members are compared quicker than they are hashed.
            let is_repeated = if self.list.len() <= 8 {
                self.list[..index].iter().any(|(earlier, _)| earlier == name)
            } else {
                !names.insert(&**name)
            };
            if is_repeated {
                faults.add(Place::member(at, name), "this member stands there more than once");
            }
        }
        if self.is_cut_off {
            faults.add(
                Place::Pointer(at.to_owned()),
                format!("an object here has at most {MEMBERS_MAX} members"),
            );
        }
    }
}

/// The items of an array, raw; those beyond a bound are only counted.
#[derive(Debug)]
pub(super) struct Items<'a> {
    pub(super) list: Vec<&'a RawValue>,
    pub(super) count: usize,
}

impl<'a> Items<'a> {
    /// Reads an array from its raw JSON; `None` if it is something else.
    pub(super) fn of(raw: &'a RawValue, kept_max: usize) -> Option<Self> {
        raw.get().starts_with('[').then(|| {
            let mut deserializer = serde_json::Deserializer::from_str(raw.get());
            ItemsSeed { kept_max }.deserialize(&mut deserializer).ok()
        })?
    }
}

/// A time, as RFC 3339 writes it.
pub(super) fn time(raw: &RawValue) -> Result<Timestamp, Cow<'static, str>> {
    text(raw)?.parse().map_err(|error: TimestampError| error.to_string().into())
}

/// A string, unescaped.
pub(super) fn text(raw: &RawValue) -> Result<Cow<'_, str>, &'static str> {
    if !raw.get().starts_with('"') {
        return Err("expected a string");
    }
    match serde_json::from_str(raw.get()) {
        Ok(Text(text)) => Ok(text),
        Err(_) => Err("expected a string whose escapes are characters"),
    }
}

/// `true` or `false`.
pub(super) fn boolean(raw: &RawValue) -> Result<bool, &'static str> {
    match raw.get() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("expected true or false"),
    }
}

/// Whether it is `null`.
pub(super) fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

/// A whole number in a range, written as such.
pub(super) fn whole(raw: &RawValue, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = raw.get().parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a whole number, {} to {}", range.start(), range.end()))
}

/// What is no JSON.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    // The parser's own words name a line and a column and quote nothing of the body.
    Problem::new(Code::Malformed, format!("the body is not JSON: {error}"))
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members { list: Vec::with_capacity(8), is_cut_off: false };
                while let Some(Text(name)) = map.next_key()? {
                    if members.list.len() < MEMBERS_MAX {
                        members.list.push((name, map.next_value()?));
                    } else {
                        members.is_cut_off = true;
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Reads an array, keeping the first `kept_max` items.
struct ItemsSeed {
    kept_max: usize,
}

impl<'de> DeserializeSeed<'de> for ItemsSeed {
    type Value = Items<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Items<'de>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Items<'de>, A::Error> {
        let mut list = Vec::new();
        while list.len() < self.kept_max {
            match sequence.next_element()? {
                Some(item) => list.push(item),
                None => return Ok(Items { count: list.len(), list }),
            }
        }
        let mut count = list.len();
        while sequence.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Items { list, count })
    }
}

/// A string that stays where it is if it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// More members than any of our objects needs, few enough to hold.
const MEMBERS_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn members(body: &str) -> Members<'_> {
        object(body.as_bytes()).expect("an object")
    }

    fn faults(find: impl FnOnce(&mut Faults)) -> String {
        let mut faults = Faults::default();
        find(&mut faults);
        faults.check().map_or_else(|problem| format!("{problem:?}"), |()| String::new())
    }

    #[test]
    fn values_stay_as_they_are() {
        let body = "{ \"a\" : 1.50 , \"\\u0062\" : [ 1,\t2 ],\n\"c\":{\"\":null}}";
        let members = members(body);
        let pairs: Vec<_> = members.iter().map(|(name, raw)| (name, raw.get())).collect();
        assert_eq!(pairs, [("a", "1.50"), ("b", "[ 1,\t2 ]"), ("c", "{\"\":null}")]);
    }

    #[test]
    fn repeated_members_are_found_in_small_and_large_objects() {
        let mut large: String = (0..2000).map(|number| format!("\"m{number}\":0,")).collect();
        large.push_str("\"m7\":0");
        for (inner, repeated) in [("\"a\":1,\"b\":2,\"\\u0061\":3", "/a"), (&large, "/m7")] {
            let body = format!("{{{inner}}}");
            let found = faults(|faults| members(&body).refuse_repeated("", faults));
            assert_eq!(found.matches("more than once").count(), 1, "{found}");
            assert!(found.contains(&format!("{repeated:?}")), "{found}");
        }
    }

    #[test]
    fn an_object_of_endless_members_is_cut_off() {
        let inner: Vec<_> = (0..=MEMBERS_MAX).map(|number| format!("\"{number}\":0")).collect();
        let body = format!("{{{}}}", inner.join(","));
        let members = members(&body);
        assert_eq!(members.iter().count(), MEMBERS_MAX);
        assert!(faults(|faults| members.refuse_repeated("", faults)).contains("at most 2048"));
    }

    #[test]
    fn items_beyond_the_bound_are_counted_and_not_kept() {
        for (json, kept, count) in [("[]", 0, 0), ("[1,{},[2]]", 2, 3), (" [1,2] ", 2, 2)] {
            let parsed = one_or_many(json.as_bytes(), 2).expect("JSON");
            let OneOrMany::Many(items) = parsed else { panic!("{json}") };
            assert_eq!((items.list.len(), items.count), (kept, count), "{json}");
        }
    }

    #[test]
    fn nesting_of_any_depth_leaves_the_stack_alone() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let body = format!("{{\"data\":{deep}}}");
        assert_eq!(members(&body).get("data").expect("a member").get(), deep);
        assert!(one_or_many(deep.as_bytes(), 1).is_ok());
        assert!(object(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for wrong in ["", " ", "{", "{\"a\":}", "{} x", "[1,]", "[1] 2", "nul", "{\"a\":\"\u{1}\"}"]
        {
            assert!(one_or_many(wrong.as_bytes(), 9).is_err(), "{wrong}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn strings_and_booleans_are_nothing_else() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).expect("JSON");
        assert_eq!(text(&raw(r#""a\u00e9\n""#)).as_deref(), Ok("aé\n"));
        for wrong in ["1", "null", "[\"a\"]", r#""\ud800""#] {
            assert!(text(&raw(wrong)).is_err(), "{wrong}");
        }
        assert_eq!((boolean(&raw("true")), boolean(&raw("false"))), (Ok(true), Ok(false)));
        for (text, number) in [("0", 0), ("7", 7)] {
            assert_eq!(whole(&raw(text), 0..=7), Ok(number));
        }
        for wrong in ["8", "-1", "1.0", "1e0", "\"1\"", "null", "99999999999999999999"] {
            let error = whole(&raw(wrong), 0..=7).expect_err(wrong);
            assert_eq!(error, "expected a whole number, 0 to 7");
        }
        assert!(is_null(&raw("null")) && !is_null(&raw("0")));
        assert!(boolean(&raw("1")).is_err() && boolean(&raw("\"true\"")).is_err());
    }
}
