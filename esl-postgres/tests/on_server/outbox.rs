//! Publishing as part of somebody else's transaction: by SQL, and by `publish_in`.

use std::{path::Path, process::Command, time::Duration};

use esl_core::{
    Esl, EventId, EventType, Metadata, NewEvent, OrganizationId, SealedEvent, seal,
    storage::{Lanes, Records, StorageErrorKind},
};
use esl_postgres::{PostgresStorage, publish_in};
use serde_json::value::RawValue;
use tokio_postgres::{Client, Error, Transaction};

use crate::{
    cluster,
    world::{World, by_hand},
};

/// What `esl.publish` is given.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    organization: &'a str,
    event_type: &'a str,
    data: Option<&'a str>,
    changes: Option<&'a str>,
    metadata: Option<&'a str>,
    id: Option<&'a str>,
}

const ORGANIZATION: &str = "org_01040G2081040G2081040G2081";

const CALL: Call<'_> = Call {
    organization: ORGANIZATION,
    event_type: "person.updated",
    data: Some("{}"),
    changes: None,
    metadata: None,
    id: None,
};

impl Call<'_> {
    async fn make(self, world: &World, client: &Client) -> Result<String, Error> {
        let sql = "SELECT esl.publish($1, $2, $3::text::json, $4::text::json, $5::text::json, $6)";
        let Self { organization, event_type, data, changes, metadata, id } = self;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&organization, &event_type, &data, &changes, &metadata, &id];
        client.query_one(&world.sql(sql), &values).await.map(|row| row.get(0))
    }

    /// Whether it is taken, in a transaction that is rolled back.
    async fn is_taken(self, world: &World, client: &Client) -> bool {
        client.batch_execute("BEGIN").await.unwrap();
        let made = self.make(world, client).await;
        client.batch_execute("ROLLBACK").await.unwrap();
        match made {
            Ok(_) => true,
            Err(error) => {
                let code = error.code().expect("the server says why").code();
                assert!(["ESL02", "ESL03", "22P02"].contains(&code), "{self:?}: {error:?}");
                false
            }
        }
    }
}

async fn waiting(storage: &PostgresStorage) -> Vec<SealedEvent> {
    let rows = storage.intake(None, 100, &[]).await.unwrap();
    rows.into_iter().map(|(_, event)| (*event).clone()).collect()
}

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn sql_takes_the_types_that_core_does() {
    let (world, client) = (World::new().await, by_hand().await);
    let (longest, too_long) = (format!("a.{}", "b".repeat(126)), format!("a.{}", "b".repeat(127)));
    for event_type in [
        "a.b",
        "person.updated",
        "a.b.c.d.e.f.g.h",
        "a_1._",
        "0.9",
        "systems.x",
        "a.system.b",
        &longest,
        "",
        "a",
        ".",
        "a.",
        ".a",
        "a..b",
        "A.b",
        "a.B",
        "a-b.c",
        "a.b ",
        " a.b",
        "a.b\n",
        "a.*",
        "*",
        "é.b",
        "a.é",
        "ａ.b",
        "a.b.c.d.e.f.g.h.i",
        "system.ping",
        "system.a.b",
        &too_long,
    ] {
        let parsed = event_type.parse::<EventType>();
        let expected = parsed.is_ok_and(|event_type| !event_type.is_system());
        let call = Call { event_type, ..CALL };
        assert_eq!(call.is_taken(&world, &client).await, expected, "{event_type:?}");
    }
}

