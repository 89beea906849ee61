use super::*;

const START: &str = "2024-01-15T14:32:00.000Z";

/// What is published of a status.
fn changed(
    previous: Option<&str>,
    current: &str,
    reason: Option<&str>,
    until: Option<&str>,
) -> Value {
    json!({
        "user_id": "user_1",
        "previous_status": previous,
        "current_status": current,
        "profile_id": null,
        "effective_until": until,
        "reason": reason,
    })
}

#[test]
fn a_status_that_changes_is_published_as_documented() {
    at(START, async |world: World| {
        world.put("user_1", json!({ "status": "available" })).await.unwrap();
        let until = "2024-01-15T18:00:00.000Z";
        let busy = json!({ "status": "busy", "reason": "In meeting", "effective_until": until });
        let shown = world.put("user_1", busy.clone()).await.unwrap();
        world.put("user_1", busy).await.unwrap();

        let said = world.said(0).await;
        let data: Vec<_> = said.iter().map(|(_, data, _)| data.clone()).collect();
        assert_eq!(
            data,
            [
                changed(None, "available", None, None),
                changed(Some("available"), "busy", Some("In meeting"), Some(until)),
            ]
        );
        let names: Vec<_> = data[0].as_object().unwrap().keys().collect();
        let order = ["user_id", "previous_status", "current_status", "profile_id"];
        assert_eq!(names[..4], order);
        assert!(said.iter().all(|(event_type, ..)| event_type == "availability.changed"));
        let names: Vec<_> = shown.keys().map(String::as_str).collect();
        let [id, added] = [&["id"][..], &["created_at", "updated_at"]];
        let members = ["status", "reason", "effective_until", "profile_id"];
        assert_eq!(names, [id, &members, added].concat());
    });
}

#[test]
fn a_status_that_is_over_goes_back_to_what_was_before_the_first() {
    at(START, async |world: World| {
        world.put("user_1", json!({ "status": "away", "reason": "Walking" })).await.unwrap();
        for (status, until) in
            [("busy", "2024-01-15T15:32:00Z"), ("offline", "2024-01-15T16:32:00Z")]
        {
            let status = json!({ "status": status, "effective_until": until });
            world.put("user_1", status).await.unwrap();
        }
        world.pass(2 * HOUR - Duration::from_millis(1)).await;
        assert_eq!(world.said(3).await, []);
        world.pass(Duration::from_millis(1)).await;
        let back = changed(Some("offline"), "away", Some("Walking"), None);
        let expected = ("availability.changed".to_owned(), back, json!("schedule"));
        assert_eq!(world.said(3).await, [expected]);
        world.pass(10 * HOUR).await;
        assert_eq!(world.said(4).await, []);
    });
}

#[test]
fn one_of_whom_nothing_was_known_goes_offline() {
    at(START, async |world: World| {
        let until = "2024-01-15T15:00:00.000Z";
        let status = json!({ "status": "busy", "effective_until": until });
        world.put("user_1", status).await.unwrap();
        // While nothing runs.
        let mut world = world;
        world.kill();
        world.leap(HOUR).await;
        world.begin().await;
        world.pass(MINUTE).await;
        let said = world.said(1).await;
        assert_eq!(said[0].1, changed(Some("busy"), "offline", None, None));
        assert_eq!(said.len(), 1);
    });
}

#[test]
fn a_new_status_for_good_is_what_later_ones_go_back_to() {
    at(START, async |world: World| {
        let until = "2024-01-15T15:00:00.000Z";
        let busy = json!({ "status": "busy", "effective_until": until });
        world.put("user_1", json!({ "status": "available" })).await.unwrap();
        world.put("user_1", busy.clone()).await.unwrap();
        world.put("user_1", json!({ "status": "away" })).await.unwrap();
        world.put("user_1", busy).await.unwrap();
        world.pass(HOUR).await;
        assert_eq!(world.said(4).await[0].1, changed(Some("busy"), "away", None, None));
    });
}

