//! The statements of the commit path, prepared once and held: looking one up for every row would
//! cost as much as the row.

use rusqlite::{Connection, Statement};

pub(crate) struct Statements<'c> {
    pub(crate) begin: Statement<'c>,
    pub(crate) commit: Statement<'c>,
    pub(crate) roll_back: Statement<'c>,
    /// Moves when another connection has committed.
    pub(crate) data_version: Statement<'c>,
    pub(crate) find_event: Statement<'c>,
    pub(crate) insert_event: Statement<'c>,
    pub(crate) owe: Statement<'c>,
    pub(crate) close: ByKind<'c>,
    pub(crate) remove: ByKind<'c>,
    pub(crate) put_off: ByKind<'c>,
    pub(crate) find_entity: Statement<'c>,
    pub(crate) insert_entity: Statement<'c>,
    pub(crate) update_entity: Statement<'c>,
    /// Changes what an entity knows of those that refer to it.
    pub(crate) refer: Statement<'c>,
    pub(crate) delete_entity: Statement<'c>,
    pub(crate) index: Statement<'c>,
    pub(crate) unindex: Statement<'c>,
}

/// The same statement for deliveries that were never tried, and for retries: the two are found in
/// different ways (see [`schema`](crate::storage::schema)).
pub(crate) struct ByKind<'c> {
    pub(crate) untried: Statement<'c>,
    pub(crate) tried: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(crate) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let by_kind = |sql: &str| -> rusqlite::Result<ByKind<'c>> {
            Ok(ByKind {
                untried: connection.prepare(&UNTRIED.filled_in(sql))?,
                tried: connection.prepare(&TRIED.filled_in(sql))?,
            })
        };
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            roll_back: connection.prepare("ROLLBACK")?,
            data_version: connection.prepare("PRAGMA main.data_version")?,
            find_event: connection.prepare(FIND_EVENT)?,
            insert_event: connection.prepare(INSERT_EVENT)?,
            owe: connection.prepare(OWE)?,
            close: by_kind(CLOSE)?,
            remove: by_kind(REMOVE)?,
            put_off: by_kind(PUT_OFF)?,
            find_entity: connection.prepare(FIND_ENTITY)?,
            insert_entity: connection.prepare(INSERT_ENTITY)?,
            update_entity: connection.prepare(UPDATE_ENTITY)?,
            refer: connection.prepare(REFER)?,
            delete_entity: connection.prepare(DELETE_ENTITY)?,
            index: connection.prepare(INDEX)?,
            unindex: connection.prepare(UNINDEX)?,
        })
    }
}

pub(crate) const FIND_EVENT: &str =
    "SELECT key, digest, deliveries FROM esl_events WHERE id = ?1 AND key >> 40 = ?2";

const INSERT_EVENT: &str = "
INSERT INTO esl_events
    (key, id, event_type, timestamp, digest, deliveries, audience, body, changes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (id, key >> 40) DO NOTHING";

const OWE: &str = "
INSERT INTO esl_open (lane, due_at, seq, attempts, charged) VALUES (?1, ?2, ?3, 0, 0)";

/// How to name one open delivery: lane ?1, seq ?2.
struct Naming {
    table: &'static str,
    condition: &'static str,
}

const UNTRIED: Naming =
    Naming { table: "esl_open", condition: "lane = ?1 AND due_at = 0 AND seq = ?2" };
const TRIED: Naming = Naming {
    table: "esl_open INDEXED BY esl_open_tried",
    condition: "lane = ?1 AND seq = ?2 AND due_at > 0",
};

impl Naming {
    fn filled_in(&self, sql: &str) -> String {
        sql.replace("{table}", self.table).replace("{condition}", self.condition)
    }
}

const CLOSE: &str = "
INSERT INTO esl_closed
    (lane, seq, state, attempts, finished_at, created_at, last_status, last_error)
SELECT lane, seq, ?3, ?4, ?5, created_at, coalesce(?6, last_status), ?7
FROM {table} WHERE {condition} AND attempts <= ?8";

const REMOVE: &str = "DELETE FROM {table} WHERE {condition}";

const PUT_OFF: &str = "
UPDATE {table}
SET due_at = ?3, attempts = ?4, charged = ?5, last_status = coalesce(?6, last_status),
    last_error = ?7
WHERE {condition} AND attempts <= ?8";

/// Not the document: it may be large, and whoever writes replaces it.
const FIND_ENTITY: &str = "
SELECT rowid, revision, reference_count, reference_version, indexed FROM esl_entities
WHERE organization = ?1 AND kind = ?2 AND id = ?3";

const INSERT_ENTITY: &str = "
INSERT INTO esl_entities (organization, kind, id, revision, reference_count, reference_version,
    created_at, updated_at, due_at, indexed, document)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

const UPDATE_ENTITY: &str = "
UPDATE esl_entities
SET revision = ?2, reference_count = ?3, reference_version = ?4, created_at = ?5, updated_at = ?6,
    due_at = ?7, indexed = ?8, document = ?9
WHERE rowid = ?1";

const REFER: &str = "
UPDATE esl_entities SET reference_count = ?2, reference_version = ?3 WHERE rowid = ?1";

const DELETE_ENTITY: &str = "DELETE FROM esl_entities WHERE rowid = ?1";

/// An entry that is there already was left by a row that was damaged.
const INDEX: &str = "
INSERT INTO esl_entity_index (organization, kind, field, value, id) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT DO NOTHING";

const UNINDEX: &str = "
DELETE FROM esl_entity_index
WHERE organization = ?1 AND kind = ?2 AND field = ?3 AND value = ?4 AND id = ?5";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn the_commit_path_searches_by_key() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        assert_plan(&connection, FIND_EVENT, &["SEARCH esl_events USING INDEX esl_events_by_id"]);
        for sql in [CLOSE, REMOVE, PUT_OFF] {
            let untried = UNTRIED.filled_in(sql);
            let key = "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at=? AND seq=?)";
            assert_plan(&connection, &untried, &[key]);
            let tried = TRIED.filled_in(sql);
            let index = "SEARCH esl_open USING INDEX esl_open_tried (lane=? AND seq=?";
            let covering = "SEARCH esl_open USING COVERING INDEX esl_open_tried (lane=? AND seq=?";
            assert_plan(&connection, &tried, &[index, covering]);
        }
        let key = "SEARCH esl_entities USING INDEX sqlite_autoindex_esl_entities_1 \
                   (organization=? AND kind=? AND id=?)";
        assert_plan(&connection, FIND_ENTITY, &[key]);
        for sql in [UPDATE_ENTITY, REFER, DELETE_ENTITY] {
            let row = "SEARCH esl_entities USING INTEGER PRIMARY KEY (rowid=?)";
            assert_plan(&connection, sql, &[row]);
        }
        let key = "SEARCH esl_entity_index USING PRIMARY KEY \
                   (organization=? AND kind=? AND field=? AND value=? AND id=?)";
        assert_plan(&connection, UNINDEX, &[key]);
    }
}
