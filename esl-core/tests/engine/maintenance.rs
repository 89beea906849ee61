//! Announcing maintenance.

use std::time::Duration;

use esl_core::{
    Announced, Esl, Limit, Maintenance, MaintenanceError, Plan, PublishError, Tier, Timestamp,
    storage::Schedule,
};
use serde_json::{Value, json};

use crate::world::{ORGANIZATION, START, World, event, run, run_with, url};

const HOUR: Duration = Duration::from_secs(3600);

fn tonight() -> Maintenance {
    let message = "The disks are exchanged.".to_owned();
    Maintenance { starts_at: START + HOUR * 2, ends_at: START + HOUR * 3, message }
}

impl World {
    /// Waits until the receiver `a` has been told of so many, and says what.
    async fn announcements(&self, count: usize) -> Vec<(Value, Value)> {
        self.until(|| async { (self.announced().len() >= count).then_some(()) }).await;
        self.announced()
    }

    /// What was announced to the receiver `a`, and when it says that it was.
    fn announced(&self) -> Vec<(Value, Value)> {
        let sent = self.transport.sightings_at(&url("a")).into_iter();
        sent.map(|sent| {
            let body: Value = serde_json::from_slice(&sent.outbound.body).unwrap();
            assert_eq!(body["type"], Maintenance::EVENT_TYPE);
            (body["timestamp"].clone(), body["data"].clone())
        })
        .collect()
    }
}

fn said(at: Timestamp) -> (Value, Value) {
    let Maintenance { starts_at, ends_at, message } = tonight();
    (json!(at), json!({ "starts_at": starts_at, "ends_at": ends_at, "message": message }))
}

#[test]
fn maintenance_is_announced_now_or_at_its_time_whatever_the_organization_has_published() {
    run(|world| async move {
        let mut plan = Plan::new(Tier::Free);
        plan.events_per_hour = Some(Limit::AtMost(1));
        world.esl.set_plan(ORGANIZATION, Some(plan)).await.unwrap();
        let subscription = world.subscribe("a", "system.maintenance.*").await;
        world.publish("person.updated", 1).await;
        world.esl.publish(event("person.updated", 2)).await.expect_err("nothing is left");

        let now = world.esl.announce_maintenance(ORGANIZATION, &tonight(), None, None).await;
        assert!(matches!(now, Ok(Announced::Now(published)) if published.deliveries == 1));
        world.until_delivered(&subscription, 1).await;
        let at = START + HOUR;
        let later = world.esl.announce_maintenance(ORGANIZATION, &tonight(), Some(at), None).await;
        assert!(matches!(later, Ok(Announced::Later(_, due)) if due == at));
        world.clock.advance(at.since(world.esl.now()) - Duration::from_millis(1));
        world.settle_down().await;
        assert_eq!(world.announced(), [said(START)]);
        // It is not counted in the new hour either.
        world.clock.advance(Duration::from_millis(1));
        assert_eq!(world.announcements(2).await, [said(START), said(at)]);
        let standing = world.esl.standing(ORGANIZATION).await.unwrap().unwrap();
        assert_eq!(standing.usage.events, 0);
        world.until_delivered(&subscription, 2).await;
        world.clock.advance(HOUR);
        world.settle_down().await;
        assert_eq!(world.announced().len(), 2, "once");
    });
}

#[test]
fn who_has_no_engine_announces_to_all_under_one_id_and_takes_back_what_waits() {
    run(|world| async move {
        world.subscribe("a", "*").await;
        // It goes by the machine's clock.
        let publisher = Esl::publisher(world.storage.clone());
        let endless = Maintenance { ends_at: Timestamp::MAX, ..tonight() };
        let nobody = esl_core::OrganizationId::from_bytes([9; 16]);
        let both = [ORGANIZATION, nobody];
        let refused = publisher.announce_maintenance(&both, &endless, None).await;
        assert!(matches!(refused, Err(PublishError::UnknownOrganization)));
        let refused = publisher.announce_maintenance(&[ORGANIZATION], &tonight(), None).await;
        let over = MaintenanceError::Over;
        assert!(matches!(refused, Err(PublishError::Maintenance(error)) if error == over));
        let told = publisher.announce_maintenance(&[ORGANIZATION], &endless, None).await;
        let [(_, data)] = world.announcements(1).await.try_into().expect("one");
        assert_eq!(data["ends_at"], json!(Timestamp::MAX));
        let stored = world.esl.storage().event(ORGANIZATION, told.unwrap()).await.unwrap();
        assert!(stored.is_some());

        let at = Some(Timestamp::MAX - HOUR);
        let later = publisher.announce_maintenance(&[ORGANIZATION], &endless, at).await.unwrap();
        let back = async || publisher.take_back_maintenance(&both, later).await.unwrap();
        assert_eq!((back().await, back().await), (1, 0));
    });
}

#[test]
fn a_clock_that_is_set_does_not_hide_what_is_due() {
    run(|world| async move {
        world.subscribe("a", "*").await;
        let at = START + HOUR * 2;
        world.esl.announce_maintenance(ORGANIZATION, &tonight(), Some(at), None).await.unwrap();
        world.settle_down().await;
        world.clock.set_utc(at);
        world.announcements(1).await;
    });
}

#[test]
fn while_the_event_system_is_off_nothing_is_announced() {
    run_with(
        |builder| builder.enabled(false),
        |world| async move {
            for at in [None, Some(START + HOUR)] {
                let off = world.esl.announce_maintenance(ORGANIZATION, &tonight(), at, None).await;
                assert!(matches!(off, Err(PublishError::Disabled)));
            }
            assert_eq!(world.storage.next_due().await.unwrap(), None);
        },
    );
}
