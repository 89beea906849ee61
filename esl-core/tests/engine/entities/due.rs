//! What is done about an entity when its time has come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use esl_core::{Document, Entity, EntityError, EntityKind, Kinds, Rules, Timestamp, Transaction};
use serde_json::{Value, json};

use super::library::Library;
use crate::world::{ORGANIZATION, START, engine, run_with};

/// Rings each minute, as often as it is to.
#[derive(Debug, Default)]
struct Alarm {
    is_broken: Arc<AtomicBool>,
}

#[async_trait]
impl Rules for Alarm {
    fn due_at(&self, document: &Document, _: Timestamp) -> Option<Timestamp> {
        let rung = document["rung"].as_u64()?;
        let due_at = START + Duration::from_secs(60) * u32::try_from(rung + 1).unwrap();
        (rung < document["times"].as_u64()?).then_some(due_at)
    }

    async fn due(
        &self,
        transaction: &mut Transaction<'_>,
        entity: &Entity,
    ) -> Result<(), EntityError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(EntityError::invalid("", "it is broken"));
        }
        let mut document = entity.document.clone();
        let rung = document["rung"].as_u64().unwrap() + 1;
        document.insert("rung".into(), rung.into());
        let data = json!({ "at": entity.due_at, "rung": rung });
        transaction.publish("alarm.rung".parse().unwrap(), data.as_object().unwrap().clone());
        transaction.update(&Arc::new(entity.clone()), document).await?;
        Ok(())
    }

    fn says(&self, _: Option<&Entity>, _: Option<&Entity>) -> Option<Vec<esl_core::Said>> {
        Some(Vec::new())
    }
}

fn kinds(alarm: Alarm) -> Kinds {
    let schema = json!({ "type": "object" });
    Kinds::new([EntityKind::new("alarm", "alarms", schema).unwrap().with_rules(alarm)]).unwrap()
}

fn alarms(alarm: Alarm, test: impl AsyncFnOnce(Library)) {
    run_with(
        |builder| builder.kinds(kinds(alarm)),
        |world| async move { test(Library { world, acme: ORGANIZATION }).await },
    );
}

impl Library {
    /// When it rang, in minutes after the start.
    async fn rung(&self) -> Vec<u64> {
        let stored = self.stored().await.into_iter();
        stored
            .map(|event| {
                assert_eq!(event["type"], "alarm.rung");
                assert_eq!(event["metadata"]["source"], "schedule");
                assert!(event["metadata"]["triggered_by"].as_str().unwrap().starts_with("alarm_"));
                let at: Timestamp = event["data"]["at"].as_str().unwrap().parse().unwrap();
                at.since(START).as_secs() / 60
            })
            .collect()
    }
}

fn three_times() -> Value {
    json!({ "rung": 0, "times": 3 })
}

#[test]
fn what_is_due_is_done_at_its_time_and_once() {
    alarms(Alarm::default(), async |library: Library| {
        library.entities("alarm").create(library.acme, three_times()).await.unwrap();
        let world = &library.world;
        world.clock.advance(Duration::from_millis(59_999));
        world.settle_down().await;
        assert!(library.rung().await.is_empty());
        world.clock.advance(Duration::from_millis(1));
        world.settle_down().await;
        assert_eq!(library.rung().await, [1]);
        // Two were missed.
        world.clock.advance(Duration::from_secs(600));
        world.until(|| async { (library.rung().await.len() == 3).then_some(()) }).await;
        world.clock.advance(Duration::from_secs(600));
        world.settle_down().await;
        assert_eq!(library.rung().await, [1, 2, 3]);
    });
}

#[test]
fn of_several_engines_one_does_it() {
    alarms(Alarm::default(), async |library: Library| {
        let world = &library.world;
        let mut engines = Vec::new();
        for seed in 2..5 {
            let builder = engine(seed, &world.storage, &world.clock, &world.transport);
            engines.push(builder.kinds(kinds(Alarm::default())).build().await.unwrap());
        }
        for _ in 0..10 {
            library.entities("alarm").create(library.acme, three_times()).await.unwrap();
        }
        let until = START + Duration::from_secs(300);
        world.until(|| async { (world.esl.now() > until).then_some(()) }).await;
        let mut rung = library.rung().await;
        rung.sort_unstable();
        let expected: Vec<_> = [1, 2, 3].into_iter().flat_map(|at| [at; 10]).collect();
        assert_eq!(rung, expected);
    });
}

#[test]
fn what_cannot_be_done_is_tried_again_and_holds_up_nothing() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let alarm = Alarm { is_broken: Arc::clone(&is_broken) };
    alarms(alarm, async |library: Library| {
        let world = &library.world;
        for _ in 0..150 {
            library.entities("alarm").create(library.acme, three_times()).await.unwrap();
        }
        let started = START + Duration::from_secs(65);
        world.until(|| async { (world.esl.now() > started).then_some(()) }).await;
        assert!(library.rung().await.is_empty());
        is_broken.store(false, Ordering::Relaxed);
        world.until(|| async { (library.rung().await.len() == 450).then_some(()) }).await;
    });
}

#[test]
fn what_is_due_is_done_whatever_was_published_in_the_hour() {
    alarms(Alarm::default(), async |library: Library| {
        let mut plan = esl_core::Plan::new(esl_core::Tier::Free);
        plan.events_per_hour = Some(esl_core::Limit::AtMost(1));
        library.world.esl.set_plan(library.acme, Some(plan)).await.unwrap();
        library.entities("alarm").create(library.acme, three_times()).await.unwrap();
        let rung = async || {
            let said = library.stored().await.into_iter();
            said.filter(|event| event["type"] == "alarm.rung").count()
        };
        library.world.until(|| async { (rung().await == 3).then_some(()) }).await;
        assert!(library.stored().await.len() > 3, "it counts, and so the organization is told");
    });
}
