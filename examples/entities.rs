//! Documents of your own whose every change is an event: `cargo run --example entities`
//!
//! Declares a kind, invoices, and prints what is published as one is made, paid and deleted. An application
//! asks for it by the feature `entities`.

use esl::{
    Actor, EntityError, EntityKind, Esl, Kinds, Organization, SqliteStorage,
    storage::{Page, Records, Tenancy},
};
use serde_json::json;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let invoice = json!({
        "type": "object",
        "properties": {
            "number": { "type": "string", "minLength": 1 },
            "paid": { "type": "boolean", "default": false },
        },
        "required": ["number"],
        "additionalProperties": false,
    });
    let invoice = EntityKind::new("invoice", "invoices", invoice)?.indexed("number");

    let storage = SqliteStorage::open("entities.db")?;
    let esl = Esl::builder(storage.clone()).kinds(Kinds::new([invoice])?).build().await?;
    let id = "org_01J00000000000000000000000".parse()?;
    if storage.organization(id).await?.is_none() {
        let acme = Organization::new(id, "acme", esl::Timestamp::EPOCH);
        storage.create_organization(acme, &Actor::APPLICATION).await?;
    }

    let invoices = esl.entities("invoice")?;
    let created = invoices.create(id, json!({ "number": "2026-1" })).await?;
    let its = created.shown.entity.id();
    let pay = |_: &_, invoice: &mut esl::Document| {
        invoice.insert("paid".to_owned(), true.into());
        Ok::<_, EntityError>(())
    };
    invoices.update(id, its, pay).await?;
    let again = invoices.update(id, its, pay).await?;
    anyhow::ensure!(!again.has_changed, "it is paid already: nothing is written or published");
    if let Err(refused) = invoices.create(id, json!({ "number": 7 })).await {
        println!("refused: {refused}");
    }
    invoices.delete(id, its, |_| Ok::<_, EntityError>(())).await?;

    let events = storage.events(id, None, Page { after: None, limit: 3 }).await?.items;
    for event in events.iter().rev() {
        println!("{}", String::from_utf8_lossy(&event.body));
    }
    esl.shutdown().await;
    Ok(())
}
