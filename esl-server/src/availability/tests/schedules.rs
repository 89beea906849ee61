use esl_core::storage::Entities;

use super::*;

/// A Monday.
const START: &str = "2024-01-15T08:00:00.000Z";

fn schedule(cron: &str, time_zone: &str, more: Value) -> Value {
    let mut schedule = json!({ "user_id": "user_1", "cron": cron, "time_zone": time_zone });
    let Value::Object(more) = more else { panic!("they are members") };
    schedule.as_object_mut().unwrap().extend(more);
    schedule
}

impl World {
    async fn schedule(&self, cron: &str, time_zone: &str, more: Value) -> Document {
        let schedule = schedule(cron, time_zone, more);
        self.create("availability.schedule", schedule).await.unwrap()
    }

    /// Lets time pass, stopping only where something is due: in between, an engine has nothing to do but to
    /// say every few seconds that it is there.
    async fn pass_from_due_to_due(&self, time: Duration) {
        let until = self.clock.utc() + time;
        while self.clock.utc() < until {
            let due_at = self.storage.next_entity_due().await.unwrap().expect("one is always");
            let wait = due_at.min(until).since(self.clock.utc());
            // What is due already is waited for.
            self.leap(wait.max(Duration::from_secs(1))).await;
        }
    }

    /// When schedules have fired, and whether late, after so many events.
    async fn fired(&self, after: usize) -> Vec<(Timestamp, bool)> {
        let said = self.said(after).await.into_iter();
        said.filter(|(event_type, ..)| event_type == "availability.schedule.triggered")
            .map(|(_, data, source)| {
                assert_eq!(source, "schedule");
                (time(data["due_at"].as_str().unwrap()), data["late"].as_bool().unwrap())
            })
            .collect()
    }
}

#[test]
fn a_schedule_fires_at_its_time_and_changes_the_status() {
    at(START, async |world: World| {
        let office =
            json!({ "status": "available", "reason": "At work", "duration_seconds": 28800 });
        let created = world.schedule("0 9 * * MON-FRI", "Europe/Berlin", office).await;
        // At eight in UTC it is nine in Berlin: that was just now.
        let days = ["16", "17", "18", "19", "22"].map(|day| format!("2024-01-{day}T08:00:00.000Z"));
        assert_eq!(created["next"], json!(days));
        assert_eq!(created["last"], Value::Null);
        assert_eq!(world.said(0).await, [], "a schedule itself says nothing");

        world.pass(DAY).await;
        let id = id_of(&created);
        let triggered = json!({
            "schedule_id": id,
            "user_id": "user_1",
            "due_at": "2024-01-16T08:00:00.000Z",
            "late": false,
            "status": "available",
            "reason": "At work",
            "profile_id": null,
            "effective_until": "2024-01-16T16:00:00.000Z",
        });
        let changed = json!({
            "user_id": "user_1",
            "previous_status": null,
            "current_status": "available",
            "profile_id": null,
            "effective_until": "2024-01-16T16:00:00.000Z",
            "reason": "At work",
        });
        let said = world.said(0).await;
        assert_eq!(
            said,
            [
                ("availability.schedule.triggered".into(), triggered.clone(), json!("schedule")),
                ("availability.changed".into(), changed, json!("schedule")),
            ]
        );
        let shown = world.read("availability.schedule", &id).await;
        assert_eq!(shown["last"], triggered);
        assert_eq!(shown["next"][0], json!(days[1]));
        // What it has set is over in the evening.
        world.pass(9 * HOUR).await;
        let back = world.said(2).await;
        assert_eq!((&back[0].1["current_status"], back.len()), (&json!("offline"), 1));
    });
}

#[test]
fn one_that_changes_nothing_is_triggered_all_the_same() {
    at(START, async |world: World| {
        world.put("user_1", json!({ "status": "busy" })).await.unwrap();
        world.schedule("*/5 * * * *", "UTC", json!({ "status": "busy" })).await;
        world.pass(16 * MINUTE).await;
        let types: Vec<_> = world.said(1).await.into_iter().map(|(name, ..)| name).collect();
        assert_eq!(types, ["availability.schedule.triggered"; 3]);
    });
}

