//! An application that keeps persons, and says so in events.

use std::{collections::BTreeSet, io::Write, path::Path, time::Duration};

use esl::{
    Actor, CallbackPolicy, CallbackUrl, DeliveryState, Esl, HttpTransport, NewEvent,
    NewSubscription, Organization, OrganizationId, SqliteStorage, Timestamp,
    sqlite::rusqlite::{Connection, TransactionBehavior},
    storage::{Lanes, Page, Records, Subscriptions, Tenancy},
};

const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([7; 16]);

pub(crate) fn main(task: &str, database: &Path, receiver: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let storage = SqliteStorage::open(database).unwrap();
        let esl = engine(&storage, receiver).await;
        match task {
            "run" => run(&storage, &esl, database).await,
            "drain" => drain(&storage, &esl).await,
            _ => unreachable!("the test knows two tasks"),
        }
    });
}

async fn engine(storage: &SqliteStorage, receiver: &str) -> Esl {
    if storage.organization(ORGANIZATION).await.unwrap().is_none() {
        let name = "acme".to_owned();
        let organization = Organization::new(ORGANIZATION, name, Timestamp::EPOCH);
        storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
    }
    let policy = CallbackPolicy::allow_private();
    let builder = Esl::builder(storage.clone()).callbacks(policy.clone());
    let esl = builder.transport(HttpTransport::new(policy.clone())).build().await.unwrap();
    let page = Page { after: None, limit: 1 };
    if storage.subscriptions(ORGANIZATION, page).await.unwrap().items.is_empty() {
        let url = CallbackUrl::parse(receiver, &policy).unwrap();
        let new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
        esl.subscribe(ORGANIZATION, new).await.unwrap();
    }
    esl
}

fn event(event_type: &str, number: i64) -> NewEvent {
    let data = serde_json::json!({ "id": number });
    NewEvent::new(ORGANIZATION, event_type.parse().unwrap(), &data).unwrap()
}

/// Writes rows and their events until it is killed, while others publish at full rate.
async fn run(storage: &SqliteStorage, esl: &Esl, database: &Path) {
    for _ in 0..8 {
        let esl = esl.clone();
        tokio::spawn(async move {
            loop {
                esl.publish(event("noise.made", 0)).await.unwrap();
            }
        });
    }
    let mut connection = Connection::open(database).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    let table = "CREATE TABLE IF NOT EXISTS persons (id INTEGER PRIMARY KEY)";
    {
        let _turn = storage.turn().await;
        connection.execute(table, ()).unwrap();
    }
    loop {
        match write(storage, esl, &mut connection).await {
            Ok(()) => println!("committed"),
            Err(error) => println!("failed: {error}"),
        }
        std::io::stdout().flush().unwrap();
    }
}

async fn write(
    storage: &SqliteStorage,
    esl: &Esl,
    connection: &mut Connection,
) -> Result<(), Box<dyn std::error::Error>> {
    // Only this process writes persons, so the next number is known before the transaction.
    let next = "SELECT coalesce(max(id), 0) + 1 FROM persons";
    let number: i64 = connection.query_row(next, (), |row| row.get(0))?;
    let prepared = esl.prepare(event("person.created", number)).await?;
    let turn = storage.turn().await;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("INSERT INTO persons (id) VALUES (?1)", [number])?;
    let receipt = storage.publish_in(&transaction, prepared)?;
    transaction.commit()?;
    drop(turn);
    receipt.notify();
    Ok(())
}

/// Lets everything that is owed arrive.
async fn drain(storage: &SqliteStorage, esl: &Esl) {
    let mut look_again = tokio::time::interval(Duration::from_millis(20));
    loop {
        look_again.tick().await;
        let intake = storage.intake(None, 1, &[]).await.unwrap();
        let page = Page { after: None, limit: 1 };
        let subscription = storage.subscriptions(ORGANIZATION, page).await.unwrap().items.remove(0);
        let pending = Some(DeliveryState::Pending);
        let page = Page { after: None, limit: 1 };
        let owed = storage.deliveries(ORGANIZATION, subscription.id, pending, page).await;
        let owed = owed.unwrap().unwrap();
        if intake.is_empty() && owed.items.is_empty() {
            break;
        }
    }
    esl.shutdown().await;
}

/// The numbers of the persons that were committed.
pub(crate) fn rows(database: &Path) -> BTreeSet<u64> {
    let connection = Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT id FROM persons").unwrap();
    let rows = statement.query_map((), |row| row.get::<_, i64>(0)).unwrap();
    rows.map(|id| u64::try_from(id.unwrap()).unwrap()).collect()
}
