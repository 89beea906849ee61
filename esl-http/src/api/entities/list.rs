//! Lists of entities: filters, order, and cursors.

use std::borrow::Cow;

use esl_core::{
    Digest, Entities, EntityError, EntityId, EntityKind, OrganizationId,
    storage::{EntityPosition, EntityQuery, IndexEntry, IndexValue, Page},
};
use serde_json::value::RawValue;

use super::super::{
    fault::Place,
    page::{self, Key, Parameters},
    problem::Problem,
};

/// What is asked for.
#[derive(Debug)]
pub(super) struct Listing {
    query: EntityQuery,
    order: Order,
}

impl Listing {
    /// Reads what the query of a URL asks for.
    pub(super) fn read(kind: &EntityKind, mut parameters: Parameters) -> Result<Self, Problem> {
        let mut order = Order::of(kind, "id");
        let page: Page<Cursor> = parameters.page();
        let sort = parameters.take("sort", |text| {
            order = Order::of(kind, text);
            let member = text.strip_prefix('-').unwrap_or(text);
            let by = kind.sort(member).map_err(|_| sorts(kind))?;
            Ok((by, text.starts_with('-')))
        });
        let (by, is_descending) = sort.unwrap_or_default();
        let mut having: Vec<IndexEntry> = Vec::new();
        for property in kind.filters().filter(|name| !OWN.contains(name)) {
            having.extend(
                parameters.take(property, |text| kind.filter(property, text).map_err(Into::into)),
            );
        }
        if page.after.as_ref().is_some_and(|cursor| cursor.order != order) {
            let place = Place::Parameter("cursor".into());
            parameters.faults.add(place, "expected a next_cursor of this list in this order");
        }
        parameters.finish()?;
        let after = page.after.map(|cursor| cursor.position);
        let (kind, limit) = (kind.name().clone(), page.limit);
        Ok(Self { query: EntityQuery { kind, having, by, is_descending, after, limit }, order })
    }

    /// The entities, as many as are wanted if they are not too large, and where to go on.
    pub(super) async fn page(
        &self,
        entities: &Entities,
        organization: OrganizationId,
    ) -> Result<(Vec<Box<RawValue>>, Option<EntityPosition>), EntityError> {
        let mut query = self.query.clone();
        let (mut data, mut bytes) = (Vec::new(), 0);
        loop {
            query.limit = (self.query.limit - data.len()).min(READ_AT_ONCE);
            let page = entities.list(organization, &query).await?;
            // One that is not full has looked at as much as a request may.
            let is_full = page.items.len() == query.limit;
            for shown in page.items {
                let json = shown.representation.json().to_owned();
                bytes += json.get().len();
                data.push(json);
            }
            let goes_on = is_full && data.len() < self.query.limit && bytes < PAGE_BYTES;
            match page.next {
                Some(next) if goes_on => query.after = Some(next),
                next => return Ok((data, next)),
            }
        }
    }

    /// A cursor to that place of the list.
    pub(super) fn cursor(&self, position: EntityPosition) -> String {
        page::write_cursor(&Cursor { order: self.order, position })
    }
}

/// So many are in memory at once, each of which may be large.
const READ_AT_ONCE: usize = 20;
/// A page with so much on it is full.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Parameters that have a meaning of their own; a property of such a name is no filter.
const OWN: [&str; 3] = ["limit", "cursor", "sort"];

fn sorts(kind: &EntityKind) -> Cow<'static, str> {
    let own = ["id", "created_at", "updated_at"].into_iter();
    let names = own.filter(|name| kind.sort(name).is_ok()).chain(kind.filters());
    let names: Vec<_> = names.collect();
    format!("expected one of these, or one with - before it: {}", names.join(", ")).into()
}

/// Names an order of one kind's entities: a place in one order is none in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order([u8; 6]);

impl Order {
    fn of(kind: &EntityKind, sort: &str) -> Self {
        let digest = Digest::of(format!("{} {sort}", kind.name()).as_bytes());
        Self(*digest.as_bytes().first_chunk().expect("a digest is longer"))
    }
}

/// Where a page begins.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    order: Order,
    position: EntityPosition,
}

impl Key for Cursor {
    const TAG: u8 = b'e';

    fn write(&self, bytes: &mut Vec<u8>) {
        let EntityPosition { value, id } = &self.position;
        bytes.extend_from_slice(&self.order.0);
        bytes.push(u8::try_from(id.as_str().len()).expect("an id is short"));
        bytes.extend_from_slice(id.as_str().as_bytes());
        if let Some(IndexValue(value)) = value {
            bytes.push(VALUE);
            bytes.extend_from_slice(value);
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (order, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(*length))?;
        let id: EntityId = str::from_utf8(id).ok()?.parse().ok()?;
        let value = match rest {
            [] => None,
            [VALUE, value @ ..] if value.len() <= IndexValue::BYTES_MAX => {
                Some(IndexValue(value.into()))
            }
            _ => return None,
        };
        Some(Self { order: Order(*order), position: EntityPosition { value, id } })
    }
}

/// Comes before a value; without it there is none.
const VALUE: u8 = b'v';
