//! A row of your own and its event, in one transaction: `cargo run --example outbox`
//!
//! Either both are there afterwards or neither is, whatever happens in between.

use esl::{
    Actor, Esl, NewEvent, Organization, OrganizationId, SqliteStorage, sqlite::rusqlite,
    storage::Tenancy,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let storage = SqliteStorage::open("outbox.db")?;
    let id: OrganizationId = "org_01J00000000000000000000000".parse()?;
    if storage.organization(id).await?.is_none() {
        let created_at = esl::Timestamp::EPOCH;
        storage
            .create_organization(Organization::new(id, "acme", created_at), &Actor::APPLICATION)
            .await?;
    }
    let esl = Esl::builder(storage.clone()).build().await?;

    // Your own connection to the same file, with your own tables.
    let mut database = rusqlite::Connection::open("outbox.db")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database
        .execute("CREATE TABLE IF NOT EXISTS persons (id INTEGER PRIMARY KEY, name TEXT)", ())?;

    for name in ["Ada", "Grace", "Barbara"] {
        // Sealed outside the transaction, so that the transaction stays short.
        let data = serde_json::json!({ "name": name });
        let event = NewEvent::new(id, "person.created".parse()?, &data)?;
        let prepared = esl.prepare(event).await?;

        // Waits until the engine is not writing, instead of competing with it.
        let turn = storage.turn().await;
        let transaction =
            database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute("INSERT INTO persons (name) VALUES (?1)", [name])?;
        let receipt = storage.publish_in(&transaction, prepared)?;
        transaction.commit()?;
        drop(turn);

        // The engine would find the event by itself; this saves it the time of looking.
        receipt.notify();
        println!("{name} and {} are committed", receipt.id());
    }

    // A transaction that is rolled back publishes nothing.
    let event = NewEvent::new(id, "person.created".parse()?, &serde_json::json!({}))?;
    let prepared = esl.prepare(event).await?;
    let forgotten = prepared.id();
    let transaction = database.transaction()?;
    let _unused = storage.publish_in(&transaction, prepared)?;
    transaction.rollback()?;

    esl.shutdown().await;
    anyhow::ensure!(storage_has_no(&storage, id, forgotten).await?, "it was rolled back");
    println!("{forgotten} was rolled back and does not exist");
    Ok(())
}

async fn storage_has_no(
    storage: &SqliteStorage,
    organization: OrganizationId,
    event: esl::EventId,
) -> anyhow::Result<bool> {
    use esl::storage::{Lanes, Records};
    let is_stored = storage.event(organization, event).await?.is_some();
    let intake = storage.intake(None, 100, &[]).await?;
    Ok(!is_stored && intake.iter().all(|(_, sealed)| sealed.id != event))
}
