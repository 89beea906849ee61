//! Commits, watched and failing; and the bugs that are planted in them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use esl_core::{
    MemoryStorage,
    storage::{
        Accepted, Commit, Committed, Records as _, Refused, StorageError, Subscriptions as _, Unit,
    },
};

use super::FaultyStorage;
use crate::{
    bug::Bug,
    commits,
    world::{World, at_once},
};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Commit for FaultyStorage {
    async fn commit(
        &self,
        units: Vec<Unit>,
    ) -> Result<Vec<Result<Committed, Refused>>, StorageError> {
        self.before("commit").await?;
        let result = match self.world.bug {
            Some(Bug::SettlementDropped) => {
                watched(&self.world, &self.inner, &self.without_some(units))
            }
            Some(Bug::AcknowledgedBeforeCommit) => self.acknowledge(units),
            Some(Bug::OneMoreInFlight | Bug::OneAttemptForgotten) | None => {
                watched(&self.world, &self.inner, &units)
            }
        };
        self.after("commit", result).await
    }
}

type Results = Result<Vec<Result<Committed, Refused>>, StorageError>;

/// Commits, and has the oracle look at it.
fn watched(world: &World, inner: &MemoryStorage, units: &[Unit]) -> Results {
    let before = commits::before(world, units);
    let results = at_once(inner.commit(units.to_vec()))?;
    commits::look(world, units, &before, &results);
    for (unit, result) in units.iter().zip(&results) {
        let settled = unit.settle.iter().map(|settle| settle.settlements.len()).sum::<usize>();
        let events = unit.publish.iter().map(|publish| publish.events.len()).sum::<usize>();
        let refused = result.as_ref().err();
        world.note(format_args!("commit of {events} events, {settled} settlements: {refused:?}"));
    }
    Ok(results)
}

impl FaultyStorage {
    /// A planted bug: some settlements are dropped.
    fn without_some(&self, mut units: Vec<Unit>) -> Vec<Unit> {
        for settle in units.iter_mut().filter_map(|unit| unit.settle.as_mut()) {
            settle.settlements.retain(|_| !self.world.dice.permille(50));
        }
        units
    }

    /// A planted bug: a single event is acknowledged as it will be, and committed a little later.
    fn acknowledge(&self, units: Vec<Unit>) -> Results {
        commit_late(&self.world, &self.inner, &self.uncommitted)?;
        let Some(answer) = self.forecast(&units) else {
            return watched(&self.world, &self.inner, &units);
        };
        self.uncommitted.lock().unwrap().push(units);
        let (world, uncommitted) = (Arc::clone(&self.world), Arc::clone(&self.uncommitted));
        let inner = self.inner.clone();
        tokio::spawn(async move {
            world.sleep(Duration::from_millis(20)).await;
            commit_late(&world, &inner, &uncommitted)
        });
        Ok(vec![Ok(Committed { events: vec![answer], ..Committed::default() })])
    }

    fn forecast(&self, units: &[Unit]) -> Option<Accepted> {
        let [Unit { publish: Some(publish), settle: None, expand: None, .. }] = units else {
            return None;
        };
        let ([routed], None, None) = (&*publish.events, &publish.idempotency, &publish.metering)
        else {
            return None;
        };
        let organization = publish.organization;
        let is_behind = !self.world.ledger().organizations[&organization].fan_outs.is_empty();
        if is_behind || routed.lanes.len() > self.world.fan_out_above {
            return None;
        }
        let routes = at_once(self.inner.routes(organization)).ok()??;
        let known = at_once(self.inner.event(organization, routed.event.id)).ok()?;
        (routes.version == publish.route_version && known.is_none()).then(|| Accepted {
            id: routed.event.id,
            seq: routes.last_seq.next(),
            deliveries: u32::try_from(routed.lanes.len()).unwrap(),
            repeated: false,
            fanned_out: false,
        })
    }
}

fn commit_late(
    world: &World,
    inner: &MemoryStorage,
    uncommitted: &std::sync::Mutex<Vec<Vec<Unit>>>,
) -> Result<(), StorageError> {
    let late = std::mem::take(&mut *uncommitted.lock().unwrap());
    for units in late {
        watched(world, inner, &units)?;
    }
    Ok(())
}
