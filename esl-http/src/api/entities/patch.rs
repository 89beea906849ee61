//! Changes of a representation: JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902).

use axum::extract::{FromRequest, Request};
use esl_core::{DOCUMENT_BYTES_MAX, DOCUMENT_LEVELS_MAX, Document};
use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::{
    super::{
        Api, body,
        fault::{Fault, Faults, Place},
        problem::{Code, Problem},
    },
    document,
};
use crate::media_type::JSON;

/// The body of a `PATCH`.
#[derive(Debug)]
pub(in crate::api) struct PatchBody(pub(super) Patch);

/// What is to be changed.
#[derive(Debug)]
pub(super) enum Patch {
    /// RFC 7396.
    Merge(Value),
    /// RFC 6902.
    Operations(Vec<PatchOperation>),
}

impl FromRequest<Api> for PatchBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let taken = [JSON, MERGE_PATCH, JSON_PATCH];
        let (media_type, body) =
            body::read_as(request, &taken, Some(ACCEPTED), DOCUMENT_BYTES_MAX, api).await?;
        Ok(Self(match media_type {
            JSON_PATCH => Patch::Operations(operations(document::value(&body)?)?),
            _ => Patch::Merge(document::object(&body)?.into()),
        }))
    }
}

/// Every operation that is none is a fault.
fn operations(patch: Value) -> Result<Vec<PatchOperation>, Problem> {
    let items = match patch {
        Value::Array(items) if items.len() <= OPERATIONS_MAX => items,
        _ => {
            let detail = format!("expected an array of at most {OPERATIONS_MAX} operations");
            return Err(Faults::only(Place::root(), detail));
        }
    };
    let mut faults = Faults::default();
    let mut operations = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match serde_json::from_value(item) {
            Ok(operation) => operations.push(operation),
            Err(_) => faults.add(
                Place::Pointer(format!("/{index}")),
                "expected an operation: op (add, remove, replace, move, copy or test), path, and \
                 value or from where it goes with op; both paths are JSON pointers",
            ),
        }
    }
    faults.check()?;
    Ok(operations)
}

impl Patch {
    /// Changes what is shown of an entity.
    pub(super) fn apply(&self, representation: &mut Document) -> Result<(), Problem> {
        let mut shown = Value::Object(std::mem::take(representation));
        match self {
            Self::Merge(patch) => json_patch::merge(&mut shown, patch),
            Self::Operations(operations) => Applied::default().all(operations, &mut shown)?,
        }
        match shown {
            Value::Object(changed) => *representation = changed,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                let detail = "expected operations that leave an object";
                return Err(Faults::only(Place::root(), detail));
            }
        }
        Ok(())
    }
}

/// What was applied of a patch.
#[derive(Debug, Default)]
struct Applied {
    /// Each copy may double what is there.
    copied: usize,
}

/// Why an operation cannot be applied, and which of its members says so.
enum Unfit {
    /// To what is there, though it could be to something else.
    Here(&'static str, &'static str),
    /// To anything.
    Ever(&'static str, &'static str),
}

impl Applied {
    fn all(mut self, operations: &[PatchOperation], shown: &mut Value) -> Result<(), Problem> {
        for (index, operation) in operations.iter().enumerate() {
            let place = |member| Place::Pointer(format!("/{index}/{member}"));
            self.one(operation, shown).map_err(|unfit| match unfit {
                Unfit::Here(member, detail) => {
                    let fault = Fault::at(place(member), detail);
                    let detail = "the patch does not go with what is there; errors says where";
                    Problem::new(Code::Conflict, detail).with_errors(vec![fault])
                }
                Unfit::Ever(member, detail) => Faults::only(place(member), detail),
            })?;
        }
        Ok(())
    }

    fn one(&mut self, operation: &PatchOperation, shown: &mut Value) -> Result<(), Unfit> {
        let added = match operation {
            PatchOperation::Test(test) => {
                return match shown.pointer(test.path.as_str()) {
                    Some(there) if is_same(there, &test.value) => Ok(()),
                    Some(_) => Err(Unfit::Here("value", "there is another value")),
                    None => Err(NOWHERE),
                };
            }
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Move(it) => shown.pointer(it.from.as_str()),
            PatchOperation::Copy(copy) => {
                let source = shown.pointer(copy.from.as_str());
                self.copied += source.map_or(0, bytes);
                if self.copied > COPIED_MAX {
                    return Err(Unfit::Ever("from", COPIES));
                }
                source
            }
            PatchOperation::Remove(_) => None,
        };
        let above = operation.path().tokens().count();
        if added.is_some_and(|added| above + levels(added) > DOCUMENT_LEVELS_MAX) {
            return Err(Unfit::Ever("path", "this would be nested too deeply"));
        }
        json_patch::patch_unsafe(shown, std::slice::from_ref(operation)).map_err(
            |error| match error.kind {
                PatchErrorKind::InvalidFromPointer => Unfit::Here("from", "there is nothing"),
                PatchErrorKind::CannotMoveInsideItself => {
                    Unfit::Ever("path", "nothing can be moved into itself")
                }
                _ => NOWHERE,
            },
        )
    }
}

const NOWHERE: Unfit = Unfit::Here("path", "there is no such place");

/// Whether two values are equal as section 4.6 of RFC 6902 says: numbers by their value, objects in any order.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => document::are_equal(one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_there =
                |(name, one): (&String, &Value)| other.get(name).is_some_and(|it| is_same(one, it));
            one.len() == other.len() && one.iter().all(is_there)
        }
        _ => one == other,
    }
}

/// How deep objects and arrays stand within each other in it.
fn levels(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or_default(),
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// About how many bytes of JSON it is.
fn bytes(value: &Value) -> usize {
    match value {
        Value::Object(members) => {
            2 + members.iter().map(|(name, value)| name.len() + 4 + bytes(value)).sum::<usize>()
        }
        Value::Array(items) => 2 + items.iter().map(|item| 1 + bytes(item)).sum::<usize>(),
        Value::String(text) => 2 + text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
    }
}

const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const ACCEPTED: &str =
    "application/merge-patch+json, application/json-patch+json, application/json";

/// Each may have to move all that is there.
const OPERATIONS_MAX: usize = 1000;
/// More than this would be no document, wherever it was copied to.
const COPIED_MAX: usize = DOCUMENT_BYTES_MAX;
const COPIES: &str = "the copies of a patch have at most 1 MiB altogether";