#[tokio::test]
async fn sql_takes_the_ids_that_core_does() {
    let (world, client) = (World::new().await, by_hand().await);
    for ulid in [
        "00000000000000000000000000",
        "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "01J5K3M9QW0ABCDEFGHJKMNPQR",
        "0STVWXYZ0123456789ABCDEFGH",
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "01j5k3m9qw0abcdefghjkmnpqr",
        "01J5K3M9QW0ABCDEFGHIKMNPQR",
        "01J5K3M9QW0ABCDEFGHLKMNPQR",
        "01J5K3M9QW0ABCDEFGHOKMNPQR",
        "01J5K3M9QW0ABCDEFGHUKMNPQR",
        "01J5K3M9QW0ABCDEFGHJKMNPQ",
        "01J5K3M9QW0ABCDEFGHJKMNPQRS",
        "01J5K3M9QW0ABCDEFGHJKMNPQ-",
        "",
        "01J5K3M9QW0ABCDEFGHJKMNPQé",
    ] {
        for prefix in ["org_", "evt_", ""] {
            let text = format!("{prefix}{ulid}");
            let call = Call { organization: &text, ..CALL };
            let expected = text.parse::<OrganizationId>().is_ok();
            assert_eq!(call.is_taken(&world, &client).await, expected, "{text}");
            let call = Call { id: Some(&text), ..CALL };
            let expected = text.parse::<EventId>().is_ok();
            assert_eq!(call.is_taken(&world, &client).await, expected, "{text}");
        }
        let text = format!("evt_{ulid}");
        if let Ok(id) = text.parse::<EventId>() {
            let call = Call { id: Some(&text), ..CALL };
            assert_eq!(call.make(&world, &client).await.unwrap(), text);
            assert_eq!(waiting(&world.storage).await.last().unwrap().id, id);
        }
    }
}

