//! Kinds of entities, as they are declared.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    Document, Entity, Fault, KindName, Rules, index::index_value, rules::NoRules, schema::Schema,
};
use crate::{
    EntityId, Timestamp,
    storage::{IndexEntry, IndexValue},
};

/// A kind of entities: what it is called, what its documents look like, and what they refer to.
///
/// ```
/// use esl_core::EntityKind;
/// use serde_json::json;
///
/// let invoice = EntityKind::new("invoice", "invoices", json!({
///     "type": "object",
///     "properties": {
///         "number": { "type": "string", "minLength": 1 },
///         "customer_id": { "type": ["string", "null"], "default": null },
///     },
///     "required": ["number"],
///     "additionalProperties": false,
/// }))?
/// .indexed("number")
/// .refers("customer_id", "customer", esl_core::OnDelete::Restrict);
/// # Ok::<(), esl_core::KindError>(())
/// ```
///
/// Its events are `invoice.created`, `invoice.updated` and `invoice.deleted`; their data is the entity as it
/// is read, with `id`, `created_at` and `updated_at`.
#[derive(Debug)]
pub struct EntityKind {
    name: KindName,
    plural: String,
    id_prefix: String,
    has_chosen_ids: bool,
    schema: Schema,
    indexed: Vec<Arc<str>>,
    updated_at: Arc<str>,
    references: Vec<Reference>,
    embedded: Vec<Embedded>,
    rules: Arc<dyn Rules>,
    example: Option<Value>,
}

/// A field that names another entity.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) field: Arc<str>,
    pub(crate) to: KindName,
    pub(crate) on_delete: OnDelete,
}

/// What becomes of those who refer to an entity when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDelete {
    /// They refer to nothing from then on: the field becomes `null`, and each of them is updated, with its
    /// event, in the same unit.
    Clear,
    /// It is not deleted as long as there are any.
    Restrict,
}

/// Entities that are shown within the one that they refer to.
#[derive(Debug, Clone)]
pub(crate) struct Embedded {
    /// The member that they are shown in.
    pub(crate) member: String,
    pub(crate) kind: KindName,
    /// The field by which they refer to it.
    pub(crate) by: Arc<str>,
    /// What is shown of each: `id`, or properties.
    pub(crate) shown: Vec<String>,
}

impl Embedded {
    /// What is shown of these.
    pub(crate) fn show<'a>(&self, entities: impl Iterator<Item = &'a Entity>) -> Value {
        let show = |entity: &Entity| {
            let value = |name: &String| match &**name {
                "id" => entity.id().as_str().into(),
                name => entity.document.get(name).cloned().unwrap_or_default(),
            };
            let members = self.shown.iter().map(|name| (name.clone(), value(name)));
            Value::Object(members.collect())
        };
        entities.map(show).collect()
    }
}

/// Why a kind, or several together, cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KindError {
    /// The name is none.
    #[error("the kind `{0}`: {source}", source = super::KindNameError)]
    Name(String),
    /// The plural is none.
    #[error(
        "the plural `{0}`: expected segments of a-z, 0-9, _ and -, joined by /, the first one neither v1 nor \
         admin"
    )]
    Plural(String),
    /// The schema is none.
    #[error("the schema of a kind is not one: {0}")]
    Schema(String),
    /// A property has the name of what ESL adds.
    #[error("the property `{0}`: id, created_at and updated_at are added by ESL")]
    Reserved(String),
    /// There is no such property.
    #[error("the kind {kind} has no property `{property}`")]
    NoProperty {
        /// The kind.
        kind: KindName,
        /// The property.
        property: String,
    },
    /// The example is no document of its kind.
    #[error("the example of the kind {0} is not as its schema says")]
    Example(KindName),
    /// Two kinds have the same name, or plural.
    #[error("there are two kinds of the name or plural `{0}`")]
    Twice(String),
    /// A kind refers to one that is not declared, or embeds one that does not refer to it.
    #[error(
        "the kind {kind} goes by the kind {other}, which is not declared, or does not refer to it"
    )]
    NoKind {
        /// The kind.
        kind: KindName,
        /// What it names.
        other: KindName,
    },
}

/// What ESL adds to a document.
const ADDED: [&str; 3] = ["id", "created_at", "updated_at"];
/// Can be sorted by in every kind.
const UPDATED_AT: &str = "updated_at";

