//! What receivers answer, and what becomes of it.

use std::time::Duration;

use async_trait::async_trait;
use esl_core::{
    AttemptError, CustomHeaders, DeliveryState, DisabledReason, Outbound, RetryPolicy, Sent,
    SubscriptionOptions, SubscriptionUpdate, Transport, storage::StorageErrorKind, testing::Reply,
};

use crate::world::{ORGANIZATION, START, event, run, run_with, url};

#[test]
fn a_receiver_that_fails_gets_one_and_budget_attempts_at_the_documented_delays() {
    run(|world| async move {
        let subscription = world.subscribe("a", "person.*").await;
        world.transport.script(&url("a"), vec![Reply::status(500); 7]);
        let published = world.publish("person.updated", 1).await;
        let delivery = world.until_state(&subscription, published, DeliveryState::Exhausted).await;
        assert_eq!(delivery.attempts, 6);
        assert_eq!(
            (delivery.last_status, delivery.last_error),
            (Some(500), Some(AttemptError::Status))
        );

        let sightings = world.transport.sightings_at(&url("a"));
        assert_eq!(sightings.len(), 6, "1 + budget");
        for (index, pair) in sightings.windows(2).enumerate() {
            let delay = pair[1].at_monotonic.saturating_sub(pair[0].at_monotonic);
            let documented = Duration::from_secs(1 << index);
            assert!(delay >= documented * 8 / 10, "{delay:?} after attempt {}", index + 1);
            assert!(delay <= documented * 12 / 10, "{delay:?} after attempt {}", index + 1);
        }
        let numbers: Vec<_> = sightings
            .iter()
            .map(|one| one.header("x-sapien-attempt").unwrap().to_owned())
            .collect();
        assert_eq!(numbers, ["1", "2", "3", "4", "5", "6"]);

        let (_, log) =
            world.esl.storage().delivery(ORGANIZATION, delivery.id).await.unwrap().unwrap();
        assert_eq!(
            log.iter().map(|attempt| attempt.number).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
        assert!(log.iter().all(|attempt| attempt.charged && !attempt.probe));
        assert_eq!(log[0].started_at, START);
    });
}

#[test]
fn an_explicit_schedule_is_kept_to_the_millisecond_but_for_the_commit_of_the_failure() {
    let schedule = vec![Duration::from_secs(7), Duration::from_secs(30)];
    let retry = RetryPolicy::default().with_budget(2).with_schedule(schedule.clone());
    run_with(
        |builder| builder.retry(retry),
        |world| async move {
            let subscription = world.subscribe("a", "*").await;
            world.transport.script(&url("a"), vec![Reply::failure(AttemptError::Connect); 3]);
            let published = world.publish("person.updated", 1).await;
            world.until_state(&subscription, published, DeliveryState::Exhausted).await;
            let sightings = world.transport.sightings_at(&url("a"));
            let delays: Vec<_> =
                sightings.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect();
            assert_eq!(delays, schedule);
        },
    );
}

#[test]
fn what_our_own_side_could_not_send_costs_no_attempt_however_long_it_lasts() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.transport.script(&url("a"), vec![Reply::failure(AttemptError::Unsent); 100]);
        for number in 1..=20 {
            world.publish("person.updated", number).await;
        }
        world.until(|| async { (world.transport.sightings().len() >= 100).then_some(()) }).await;
        let health = world.esl.storage().health(ORGANIZATION, subscription.id).await;
        let lane = health.unwrap().unwrap().lane;
        assert_eq!((lane.failures, lane.failing_since, lane.is_open()), (0, None, false));

        world.until_delivered(&subscription, 20).await;
        let sightings = world.transport.sightings_at(&url("a"));
        assert_eq!(sightings.len(), 120);
        assert!(sightings.iter().all(|one| one.header("x-sapien-attempt") == Some("1")));
        // Four at a time, as a lane begins; then it waits.
        let lasted = sightings[100].at_monotonic.saturating_sub(sightings[0].at_monotonic);
        assert!(lasted >= Duration::from_secs(100 / 4 * 5), "{lasted:?}");
        for delivery in world.deliveries(&subscription).await {
            assert_eq!((delivery.attempts, delivery.last_error), (1, None));
        }
    });
}

#[test]
fn a_failure_between_two_tries_of_our_own_trouble_is_the_only_attempt_that_counts() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        let unsent = || Reply::failure(AttemptError::Unsent);
        let stale = Reply::failure(AttemptError::StaleConnection);
        let script = [unsent(), Reply::status(500), unsent(), stale, unsent()];
        world.transport.script(&url("a"), script);
        let published = world.publish("person.updated", 1).await;
        let delivery = world.until_state(&subscription, published, DeliveryState::Delivered).await;
        let sightings = world.transport.sightings_at(&url("a"));
        let numbers: Vec<_> =
            sightings.iter().map(|one| one.header("x-sapien-attempt").unwrap()).collect();
        assert_eq!(numbers, ["1", "1", "2", "2", "3", "3"]);
        let (_, log) =
            world.esl.storage().delivery(ORGANIZATION, delivery.id).await.unwrap().unwrap();
        let log: Vec<_> = log.iter().map(|one| (one.number, one.error, one.charged)).collect();
        let expected = [
            (1, Some(AttemptError::Status), true),
            (2, Some(AttemptError::StaleConnection), false),
            (3, None, true),
        ];
        assert_eq!(log, expected);
    });
}