#[tokio::test]
async fn sql_takes_data_changes_and_metadata_as_the_api_does() {
    let (world, client) = (World::new().await, by_hand().await);
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(Metadata::BYTES_MAX - 8));
    let too_large = format!(r#"{{"a":"{}"}}"#, "x".repeat(Metadata::BYTES_MAX - 7));
    assert_eq!(large.len(), Metadata::BYTES_MAX);
    let taken = |call: Call<'static>| (call, true);
    let refused = |call: Call<'static>| (call, false);
    let data = |text| Call { data: Some(text), ..CALL };
    let changes = |text| Call { changes: Some(text), ..CALL };
    let metadata = |text| Call { metadata: Some(text), ..CALL };
    for (call, expected) in [
        taken(data("null")),
        taken(data("[1.50]")),
        taken(data(r#""\u00e9\u0000""#)),
        refused(Call { data: None, ..CALL }),
        refused(data("{")),
        refused(data("")),
        taken(changes("{}")),
        refused(changes("null")),
        refused(changes("[]")),
        taken(metadata("{}")),
        taken(metadata(r#"{"source":"","b":{"source":1},"a":null}"#)),
        refused(metadata("null")),
        refused(metadata("[]")),
        refused(metadata(r#"{"source":null}"#)),
        refused(metadata(r#"{"correlation_id":1}"#)),
        refused(metadata(r#"{"triggered_by":["a"]}"#)),
        refused(metadata(r#"{"a":1,"\u0061":2}"#)),
        refused(metadata(r#"{"\ud800":1}"#)),
        refused(metadata(r#"{"source":"\ud800"}"#)),
    ] {
        assert_eq!(call.is_taken(&world, &client).await, expected, "{call:?}");
    }
    assert!(Call { metadata: Some(&large), ..CALL }.is_taken(&world, &client).await);
    assert!(!Call { metadata: Some(&too_large), ..CALL }.is_taken(&world, &client).await);
}

#[tokio::test]
async fn what_sql_published_is_sealed_as_core_seals_it() {
    let (world, client) = (World::new().await, by_hand().await);
    let (data, changes) = (r#" {"z":1.50, "a":[ ]} "#, "\n{\"a\":{\"old\":1,\"new\":2}}\t");
    let metadata = r#"{"b" : 1.0, "source":"\u00e9", "a":{}}"#;
    let (data, changes) = (Some(data), Some(changes));
    let own = "evt_01J5K3M9QW0ABCDEFGHJKMNPQR";
    for id in [None, Some(own)] {
        let call = Call { data, changes, metadata: Some(metadata), id, ..CALL };
        let id = call.make(&world, &client).await.unwrap();
        let [sealed] = &waiting(&world.storage).await[..] else { panic!("one is waiting") };
        let (organization, event_type) = (ORGANIZATION.parse().unwrap(), CALL.event_type.parse());
        let mut event = NewEvent::from_raw(organization, event_type.unwrap(), raw(data.unwrap()));
        event.changes = changes.map(raw);
        event.metadata.source = Some("é".into());
        event.metadata.other = vec![("b".into(), raw("1.0")), ("a".into(), raw("{}"))];
        event.id = call.id.map(|id| id.parse().unwrap());
        assert_eq!(*sealed, seal(&event, id.parse().unwrap(), sealed.timestamp));
        assert_eq!(sealed.digest.is_some(), call.id.is_some());
        assert_eq!(waiting(&world.storage).await[0], *sealed, "and so the next time");
        world.write("DELETE FROM esl.intake").await;
    }
}

#[tokio::test]
async fn by_sql_an_envelope_is_as_large_as_may_be_and_no_larger() {
    let (world, client) = (World::new().await, by_hand().await);
    let open = |bytes| {
        let options = PostgresStorage::options().schema(&world.schema).may_lose_everything();
        options.payload_bytes_max(bytes).open(cluster::url())
    };
    let data = format!(r#"{{"text":"{}"}}"#, "é".repeat(200));
    for (changes, metadata) in [
        (None, None),
        (Some(r#"{"a":1}"#), None),
        (None, Some(r#"{"source":"a","b":[1.0]}"#)),
        (Some("{}"), Some("{}")),
    ] {
        let call = Call { data: Some(&data), changes, metadata, ..CALL };
        call.make(&world, &client).await.unwrap();
        let bytes = waiting(&world.storage).await.pop().unwrap().body.len();
        open(bytes).await.unwrap();
        assert!(call.is_taken(&world, &client).await, "{call:?}");
        open(bytes - 1).await.unwrap();
        assert!(!call.is_taken(&world, &client).await, "{call:?}");
        // It stays so for whoever says nothing.
        world.beside().await;
        assert!(!call.is_taken(&world, &client).await, "{call:?}");
        open(256 * 1024).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_may_publish_by_sql_may_do_nothing_else() {
    let (world, client) = (World::new().await, by_hand().await);
    let role = format!("{}_application", world.schema);
    let sql = format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA {} TO {role}; SET ROLE {role}",
        world.schema
    );
    client.batch_execute(&sql).await.unwrap();
    let code = |error: Error| error.code().unwrap().code().to_owned();
    assert_eq!(
        code(CALL.make(&world, &client).await.unwrap_err()),
        "42501",
        "nobody may by default"
    );
    world.write(&format!("GRANT EXECUTE ON FUNCTION esl.publish TO {role}")).await;
    CALL.make(&world, &client).await.unwrap();
    assert_eq!(waiting(&world.storage).await.len(), 1);
    for sql in ["SELECT FROM esl.intake", "DELETE FROM esl.events", "SELECT FROM esl.settings"] {
        let refused = client.batch_execute(&world.sql(sql)).await.unwrap_err();
        assert_eq!(code(refused), "42501", "{sql}");
    }
    // Functions of their own, in front of the server's, are not called with the owner's rights.
    let trap = "RESET ROLE; CREATE SCHEMA TRAP;
                CREATE FUNCTION TRAP.starts_with(text, text) RETURNS bool LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
                SET search_path = TRAP, pg_catalog";
    let own = format!("{}_trap", world.schema);
    client.batch_execute(&trap.replace("TRAP", &own)).await.unwrap();
    CALL.make(&world, &client).await.unwrap();
    let clean = format!("DROP SCHEMA {own} CASCADE; DROP OWNED BY {role}; DROP ROLE {role}");
    client.batch_execute(&clean).await.unwrap();
}

#[tokio::test]
async fn what_is_published_is_durable_whatever_the_session_says() {
    let (world, mut client) = (World::new().await, by_hand().await);
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    let setting = async |client: &Transaction<'_>| {
        let row = client.query_one("SHOW synchronous_commit", &[]).await.unwrap();
        row.get::<_, String>(0)
    };
    let publish = world.sql("SELECT esl.publish($1, 'a.b', '{}')");
    let transaction = client.transaction().await.unwrap();
    transaction.query_one(&publish, &[&ORGANIZATION]).await.unwrap();
    assert_eq!(setting(&transaction).await, "on");
    transaction.commit().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    assert_eq!(setting(&transaction).await, "off", "and the next one is the session's");
    let prepared = prepare(&world.storage).await;
    let _unused = world.storage.publish_in(&transaction, prepared).await.unwrap();
    assert_eq!(setting(&transaction).await, "on");
}

async fn prepare(storage: &PostgresStorage) -> esl_core::Prepared {
    let data = raw(r#"{"name":"Ada"}"#);
    let organization = ORGANIZATION.parse().unwrap();
    let event = NewEvent::from_raw(organization, "person.created".parse().unwrap(), data);
    Esl::publisher(storage.clone()).prepare(event).await.unwrap()
}

#[tokio::test]
async fn an_event_is_there_if_and_when_its_transaction_is_committed() {
    let (world, mut client) = (World::new().await, by_hand().await);
    let storage = &world.storage;
    let transaction = client.transaction().await.unwrap();
    let prepared = prepare(storage).await;
    let _unused = storage.publish_in(&transaction, prepared).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(waiting(storage).await, []);

    let transaction = client.transaction().await.unwrap();
    let (one, other) = (prepare(storage).await, prepare(storage).await);
    let events = [(**one.event()).clone(), (**other.event()).clone()];
    let receipt = storage.publish_in(&transaction, one).await.unwrap();
    assert_eq!(receipt.id(), events[0].id);
    let receipt = publish_in(&transaction, &world.schema, other).await.unwrap();
    assert_eq!(receipt.id(), events[1].id);
    assert_eq!(waiting(storage).await, []);
    transaction.commit().await.unwrap();
    receipt.notify();
    assert_eq!(waiting(storage).await, events);
}

#[tokio::test]
async fn another_database_is_refused_and_the_transaction_goes_on() {
    let (world, mut client) = (World::new().await, by_hand().await);
    // Its name is the same, but it is another one now.
    world.write("UPDATE esl.settings SET identity = gen_random_uuid()").await;
    let transaction = client.transaction().await.unwrap();
    let prepared = prepare(&world.storage).await;
    let refused = world.storage.publish_in(&transaction, prepared).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Unsupported);
    transaction.query_one("SELECT 1", &[]).await.unwrap();
    transaction.rollback().await.unwrap();

    let transaction = client.transaction().await.unwrap();
    let prepared = prepare(&world.storage).await;
    let refused = publish_in(&transaction, "nobodys", prepared).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Unsupported);
}

#[tokio::test]
#[ignore = "needs psycopg: tests/outbox/postgres.sh"]
async fn a_program_in_python_publishes_with_its_own_rows() {
    let (world, client) = (World::new().await, by_hand().await);
    let esl = Esl::builder(world.storage.clone()).build().await.unwrap();
    let python = std::env::var("ESL_TEST_PYTHON").expect("tests/outbox/postgres.sh names it");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/outbox/postgres.py");
    let (schema, url) = (world.schema.clone(), cluster::url());
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args([url, &schema, ORGANIZATION]).output().unwrap()
    });
    let ran = ran.await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let said = String::from_utf8(ran.stdout).unwrap();
    let committed: Vec<EventId> = said.lines().map(|id| id.parse().unwrap()).collect();
    assert_eq!(committed.len(), 3);

    // The engine finds them by itself, in their order.
    let mut look_again = tokio::time::interval(Duration::from_millis(20));
    let mut stored = Vec::new();
    for id in committed {
        while stored.last().is_none_or(|event: &esl_core::storage::StoredEvent| event.id != id) {
            look_again.tick().await;
            stored.extend(world.storage.event(world.organization, id).await.unwrap());
        }
    }
    let seqs: Vec<_> = stored.iter().map(|event| event.seq.get()).collect();
    assert_eq!(seqs, [1, 2, 3], "and what was rolled back is not there");
    let persons = format!("SELECT count(*) FROM {}_persons", world.schema);
    let row = client.query_one(&persons, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 3);
    esl.shutdown().await;
}