impl EntityKind {
    /// A kind of this name (`person`), whose entities are found under this plural (`persons`), with documents
    /// that this JSON Schema (draft 2020-12) describes: an object's, without `id`, `created_at` and
    /// `updated_at`. Where a document leaves out a property that has a `default`, it gets that.
    ///
    /// Ids are made by ESL: the last segment of the name, `_`, and a ULID.
    ///
    /// # Errors
    /// If one of the three is not what it should be.
    pub fn new(name: &str, plural: &str, schema: Value) -> Result<Self, KindError> {
        let name: KindName = name.parse().map_err(|_| KindError::Name(name.to_owned()))?;
        let is_segment = |segment: &str| {
            let is_right = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
            };
            !segment.is_empty() && segment.bytes().all(is_right)
        };
        // Below those are routes of the API's own.
        let is_taken = matches!(plural.split('/').next(), Some("v1" | "admin"));
        if is_taken || !plural.split('/').all(is_segment) {
            return Err(KindError::Plural(plural.to_owned()));
        }
        let schema = Schema::new(schema)?;
        if let Some(reserved) = ADDED.into_iter().find(|name| schema.has_property(name)) {
            return Err(KindError::Reserved(reserved.to_owned()));
        }
        let last = name.as_str().rsplit('.').next().unwrap_or_default();
        Ok(Self {
            id_prefix: format!("{last}_"),
            name,
            plural: plural.to_owned(),
            has_chosen_ids: false,
            schema,
            indexed: Vec::new(),
            updated_at: UPDATED_AT.into(),
            references: Vec::new(),
            embedded: Vec::new(),
            rules: Arc::new(NoRules),
            example: None,
        })
    }

    /// Ids are not made by ESL but chosen by whoever writes an entity first.
    #[must_use]
    pub const fn with_chosen_ids(mut self) -> Self {
        self.has_chosen_ids = true;
        self
    }

    /// Lists can be filtered and sorted by this property.
    #[must_use]
    pub fn indexed(mut self, property: &str) -> Self {
        if !self.is_indexed(property) {
            self.indexed.push(property.into());
        }
        self
    }

    /// The property holds the id of an entity of that kind, or `null`. It is indexed.
    #[must_use]
    pub fn refers(mut self, property: &str, to: &str, on_delete: OnDelete) -> Self {
        // One that is no name is no declared kind, which is found out with the others.
        let to = to.parse().unwrap_or_else(|_| self.name.clone());
        self.references.push(Reference { field: property.into(), to, on_delete });
        self.indexed(property)
    }

    /// Shows, in this member, the entities of another kind that refer to one by their property `by`: of each
    /// the members `shown`, by id. They change without it: then it has another tag, but is not updated.
    #[must_use]
    pub fn embeds(mut self, member: &str, kind: &str, by: &str, shown: &[&str]) -> Self {
        let kind = kind.parse().unwrap_or_else(|_| self.name.clone());
        let shown = shown.iter().map(|name| (*name).to_owned()).collect();
        self.embedded.push(Embedded { member: member.to_owned(), kind, by: by.into(), shown });
        self
    }

    /// Gives it rules of its own.
    #[must_use]
    pub fn with_rules(mut self, rules: impl Rules) -> Self {
        self.rules = Arc::new(rules);
        self
    }

    /// Shows a document as it may be, for those who read of its [events](crate::Esl::event_types).
    #[must_use]
    pub fn with_example(mut self, document: Value) -> Self {
        self.example = Some(document);
        self
    }

    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> &KindName {
        &self.name
    }

    /// What several of them are called: below `/api/`, their path.
    #[must_use]
    pub fn plural(&self) -> &str {
        &self.plural
    }

    /// Whether whoever writes an entity first chooses its id.
    #[must_use]
    pub const fn has_chosen_ids(&self) -> bool {
        self.has_chosen_ids
    }

    /// The JSON Schema of what is written.
    #[must_use]
    pub const fn schema(&self) -> &Value {
        self.schema.text()
    }

    /// The properties that lists can be filtered and sorted by; by `updated_at` they can be sorted, too.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.indexed.iter().map(|field| &**field)
    }

    /// Reads a value of one of the [`filters`](Self::filters) as it stands in a URL's query.
    ///
    /// # Errors
    /// What was expected.
    pub fn filter(&self, property: &str, text: &str) -> Result<IndexEntry, &'static str> {
        let field = self.indexed.iter().find(|field| ***field == *property);
        let field = field.ok_or("it is not indexed")?;
        let value = index_value(&self.schema.value_of(property, text)?);
        Ok(IndexEntry { field: Arc::clone(field), value })
    }

    /// The field of the index by which a list is sorted by a member; `None` for `id` and, where ids are made
    /// in the order of creation, for `created_at`.
    ///
    /// # Errors
    /// If it cannot be sorted by that.
    pub fn sort(&self, member: &str) -> Result<Option<Arc<str>>, NotSortable> {
        match member {
            "id" => Ok(None),
            "created_at" if !self.has_chosen_ids => Ok(None),
            UPDATED_AT => Ok(Some(Arc::clone(&self.updated_at))),
            _ => match self.indexed.iter().find(|field| ***field == *member) {
                Some(field) => Ok(Some(Arc::clone(field))),
                None => Err(NotSortable),
            },
        }
    }

    /// See [`with_example`](Self::with_example).
    pub(crate) fn shown_example(&self) -> Option<&Document> {
        self.example.as_ref()?.as_object()
    }

    pub(crate) fn id_prefix(&self) -> &str {
        &self.id_prefix
    }

    pub(crate) fn references(&self) -> &[Reference] {
        &self.references
    }

    pub(crate) fn embedded(&self) -> &[Embedded] {
        &self.embedded
    }

    pub(crate) fn rules(&self) -> &dyn Rules {
        &*self.rules
    }

    /// See [`Schema::completed`].
    pub(crate) fn completed(&self, document: Document) -> Document {
        self.schema.completed(document)
    }

    /// A document that is as the schema says, but for what its rules keep in it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn checked(&self, mut document: Document) -> Result<Document, Vec<Fault>> {
        let kept = self.rules.keeps().iter();
        let kept: Vec<_> = kept.filter_map(|name| document.shift_remove_entry(*name)).collect();
        let mut document = self.schema.checked(document)?;
        document.extend(kept);
        Ok(document)
    }

    /// A document as it is read: with what ESL adds to it, in this order.
    pub(crate) fn representation(
        &self,
        id: &EntityId,
        document: &Document,
        (created_at, updated_at): (Timestamp, Timestamp),
        embedded: Vec<Value>,
    ) -> Document {
        let mut shown = Document::with_capacity(document.len() + ADDED.len() + embedded.len());
        shown.insert("id".to_owned(), id.as_str().into());
        for (name, value) in document {
            if !self.rules.keeps().contains(&&**name) {
                shown.insert(name.clone(), value.clone());
            }
        }
        shown.insert("created_at".to_owned(), created_at.to_string().into());
        shown.insert("updated_at".to_owned(), updated_at.to_string().into());
        let members = self.embedded.iter().map(|embedded| embedded.member.clone());
        shown.extend(members.zip(embedded));
        shown
    }

    /// What is to be kept of a representation that is written: what ESL has added goes.
    ///
    /// # Errors
    /// If something of that has another value than `before`; then with all else that is wrong.
    pub(crate) fn writable(
        &self,
        mut representation: Document,
        before: &Document,
    ) -> Result<Document, Vec<Fault>> {
        let kept = self.rules.keeps().iter().filter(|name| {
            // What it also adds is no secret, and not what it keeps.
            !self.rules.adds().contains(*name) && representation.contains_key(**name)
        });
        let mut faults: Vec<_> =
            kept.map(|name| Fault::member("", name, "there is no such member")).collect();
        for name in self.rules.adds() {
            // It may be another one by now, and nobody has changed it.
            representation.shift_remove(*name);
        }
        let embedded = self.embedded.iter().map(|embedded| &*embedded.member);
        for name in ADDED.into_iter().chain(embedded) {
            let written = representation.shift_remove(name);
            if written.is_some() && written.as_ref() != before.get(name) {
                faults.push(Fault::member("", name, "this member is not yours to change"));
            }
        }
        if faults.is_empty() {
            return Ok(representation);
        }
        faults.extend(self.checked(self.completed(representation)).err().into_iter().flatten());
        Err(faults)
    }

    /// What is in the index of one that was written, and not of the other: of `written` in place of
    /// `other`, if there was one.
    pub(crate) fn index<'a>(
        &self,
        written: &'a Entity,
        other: Option<&'a Entity>,
    ) -> Vec<IndexEntry> {
        let mut index = Vec::new();
        let mut add = |field: &Arc<str>, value: &Value, other: Option<&Value>| {
            if other == Some(value) {
                return;
            }
            let value = index_value(value);
            // Numbers that are written in two ways are one.
            if other.is_none_or(|other| index_value(other) != value) {
                index.push(IndexEntry { field: Arc::clone(field), value });
            }
        };
        for field in &self.indexed {
            // What is not there is found as nothing.
            let value = |entity: &'a Entity| entity.document.get(&**field).unwrap_or(&Value::Null);
            add(field, value(written), other.map(value));
        }
        let updated_at = |entity: &Entity| Value::from(entity.updated_at.as_millis());
        add(&self.updated_at, &updated_at(written), other.map(updated_at).as_ref());
        index
    }

    /// What the index has of whoever refers to this id.
    pub(crate) fn reference_value(id: &EntityId) -> IndexValue {
        index_value(&id.as_str().into())
    }
}

