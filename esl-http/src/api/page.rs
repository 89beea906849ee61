//! Lists: `?limit=&cursor=`, and the parameters beside them.

use std::borrow::Cow;

use axum::{extract::FromRequestParts, http::request::Parts};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use esl_core::{
    AuditNumber, LaneId, ReplayNumber, Seq,
    storage::{Page, PageOf, ScheduleNumber},
};
use serde::Serialize;
use url::form_urlencoded;

use super::{
    Api,
    fault::{Faults, Place},
    problem::Problem,
};

/// The parameters of a query. Each is taken once; what nobody takes is a fault.
#[derive(Debug)]
pub(super) struct Parameters {
    list: Vec<(String, String)>,
    pub(super) faults: Faults,
}

impl FromRequestParts<Api> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            list: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            faults: Faults::default(),
        })
    }
}

impl Parameters {
    /// A parameter read by `parse`; a fault if that fails.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Cow<'static, str>>,
    ) -> Option<T> {
        let index = self.list.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.list.remove(index);
        match parse(&value) {
            Ok(value) => Some(value),
            Err(detail) => {
                self.faults.add(Place::Parameter(name.to_owned().into()), detail);
                None
            }
        }
    }

    /// The part of a list that is wanted.
    pub(super) fn page<K: Key>(&mut self) -> Page<K> {
        let limit = self.take("limit", |text| {
            let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit.ok_or_else(|| format!("expected a number from 1 to {LIMIT_MAX}").into())
        });
        let after = self.take("cursor", |text| {
            read_cursor(text).ok_or_else(|| "expected a next_cursor of this list".into())
        });
        Page { after, limit: limit.unwrap_or(LIMIT_DEFAULT) }
    }

    /// Passes when every parameter was known, given once and right.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in self.list {
            let place = match name.len() {
                0..=64 => name.into(),
                _ => "…".into(),
            };
            self.faults
                .add(Place::Parameter(place), "there is no such parameter, or it is repeated");
        }
        self.faults.check()
    }
}

/// A route that takes no parameters.
#[derive(Debug)]
pub(super) struct NoParameters;

impl FromRequestParts<Api> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if parts.uri.query().is_some() {
            Parameters::from_request_parts(parts, api).await?.finish()?;
        }
        Ok(Self)
    }
}

/// A list as it is answered.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    pub(super) next_cursor: Option<String>,
}

impl<T> List<T> {
    /// Shows the items of a page, each of which has a `key` in the list.
    pub(super) fn of<'a, I, K: Key>(
        page: &'a PageOf<I>,
        key: impl FnOnce(&I) -> K,
        view: impl Fn(&'a I) -> T,
    ) -> Self {
        Self { data: page.items.iter().map(view).collect(), next_cursor: next_cursor(page, key) }
    }
}

/// Where the next page begins, if there is one.
pub(super) fn next_cursor<I, K: Key>(
    page: &PageOf<I>,
    key: impl FnOnce(&I) -> K,
) -> Option<String> {
    let last = page.items.last().filter(|_| page.more)?;
    Some(write_cursor(&key(last)))
}

/// A place in a list. Where lists of different things have different keys, their cursors differ in
/// the first byte, so that one is not taken for the other.
pub(super) trait Key: Sized {
    const TAG: u8;

    fn write(&self, bytes: &mut Vec<u8>);

    fn read(bytes: &[u8]) -> Option<Self>;
}

/// A key that is a number of at most 40 bits.
macro_rules! number_key {
    ($key:ident, $tag:literal, $number:expr, $from:expr) => {
        impl Key for $key {
            const TAG: u8 = $tag;

            fn write(&self, bytes: &mut Vec<u8>) {
                let number: u64 = $number(*self);
                bytes.extend_from_slice(&number.to_be_bytes()[3..]);
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                let &[a, b, c, d, e] = bytes else { return None };
                Some($from(u64::from_be_bytes([0, 0, 0, a, b, c, d, e])))
            }
        }
    };
}

number_key!(Seq, b's', Self::get, Self::new);
number_key!(ReplayNumber, b'r', |key: Self| key.0, Self);
number_key!(AuditNumber, b'a', Self::get, Self::new);
number_key!(ScheduleNumber, b'p', |key: Self| key.0, Self);
number_key!(LaneId, b'l', Self::get, Self::new);

/// The id of a client.
impl Key for String {
    const TAG: u8 = b'c';

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// A cursor to that place.
pub(super) fn write_cursor<K: Key>(key: &K) -> String {
    let mut bytes = vec![K::TAG];
    key.write(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor<K: Key>(text: &str) -> Option<K> {
    match &*URL_SAFE_NO_PAD.decode(text).ok()? {
        [tag, key @ ..] if *tag == K::TAG => K::read(key),
        _ => None,
    }
}

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_to_no_other_list() {
        for number in [0, 1, 12_345, Seq::MAX.get()] {
            let cursor = write_cursor(&Seq::new(number));
            assert_eq!(cursor.len(), 8);
            assert_eq!(read_cursor(&cursor), Some(Seq::new(number)));
            assert_eq!(read_cursor::<LaneId>(&cursor), None);
            assert_eq!(read_cursor::<String>(&cursor), None);
        }
        for id in ["shop", "ünïcode", &"a".repeat(100)] {
            let cursor = write_cursor(&id.to_owned());
            assert_eq!(read_cursor::<String>(&cursor).as_deref(), Some(id));
            assert_eq!(read_cursor::<Seq>(&cursor), None);
        }
        for wrong in ["", "c", "cwAAAAA", "cwAAAAAAA", "cwAAAAA!", "cwAAAAA=", "AAAAAAAA"] {
            assert_eq!(read_cursor::<Seq>(wrong), None, "{wrong}");
        }
    }
}