#[test]
fn a_profile_says_what_a_schedule_leaves_out_when_it_fires() {
    at(START, async |world: World| {
        let profile = json!({ "name": "Lunch", "status": "away", "reason": "Eating" });
        let profile = id_of(&world.create("availability.profile", profile).await.unwrap());
        let with = json!({ "profile_id": profile });
        let schedule = id_of(&world.schedule("0 12 * * *", "UTC", with).await);
        let refused = world.delete("availability.profile", &profile).await;
        assert!(matches!(refused, Err(EntityError::InUse { .. })));
        world.patch("availability.profile", &profile, json!({ "reason": "Soup" })).await.unwrap();
        world.pass(4 * HOUR).await;
        let status = world.read("availability.status", "user_1").await;
        assert_eq!((&status["status"], &status["reason"]), (&json!("away"), &json!("Soup")));
        assert_eq!(status["profile_id"], json!(profile));
        world.delete("availability.schedule", &schedule).await.unwrap();
        world.delete("availability.profile", &profile).await.unwrap();
    });
}

#[test]
fn disabled_and_deleted_ones_never_fire_and_what_they_missed_is_gone() {
    at(START, async |world: World| {
        let busy = || json!({ "status": "busy" });
        let off = id_of(&world.schedule("*/5 * * * *", "UTC", busy()).await);
        let gone = id_of(&world.schedule("*/5 * * * *", "UTC", busy()).await);
        let off_from_the_start = json!({ "status": "busy", "enabled": false });
        world.schedule("*/5 * * * *", "UTC", off_from_the_start).await;
        let disabled = json!({ "enabled": false });
        let disabled = world.patch("availability.schedule", &off, disabled).await.unwrap();
        assert_eq!(disabled["next"], json!([]));
        world.delete("availability.schedule", &gone).await.unwrap();
        world.pass(HOUR).await;
        assert_eq!(world.fired(0).await, []);
        world.patch("availability.schedule", &off, json!({ "enabled": true })).await.unwrap();
        world.pass(6 * MINUTE).await;
        assert_eq!(world.fired(0).await, [(time("2024-01-15T09:05:00Z"), false)]);
    });
}

#[test]
fn what_was_missed_fires_late_or_the_last_of_it_or_not_at_all() {
    at(START, async |mut world: World| {
        let mut ids = Vec::new();
        for missed in ["each", "last", "skip"] {
            let more = json!({ "status": "busy", "missed": missed });
            ids.push(id_of(&world.schedule("*/10 * * * *", "UTC", more).await));
        }
        world.pass(11 * MINUTE).await;
        world.kill();
        // Until 08:50:30: the one of 08:50 is not late.
        world.leap(39 * MINUTE + MINUTE / 2).await;
        world.begin().await;
        world.pass(10 * MINUTE).await;
        let fired = async |id: &String| {
            let said = world.said(0).await.into_iter();
            let of = said.filter(|(_, data, _)| data["schedule_id"] == json!(id));
            of.map(|(_, data, _)| {
                let at = data["due_at"].as_str().unwrap()[11..16].to_owned();
                (at, data["late"] == true)
            })
            .collect::<Vec<_>>()
        };
        let at = |text: &str, late| (text.to_owned(), late);
        let [first, rest] = [at("08:10", false), at("08:50", false)];
        let last = at("09:00", false);
        let missed = [at("08:20", true), at("08:30", true), at("08:40", true)];
        let each = [&[first.clone()][..], &missed, &[rest.clone(), last.clone()]].concat();
        assert_eq!(fired(&ids[0]).await, each);
        assert_eq!(fired(&ids[1]).await, [first.clone(), rest.clone(), last.clone()]);
        assert_eq!(fired(&ids[2]).await, [first, rest, last]);
    });
}

#[test]
fn of_a_long_absence_the_last_firing_is_found() {
    at(START, async |mut world: World| {
        for (cron, missed) in [("0 0 29 2 *", "last"), ("* * * * *", "last"), ("* * * * *", "skip")]
        {
            let more = json!({ "status": "busy", "missed": missed });
            world.schedule(cron, "UTC", more).await;
        }
        world.kill();
        world.leap(DAY * 1000 + 2 * MINUTE + MINUTE / 2).await;
        world.begin().await;
        world.pass(MINUTE / 4).await;
        let fired = world.fired(0).await;
        let minute = time("2026-10-11T08:02:00Z");
        assert_eq!(fired.len(), 3, "{fired:?}");
        assert!(fired.contains(&(time("2024-02-29T00:00:00Z"), true)), "{fired:?}");
        assert_eq!(fired.iter().filter(|fired| **fired == (minute, false)).count(), 2);
    });
}