#[test]
fn what_met_410_at_its_last_attempt_is_held_and_sent_on_resume() {
    run_with(
        |builder| builder.retry(RetryPolicy::default().with_budget(0)),
        |world| async move {
            let subscription = world.subscribe("a", "*").await;
            world.transport.script(&url("a"), [Reply::status(410)]);
            let published = world.publish("person.updated", 1).await;
            world.until_state(&subscription, published, DeliveryState::Held).await;
            let mut resume = SubscriptionUpdate::default();
            resume.active = Some(true);
            world.esl.update_subscription(ORGANIZATION, subscription.id, resume).await.unwrap();
            world.until_state(&subscription, published, DeliveryState::Delivered).await;
            assert_eq!(world.sent_to("a"), [1, 1]);
        },
    );
}

#[test]
fn an_exhausted_delivery_can_be_sent_again_and_its_attempts_count_on() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.transport.script(&url("a"), vec![Reply::status(500); 6]);
        let published = world.publish("person.updated", 1).await;
        let exhausted = world.until_state(&subscription, published, DeliveryState::Exhausted).await;

        let reopened = world.esl.redeliver(ORGANIZATION, exhausted.id).await.unwrap();
        assert_eq!((reopened.id, reopened.state), (exhausted.id, DeliveryState::Pending));
        let delivered = world.until_state(&subscription, published, DeliveryState::Delivered).await;
        assert_eq!(delivered.attempts, 7);
        let last = world.transport.sightings().pop().unwrap();
        assert_eq!(last.header("x-sapien-attempt"), Some("7"));
        assert_eq!(last.header("x-sapien-delivery"), Some(&*exhausted.id.to_string()));

        let error = world.esl.redeliver(ORGANIZATION, exhausted.id).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Conflict, "it is delivered");
    });
}

#[test]
fn a_410_switches_off_and_holds_until_it_is_switched_on_again() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.transport.script(&url("a"), [Reply::status(410)]);
        let first = world.publish("person.updated", 1).await;
        world.until_state(&subscription, first, DeliveryState::Held).await;
        let read = || async {
            world.esl.storage().subscription(ORGANIZATION, subscription.id).await.unwrap().unwrap()
        };
        assert_eq!(
            (read().await.active, read().await.disabled_reason),
            (false, Some(DisabledReason::Gone))
        );

        let second = world.publish("person.updated", 2).await;
        world.until_state(&subscription, second, DeliveryState::Held).await;
        assert_eq!(world.sent_to("a"), [1]);

        let mut resume = SubscriptionUpdate::default();
        resume.active = Some(true);
        world.esl.update_subscription(ORGANIZATION, subscription.id, resume).await.unwrap();
        world.until_delivered(&subscription, 2).await;
        assert_eq!(read().await.disabled_reason, None);
    });
}

#[test]
fn retry_after_holds_back_the_whole_lane() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        let other = world.subscribe("b", "*").await;
        world.transport.script(&url("a"), [Reply::retry_after(429, "120")]);
        world.publish("person.updated", 1).await;
        world.settle_down().await;
        world.publish("person.updated", 2).await;
        world.until_delivered(&subscription, 2).await;
        let sightings = world.transport.sightings_at(&url("a"));
        assert_eq!(sightings.len(), 3);
        for later in &sightings[1..] {
            assert!(later.at.since(sightings[0].at) >= Duration::from_secs(120));
        }
        world.until_delivered(&other, 2).await;
        let elsewhere = world.transport.sightings_at(&url("b"));
        assert!(elsewhere.iter().all(|one| one.at.since(START) < Duration::from_secs(1)));
    });
}

#[test]
fn a_stale_connection_is_tried_again_at_once_and_not_charged() {
    run_with(
        |builder| builder.retry(RetryPolicy::default().with_budget(0)),
        |world| async move {
            let subscription = world.subscribe("a", "*").await;
            world.transport.script(&url("a"), [Reply::failure(AttemptError::StaleConnection)]);
            let published = world.publish("person.updated", 1).await;
            let delivery =
                world.until_state(&subscription, published, DeliveryState::Delivered).await;
            assert_eq!(delivery.attempts, 2);
            let (_, log) =
                world.esl.storage().delivery(ORGANIZATION, delivery.id).await.unwrap().unwrap();
            let charged: Vec<_> = log.iter().map(|attempt| attempt.charged).collect();
            assert_eq!(charged, [false, true]);
            let sightings = world.transport.sightings();
            let fresh: Vec<_> = sightings.iter().map(|sent| sent.outbound.fresh).collect();
            assert_eq!(fresh, [false, true], "the second try takes no kept connection");
        },
    );
}