/// A list cannot be sorted by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be sorted by that")]
pub struct NotSortable;

/// The kinds that an engine knows.
#[derive(Debug, Clone, Default)]
pub struct Kinds(Arc<BTreeMap<KindName, Arc<EntityKind>>>);

impl Kinds {
    /// These kinds.
    ///
    /// # Errors
    /// If two are called the same, or one goes by another that is not among them, or by properties that there
    /// are not.
    pub fn new(kinds: impl IntoIterator<Item = EntityKind>) -> Result<Self, KindError> {
        let mut declared: BTreeMap<KindName, Arc<EntityKind>> = BTreeMap::new();
        for kind in kinds {
            let is_taken = declared.values().any(|other| other.plural == kind.plural);
            if is_taken {
                return Err(KindError::Twice(kind.plural));
            }
            if let Some(twice) = declared.insert(kind.name.clone(), Arc::new(kind)) {
                return Err(KindError::Twice(twice.name.to_string()));
            }
        }
        for kind in declared.values() {
            kind.check(&declared)?;
        }
        Ok(Self(Arc::new(declared)))
    }

    /// The kind of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<EntityKind>> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<EntityKind>> {
        self.0.values()
    }

    /// The kinds that refer to one, with the fields by which they do.
    pub(crate) fn referring_to<'a>(
        &'a self,
        kind: &'a KindName,
    ) -> impl Iterator<Item = (&'a Arc<EntityKind>, &'a Reference)> {
        self.iter().flat_map(move |other| {
            let references = other.references.iter().filter(move |it| it.to == *kind);
            references.map(move |reference| (other, reference))
        })
    }
}

