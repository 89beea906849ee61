//! `esl-server verify`: a developer asks why a request is refused.

use crate::support::{Api, Behaviour, Ended, Folder, Receiver, WITH_CLIENT};

/// The vector that Standard Webhooks publishes.
const BODY: &str = r#"{"test": 2432232314}"#;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SIGNED_AT: &str = "2021-02-25T15:02:10Z";
const HEADERS: [&str; 6] = [
    "-H",
    "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
    "-H",
    "Webhook-Timestamp: 1614265330",
    "-H",
    "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
];

async fn verify(folder: &Folder, body: &str, arguments: &[&str], secrets: &str) -> Ended {
    std::fs::write(folder.path().join("body"), body).expect("it is written");
    let arguments = [&["verify", "--body", "body"], &HEADERS[..], arguments].concat();
    folder.run(&arguments, &[("ESL_WEBHOOK_SECRET", secrets)]).await
}

#[tokio::test]
async fn it_says_by_which_secret_a_request_was_signed_and_how_old_it_is() {
    let folder = Folder::new();
    let secrets = format!("another-secret\n{SECRET}\n");
    let ended = verify(&folder, BODY, &["--at", "2021-02-25T15:02:22Z"], &secrets).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "standard: genuine, by secret 2 of 2; signed 12 s before it came\n");

    // By now it is too old, and still it is said whose it is.
    let ended = verify(&folder, BODY, &["--json"], &secrets).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let found: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(found["accepted"], false);
    let scheme = &found["schemes"][0];
    assert_eq!((&scheme["genuine"], &scheme["recent"]), (&true.into(), &false.into()));
    assert_eq!(
        (&scheme["secret"], &scheme["signed_at"]),
        (&2.into(), &"2021-02-25T15:02:10.000Z".into())
    );
    assert!(scheme["age_seconds"].as_i64().unwrap() > 100_000_000);
}

#[tokio::test]
async fn it_says_what_is_wrong_and_nothing_of_what_would_be_right() {
    let folder = Folder::new();
    let at = ["--at", SIGNED_AT];
    let changed = verify(&folder, r#"{"test": 2432232315}"#, &at, SECRET).await;
    let mismatch = "standard: not genuine: no signature in the header `webhook-signature` matches";
    assert_eq!((changed.code, changed.stdout), (Some(1), format!("{mismatch}\n")));
    let wrong = verify(&folder, BODY, &at, "another-secret").await;
    assert_eq!((wrong.code, wrong.stdout), (Some(1), format!("{mismatch}\n")));
    let longer = verify(&folder, &format!("{BODY}\n"), &at, SECRET).await;
    let hint = "; without the newline at the end of the body, one does";
    assert_eq!((longer.code, longer.stdout), (Some(1), format!("{mismatch}{hint}\n")));
    let stripped = verify(&folder, BODY, &["--scheme", "sapien", at[0], at[1]], SECRET).await;
    let missing = "sapien: not genuine: the header `x-sapien-signature` is missing\n";
    assert_eq!((stripped.code, stripped.stdout.as_str()), (Some(1), missing));
    for (secrets, said) in
        [("", "there is no secret"), ("good-enough\nwhsec_short", "secret 2 is none: ")]
    {
        let ended = verify(&folder, BODY, &at, secrets).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(said) && !ended.stderr.contains("short"), "{ended:?}");
    }
    let nothing = folder.run(&["verify", "--body", "body"], &[("ESL_WEBHOOK_SECRET", "s")]).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.stderr.contains("no header with a signature"), "{nothing:?}");
    std::fs::write(folder.path().join("headers"), "webhook-id: evt_1\nno header\n").unwrap();
    let odd = ["verify", "--body", "body", "--headers-file", "headers"];
    let odd = folder.run(&odd, &[("ESL_WEBHOOK_SECRET", "s")]).await;
    assert!(odd.stderr.contains("headers, line 2: expected a name, a colon"), "{odd:?}");
    let unset = folder.run(&["verify", "--body", "body"], &[]).await;
    assert!(unset.stderr.contains("set ESL_WEBHOOK_SECRET"), "{unset:?}");
}

#[tokio::test]
async fn a_secret_that_is_no_text_is_not_shown() {
    let folder = Folder::new();
    let program = ["sh", "-c", "ESL_WEBHOOK_SECRET=$(printf 'hunter2\\377') exec \"$0\" \"$@\""];
    let request = ["verify", "-H", "webhook-signature: v1,AAAA", "--body", "/dev/null"];
    let ended = folder.run_by(&program, &request, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("ESL_WEBHOOK_SECRET is not UTF-8"), "{ended:?}");
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
}

#[tokio::test]
async fn what_the_server_sends_is_genuine_by_both_schemes() {
    let folder = Folder::new();
    let server = folder
        .start(&[WITH_CLIENT[0], WITH_CLIENT[1], ("ESL_SIGNATURE_ALGORITHM", "sha512")])
        .await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let api = Api::new(&server.base).await;
    api.subscribe(&receiver.url("/"), &["person.*"]).await;
    api.publish("person.updated", 1.into()).await;
    let request = receiver.first().await;

    let names = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
    let head = format!("POST / HTTP/1.1\r\n{}\r\n", names.collect::<String>());
    std::fs::write(folder.path().join("headers"), head).unwrap();
    std::fs::write(folder.path().join("body"), &request.body).unwrap();
    std::fs::write(folder.path().join("secrets"), "my-secret-123\n").unwrap();
    let verify = ["verify", "--body", "body", "--headers-file", "headers"];
    let verify = [&verify[..], &["--secrets-file", "secrets", "--algorithm", "sha512"]].concat();
    let ended = folder.run(&verify, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for scheme in [
        "standard: genuine, by secret 1 of 1; signed ",
        "sapien: genuine, by secret 1 of 1; signed ",
    ] {
        assert!(ended.stdout.contains(scheme), "{ended:?}");
    }
}