#[test]
fn what_is_over_by_the_time_it_fires_changes_no_status() {
    at(START, async |mut world: World| {
        let busy = json!({ "status": "busy", "duration_seconds": 600 });
        world.schedule("30 8 * * *", "UTC", busy).await;
        world.kill();
        world.leap(2 * HOUR).await;
        world.begin().await;
        world.pass(MINUTE).await;
        let said = world.said(0).await;
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].1["effective_until"], "2024-01-15T08:40:00.000Z");
        assert_eq!(said[0].1["late"], true);
    });
}

#[test]
fn schedules_that_are_none_are_refused() {
    at(START, async |world: World| {
        for (cron, time_zone, more, expected) in [
            ("* * * *", "UTC", json!({ "status": "busy" }), vec!["/cron"]),
            ("* * 30 2 *", "UTC", json!({ "status": "busy" }), vec!["/cron"]),
            ("* * * * *", "Europe/Nowhere", json!({ "status": "busy" }), vec!["/time_zone"]),
            ("* * * *", "UTC", json!({}), vec!["/cron", "/status"]),
            ("* * * * *", "UTC", json!({ "profile_id": "profile_x" }), vec!["/profile_id"]),
            ("* * * * *", "UTC", json!({ "status": "busy", "missed": "x" }), vec!["/missed"]),
            ("* * * * *", "UTC", json!({ "status": "busy", "done_until": 1 }), vec!["/done_until"]),
            ("* * * * *", "UTC", json!({ "status": "busy", "user_id": "" }), vec!["/user_id"]),
        ] {
            let schedule = schedule(cron, time_zone, more);
            let created = world.create("availability.schedule", schedule.clone()).await;
            assert_eq!(wrong(created), expected, "{schedule}");
        }
    });
}

/// Over two years, with restarts, in zones whose clocks change in other ways and at other times.
#[test]
fn over_two_years_each_due_time_fires_once() {
    let start = "2024-01-01T00:00:00.000Z";
    at(start, async |mut world: World| {
        let mut expected = Vec::new();
        for (cron, time_zone) in [
            ("30 2 * * *", "Europe/Berlin"),
            ("0,30 1-3 * * SUN", "America/New_York"),
            ("15 * * * SUN", "Australia/Lord_Howe"),
        ] {
            let created = world.schedule(cron, time_zone, json!({ "status": "busy" })).await;
            let recurrence = super::super::recurrence::Recurrence::new(cron, time_zone).unwrap();
            let end = time(start) + 731 * DAY;
            let mut at = time(start);
            while let Some(next) = recurrence.next_after(at).filter(|next| *next < end) {
                expected.push((next, id_of(&created)));
                at = next;
            }
        }
        expected.sort();
        let chance = SeededChance::new(1);
        let mut left = 731 * DAY;
        while !left.is_zero() {
            let bits = esl_core::Chance::bits(&chance);
            let step = Duration::from_secs(bits % (14 * 24 * 3600)).min(left);
            left -= step;
            match bits >> 62 {
                // It is killed, and begun again later.
                0 => {
                    world.kill();
                    world.leap(step).await;
                    world.begin().await;
                }
                // The machine stood still.
                1 => world.leap(step).await,
                _ => world.pass_from_due_to_due(step).await,
            }
        }
        while world.storage.next_entity_due().await.unwrap() <= Some(world.clock.utc()) {
            world.leap(Duration::from_secs(1)).await;
        }
        let said = world.said(0).await.into_iter();
        let mut fired: Vec<_> = said
            .filter(|(event_type, ..)| event_type == "availability.schedule.triggered")
            .map(|(_, data, _)| {
                let id = data["schedule_id"].as_str().unwrap().to_owned();
                (time(data["due_at"].as_str().unwrap()), id)
            })
            .collect();
        fired.sort();
        assert!(fired.len() > 3000, "{}", fired.len());
        assert_eq!(fired, expected);
    });
}