#[test]
fn a_profile_says_what_is_left_out() {
    at(START, async |world: World| {
        let lunch = json!({
            "name": "Lunch", "status": "away", "reason": "Eating", "duration_seconds": 3600
        });
        let lunch = id_of(&world.create("availability.profile", lunch).await.unwrap());
        let taken = world.put("user_1", json!({ "profile_id": lunch })).await.unwrap();
        assert_eq!(taken["status"], "away");
        assert_eq!(taken["reason"], "Eating");
        assert_eq!(taken["effective_until"], "2024-01-15T15:32:00.000Z");
        let own = json!({ "profile_id": lunch, "status": "busy", "reason": null });
        let own = world.put("user_1", own).await.unwrap();
        assert_eq!((&own["status"], &own["reason"]), (&json!("busy"), &Value::Null));
        let nobody = world.put("user_1", json!({ "profile_id": "profile_x" })).await;
        assert_eq!(wrong(nobody), ["/profile_id"]);
        // The profile may go; what was taken from it stays, and ends.
        world.delete("availability.profile", &lunch).await.unwrap();
        let reason = json!({ "reason": "Still eating" });
        let kept = world.patch("availability.status", "user_1", reason).await.unwrap();
        assert_eq!(kept["profile_id"], json!(lunch));
        world.pass(2 * HOUR).await;
        assert_eq!(world.read("availability.status", "user_1").await["status"], "offline");
    });
}

#[test]
fn what_a_status_goes_back_to_may_have_lost_its_profile() {
    at(START, async |world: World| {
        let office = json!({ "name": "Office", "status": "available" });
        let office = id_of(&world.create("availability.profile", office).await.unwrap());
        world.put("user_1", json!({ "profile_id": office })).await.unwrap();
        let busy = json!({ "status": "busy", "effective_until": "2024-01-15T15:00:00Z" });
        world.put("user_1", busy).await.unwrap();
        world.delete("availability.profile", &office).await.unwrap();
        world.pass(HOUR).await;
        let back = world.read("availability.status", "user_1").await;
        assert_eq!((&back["status"], &back["profile_id"]), (&json!("available"), &Value::Null));
    });
}

#[test]
fn who_is_forgotten_is_offline() {
    at(START, async |world: World| {
        let busy = json!({ "status": "busy", "effective_until": "2024-01-15T15:00:00Z" });
        world.put("user_1", busy).await.unwrap();
        world.delete("availability.status", "user_1").await.unwrap();
        assert_eq!(world.said(1).await[0].1, changed(Some("busy"), "offline", None, None));
        world.put("user_1", json!({ "status": "offline" })).await.unwrap();
        world.delete("availability.status", "user_1").await.unwrap();
        assert_eq!(world.said(2).await.len(), 1, "one who is offline stays so");
        world.pass(10 * HOUR).await;
        assert_eq!(world.said(3).await, []);
    });
}

#[test]
fn statuses_that_are_none_are_refused() {
    at(START, async |world: World| {
        for (status, expected) in [
            (json!({}), vec!["/status"]),
            (json!({ "status": "asleep" }), vec!["/status"]),
            (json!({ "status": null }), vec!["/status"]),
            (json!({ "status": "busy", "reason": "x".repeat(501) }), vec!["/reason"]),
            (json!({ "status": "busy", "effective_until": "tomorrow" }), vec!["/effective_until"]),
            (json!({ "status": "busy", "effective_until": START }), vec!["/effective_until"]),
            (json!({ "status": "busy", "base": {} }), vec!["/base"]),
            (json!({ "status": "busy", "profile_id": 7 }), vec!["/profile_id"]),
        ] {
            assert_eq!(wrong(world.put("user_1", status.clone()).await), expected, "{status}");
        }
        assert_eq!(world.said(0).await, []);
    });
}