#[test]
fn an_open_circuit_sends_one_probe_at_a_time_and_closes_at_the_first_success() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.transport.script(&url("a"), vec![Reply::status(500); 10]);
        for number in 1..=10 {
            world.esl.publish(event("person.updated", number)).await.unwrap();
        }
        world.settle_down().await;
        let failed = world.transport.sightings().len();
        assert_eq!(failed, 10, "ten failures open it");
        world.transport.script(&url("a"), [Reply::status(500)]);
        world.until_delivered(&subscription, 10).await;

        let sightings = world.transport.sightings();
        let probe = &sightings[10];
        let waited = probe.at.since(sightings[9].at);
        assert!(waited >= Duration::from_secs(30), "{waited:?}");
        let second_probe = &sightings[11];
        assert!(second_probe.at.since(probe.at) >= Duration::from_secs(60));
        // Not charged: the oldest was tried three times, two of them as probes.
        let oldest = world.deliveries(&subscription).await.pop().unwrap();
        let (_, log) =
            world.esl.storage().delivery(ORGANIZATION, oldest.id).await.unwrap().unwrap();
        let probes: Vec<_> = log.iter().map(|attempt| (attempt.probe, attempt.charged)).collect();
        assert_eq!(probes, [(false, true), (true, false), (true, false)]);
    });
}

#[test]
fn a_receiver_that_hangs_is_given_up_at_the_deadline_and_the_others_do_not_notice() {
    run(|world| async move {
        world.subscribe("hung", "*").await;
        let healthy = world.subscribe("healthy", "*").await;
        world.transport.script(&url("hung"), vec![Reply::Hang; 40]);
        for number in 1..=40 {
            world.esl.publish(event("person.updated", number)).await.unwrap();
            world.settle_down().await;
        }
        assert_eq!(world.transport.hanging_at(&url("hung")), 4, "a lane starts with four");
        world.until_delivered(&healthy, 40).await;
        let sent = world.transport.sightings_at(&url("healthy"));
        assert!(sent.iter().all(|one| one.at.since(START) < Duration::from_secs(1)));
    });
}

#[test]
fn a_clock_that_is_set_back_an_hour_delays_no_retry_and_hastens_none() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.transport.script(&url("a"), vec![Reply::status(500); 6]);
        let published = world.publish("person.updated", 1).await;
        world.transport.wait_for_sends(1).await;
        world.clock.set_utc(START - Duration::from_secs(60 * 60));
        world.until_state(&subscription, published, DeliveryState::Exhausted).await;
        let sightings = world.transport.sightings();
        assert_eq!(sightings.len(), 6);
        for (index, pair) in sightings.windows(2).enumerate() {
            let delay = pair[1].at_monotonic.saturating_sub(pair[0].at_monotonic);
            let documented = Duration::from_secs(1 << index);
            assert!(delay >= documented * 8 / 10, "{delay:?} after attempt {}", index + 1);
            assert!(delay <= documented * 12 / 10, "{delay:?} after attempt {}", index + 1);
        }
    });
}

#[test]
fn what_a_receiver_says_of_its_credentials_is_masked_in_the_log_of_attempts() {
    run(|world| async move {
        let headers = [("authorization", "Bearer of-a-gateway"), ("x-tenant", "a")];
        let headers = CustomHeaders::new(headers).unwrap();
        let options = SubscriptionOptions::default().with_headers(headers);
        let subscription = world.subscribe_with("a", "*", options).await;
        let secret = subscription.secret.expose();
        let said = format!(
            "a bad token: Bearer of-a-gateway, of-a-gateway; signed with {secret}, {}",
            secret.strip_prefix("whsec_").unwrap()
        );
        let mut answer = Reply::status(403);
        if let Reply::Answer(answer) = &mut answer {
            answer.excerpt = said.into();
        }
        world.transport.script(&url("a"), [answer]);
        let published = world.publish("person.updated", 1).await;
        let delivery = world.until_state(&subscription, published, DeliveryState::Delivered).await;
        let (_, log) =
            world.esl.storage().delivery(ORGANIZATION, delivery.id).await.unwrap().unwrap();
        let detail = log[0].detail.as_deref();
        assert_eq!(detail, Some("a bad token: ***, ***; signed with ***, ***"));
    });
}

#[test]
fn a_transport_that_panics_shows_in_the_health_of_the_engine() {
    #[derive(Debug)]
    struct Panicking;

    #[async_trait]
    impl Transport for Panicking {
        async fn send(&self, _: Outbound) -> Sent {
            panic!("a bug of the transport")
        }
    }

    run_with(
        |builder| builder.transport(Panicking),
        |world| async move {
            world.subscribe("a", "*").await;
            assert!(world.esl.is_healthy());
            world.publish("person.updated", 1).await;
            world.until(async || (!world.esl.is_healthy()).then_some(())).await;
        },
    );
}