impl EntityKind {
    fn is_indexed(&self, property: &str) -> bool {
        self.indexed.iter().any(|field| **field == *property)
    }

    /// Whether all that it goes by is there.
    fn check(&self, declared: &BTreeMap<KindName, Arc<Self>>) -> Result<(), KindError> {
        let missing = self.indexed.iter().find(|field| {
            !self.schema.has_property(field) || field.len() > IndexEntry::FIELD_BYTES_MAX
        });
        if let Some(property) = missing {
            let (kind, property) = (self.name.clone(), property.to_string());
            return Err(KindError::NoProperty { kind, property });
        }
        let is_document = |example: &Value| {
            let document = example.as_object().cloned().map(|document| self.completed(document));
            document.is_some_and(|document| self.checked(document).is_ok())
        };
        if !self.example.as_ref().is_none_or(is_document) {
            return Err(KindError::Example(self.name.clone()));
        }
        let no_kind =
            |other: &KindName| KindError::NoKind { kind: self.name.clone(), other: other.clone() };
        for reference in &self.references {
            declared.get(&reference.to).ok_or_else(|| no_kind(&reference.to))?;
        }
        for embedded in &self.embedded {
            let other = declared.get(&embedded.kind).ok_or_else(|| no_kind(&embedded.kind))?;
            let refers = |it: &Reference| it.field == embedded.by && it.to == self.name;
            if !other.references.iter().any(refers) {
                return Err(no_kind(&embedded.kind));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plural_is_a_path_that_the_api_has_not() {
        for right in ["persons", "availability/profiles", "a-b/c_1", "v2", "a/v1", "admins"] {
            assert!(EntityKind::new("a", right, json!({})).is_ok(), "{right}");
        }
        for wrong in ["", "/a", "a/", "a//b", "A", "a.b", "{id}", "v1", "v1/events", "admin/a"] {
            let refused = EntityKind::new("a", wrong, json!({})).err();
            assert_eq!(refused, Some(KindError::Plural(wrong.to_owned())));
        }
    }

    #[test]
    fn an_example_is_a_document_of_its_kind() {
        let kind = || EntityKind::new("a", "as", json!({ "required": ["name"] })).expect("a kind");
        assert!(Kinds::new([kind().with_example(json!({ "name": "b" }))]).is_ok());
        for wrong in [json!({}), json!([]), json!(null)] {
            let refused = Kinds::new([kind().with_example(wrong)]).expect_err("it is none");
            assert_eq!(refused, KindError::Example(kind().name().clone()));
        }
    }
}
