//! What is wrong in a request, each thing by its place.

use std::borrow::Cow;

use serde::Serialize;

use super::problem::{Code, Problem};

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    #[serde(flatten)]
    place: Place,
    detail: Cow<'static, str>,
}

impl Fault {
    /// What is wrong there.
    #[cfg(feature = "entities")]
    pub(super) fn at(place: Place, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { place, detail: detail.into() }
    }
}

/// Where it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    /// In the body, by JSON pointer (RFC 6901).
    Pointer(String),
    /// In the query.
    Parameter(Cow<'static, str>),
    /// In the head.
    Header(&'static str),
}

impl Place {
    /// What a pointer that others have made points to.
    #[cfg(feature = "entities")]
    pub(super) fn pointed(pointer: &str) -> Self {
        let mut pointer = pointer;
        // As below, as often as it takes.
        while pointer.len() > 4 * NAME_BYTES_MAX
            && let Some((parent, _)) = pointer.rsplit_once('/')
        {
            pointer = parent;
        }
        Self::Pointer(pointer.to_owned())
    }

    /// The body as a whole.
    pub(super) const fn root() -> Self {
        Self::Pointer(String::new())
    }

    /// A member of the object that `parent` points to.
    pub(super) fn member(parent: &str, name: &str) -> Self {
        // What is too long to be a slip is not echoed: the object that holds it is named.
        if name.len() > NAME_BYTES_MAX {
            return Self::Pointer(parent.to_owned());
        }
        Self::Pointer(format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1")))
    }
}

/// Everything that is wrong in one request, collected while reading it.
#[derive(Debug, Default)]
pub(super) struct Faults {
    first: Vec<Fault>,
    count: usize,
}

impl Faults {
    pub(super) fn add(&mut self, place: Place, detail: impl Into<Cow<'static, str>>) {
        self.count += 1;
        if self.first.len() < LISTED_MAX {
            self.first.push(Fault { place, detail: detail.into() });
        }
    }

    /// 422 for one thing beside which nothing else can be said.
    pub(super) fn only(place: Place, detail: impl Into<Cow<'static, str>>) -> Problem {
        let mut faults = Self::default();
        faults.add(place, detail);
        faults.into_problem()
    }

    /// Passes when nothing is wrong; otherwise 422 with all of it.
    pub(super) fn check(self) -> Result<(), Problem> {
        if self.count == 0 { Ok(()) } else { Err(self.into_problem()) }
    }

    fn into_problem(self) -> Problem {
        let count = self.count;
        let detail = if count > LISTED_MAX {
            format!("the request is not valid; errors has {LISTED_MAX} of {count} reasons").into()
        } else {
            Cow::from("the request is not valid; errors has each reason")
        };
        Problem::new(Code::Invalid, detail).with_errors(self.first)
    }
}

/// So many are listed; an answer must not outgrow every bound because a request is all wrong.
const LISTED_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_spelled_as_its_rfc_says() {
        let fault = |place| serde_json::to_string(&Fault { place, detail: "x".into() }).unwrap();
        for (place, expected) in [
            (Place::member("", "a/b~c"), r#"{"pointer":"/a~1b~0c","detail":"x"}"#),
            (Place::member("/0", "type"), r#"{"pointer":"/0/type","detail":"x"}"#),
            (Place::member("/0", &"x".repeat(257)), r#"{"pointer":"/0","detail":"x"}"#),
            (Place::Parameter("limit".into()), r#"{"parameter":"limit","detail":"x"}"#),
            (Place::Header("Idempotency-Key"), r#"{"header":"Idempotency-Key","detail":"x"}"#),
        ] {
            assert_eq!(fault(place), expected);
        }
    }
}
