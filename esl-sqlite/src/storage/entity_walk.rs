//! In which range of a key the entities are that somebody asks for.

use esl_core::storage::{EntityPosition, EntityQuery, IndexEntry, IndexValue};
use rusqlite::{Row, types::Value};

use crate::storage::rows::{mistyped, parsed};

/// What is gone through for a query.
pub(crate) enum Walk<'q> {
    /// All of the kind, by id.
    All,
    /// Those that have an entry in their index, by id.
    Having(&'q IndexEntry),
    /// Those that have a field in their index, by value and id.
    By(&'q str),
}

impl<'q> Walk<'q> {
    /// The range, and what else must be in the index of what is found in it.
    pub(crate) fn of(query: &'q EntityQuery) -> (Self, &'q [IndexEntry]) {
        match (&query.by, query.having.split_first()) {
            (Some(field), _) => (Self::By(field), &query.having),
            (None, Some((first, others))) => (Self::Having(first), others),
            (None, None) => (Self::All, &[]),
        }
    }

    pub(crate) fn sql(&self, query: &EntityQuery) -> String {
        let (order, beyond) = if query.is_descending { ("DESC", "<") } else { ("ASC", ">") };
        let place = match self {
            Self::All => "id {beyond} ?3",
            Self::Having(_) => "id {beyond} ?5",
            Self::By(_) => "(value, id) {beyond} (?4, ?5)",
        };
        let after = query.after.as_ref().map(|_| place.replace("{beyond}", beyond));
        let after = after.map(|after| format!("AND {after}")).unwrap_or_default();
        match self {
            Self::All => kind_sql(&after, order),
            Self::Having(_) => entry_sql(&after, order),
            Self::By(_) => field_sql(&after, order),
        }
    }

    pub(crate) fn parameters(&self, organization: i64, query: &EntityQuery) -> Vec<Value> {
        let blob = |IndexValue(value): &IndexValue| Value::Blob(value.to_vec());
        let text = |text: &str| Value::Text(text.to_owned());
        let mut parameters = vec![Value::Integer(organization), text(query.kind.as_str())];
        match self {
            Self::All => {}
            Self::Having(entry) => parameters.extend([text(&entry.field), blob(&entry.value)]),
            Self::By(field) => parameters.push(text(field)),
        }
        if let Some(EntityPosition { value, id }) = &query.after {
            if let Self::By(_) = self {
                parameters.push(value.as_ref().map_or(Value::Null, blob));
            }
            parameters.push(text(id.as_str()));
        }
        parameters
    }

    /// Where a row of it stands in the order of the query.
    pub(crate) fn position(&self, row: &Row<'_>) -> rusqlite::Result<EntityPosition> {
        let value = match self {
            Self::All | Self::Having(_) => None,
            Self::By(_) => {
                let value = row.get_ref(1)?.as_blob().map_err(|error| mistyped(1, error))?;
                Some(IndexValue(value.into()))
            }
        };
        Ok(EntityPosition { value, id: parsed(row, 0)? })
    }
}

fn kind_sql(after: &str, order: &str) -> String {
    format!(
        "SELECT id FROM esl_entities WHERE organization = ?1 AND kind = ?2 {after}
         ORDER BY id {order}"
    )
}

pub(crate) fn entry_sql(after: &str, order: &str) -> String {
    format!(
        "SELECT id FROM esl_entity_index
         WHERE organization = ?1 AND kind = ?2 AND field = ?3 AND value = ?4 {after}
         ORDER BY id {order}"
    )
}

fn field_sql(after: &str, order: &str) -> String {
    format!(
        "SELECT id, value FROM esl_entity_index
         WHERE organization = ?1 AND kind = ?2 AND field = ?3 {after}
         ORDER BY value {order}, id {order}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn a_query_is_a_range_of_a_key_from_where_it_goes_on() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let entry = IndexEntry { field: "color".into(), value: IndexValue((*b"red").into()) };
        let after = EntityPosition { value: None, id: "a".parse().unwrap() };
        let entities = "esl_entities USING COVERING INDEX sqlite_autoindex_esl_entities_1";
        let index = "esl_entity_index USING PRIMARY KEY";
        for (having, by, plan, beyond) in [
            (vec![], None, format!("{entities} (organization=? AND kind=?"), " AND id{beyond}?"),
            (
                vec![entry.clone()],
                None,
                format!("{index} (organization=? AND kind=? AND field=? AND value=?"),
                " AND id{beyond}?",
            ),
            (
                vec![entry],
                Some(Arc::from("name")),
                format!("{index} (organization=? AND kind=? AND field=?"),
                " AND (value,id){beyond}(?,?)",
            ),
        ] {
            for (is_descending, sign) in [(false, ">"), (true, "<")] {
                for after in [None, Some(after.clone())] {
                    let beyond = beyond.replace("{beyond}", sign);
                    let range = if after.is_some() { beyond } else { String::new() };
                    let (kind, having, by) =
                        ("person".parse().unwrap(), having.clone(), by.clone());
                    let query = EntityQuery { kind, having, by, is_descending, after, limit: 9 };
                    let (walk, _) = Walk::of(&query);
                    let sql = walk.sql(&query);
                    assert_plan(&connection, &sql, &[&format!("SEARCH {plan}{range})")]);
                    let parameters = connection.prepare(&sql).unwrap().parameter_count();
                    assert_eq!(walk.parameters(1, &query).len(), parameters, "{sql}");
                }
            }
        }
    }
}
