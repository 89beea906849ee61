//! What the environment and the command line may say.

use crate::support::{Folder, WITH_CLIENT};

#[tokio::test]
async fn all_wrong_values_are_reported_at_once_with_what_was_expected() {
    let folder = Folder::new();
    let wrong = [
        ("ESL_LISTEN", "localhost"),
        ("ESL_RETRY_ATTEMPTS", "-1"),
        ("ESL_DATABASE_URL", "mysql://user:hunter2@localhost/esl"),
        ("ESL_BOOTSTRAP_CLIENT", "shop:hunter2"),
        ("ESL_BROKER_URL", "http://guest:hunter2@localhost"),
        ("ESL_SIGNATURE_ALGORITHM", "md5"),
        ("ESL_EGRESS_PROXY", "esl:hunter2@proxy.internal:3128"),
        ("ESL_ALLOWED_CALLBACKS", "10.0.0.0/8,10.20.0.1/16"),
        ("ESL_CA_FILE", "no-such-file.pem"),
    ];
    for command in ["serve", "check"] {
        let ended = folder.run(&[command], &wrong).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for expected in [
            "ESL_LISTEN is `localhost`: expected an IP address and a port",
            "ESL_RETRY_ATTEMPTS is `-1`: expected a whole number from 0 to 100",
            "ESL_DATABASE_URL is `mysql://(hidden)@localhost/esl`: expected sqlite://",
            "ESL_BOOTSTRAP_CLIENT is `(hidden)`: expected a secret of 32 to 256 characters",
            "ESL_BROKER_URL is `http://(hidden)@localhost`: expected amqp:// or amqps://",
            "ESL_SIGNATURE_ALGORITHM is `md5`: expected sha256, sha384 or sha512",
            "ESL_EGRESS_PROXY is `(hidden)@proxy.internal:3128`: expected http:// or socks5://",
            "ESL_ALLOWED_CALLBACKS is `10.0.0.0/8,10.20.0.1/16`: `10.20.0.1/16` is not a network: \
             with this length its address is 10.20.0.0",
            "ESL_CA_FILE is `no-such-file.pem`: expected a file of certificates in PEM: ",
        ] {
            assert!(ended.stderr.contains(expected), "{expected}\n{}", ended.stderr);
        }
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    assert!(!folder.database().exists());
}

#[tokio::test]
async fn an_unknown_variable_is_warned_of_with_the_nearest_name() {
    let folder = Folder::new();
    let server = folder.start(&[("ESL_RETRY_ATEMPTS", "9")]).await;
    let warning = server.logs("there is no variable ESL_RETRY_ATEMPTS").await;
    assert_eq!(warning["level"], "WARN");
    let message = warning["message"].as_str().expect("a message");
    assert!(message.ends_with("did you mean ESL_RETRY_ATTEMPTS?"), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn help_lists_the_variables_and_version_the_version() {
    let folder = Folder::new();
    let help = folder.run(&["--help"], &[]).await;
    assert_eq!(help.code, Some(0));
    for expected in ["Usage: esl-server", "ESL_DATABASE_URL [default: sqlite://esl.db]", "check"] {
        assert!(help.stdout.contains(expected), "{}", help.stdout);
    }
    let version = folder.run(&["--version"], &[]).await;
    assert_eq!(version.stdout, "esl-server 1.0.0\n");
    assert_eq!(folder.run(&["serv"], &[]).await.code, Some(2));
}

#[tokio::test]
async fn check_says_what_is_good_and_what_is_not_and_makes_nothing() {
    let folder = Folder::new();
    let ended = folder.run(&["check"], &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("is not there yet"), "{ended:?}");
    assert!(!folder.database().exists());

    // Beside a running server, on its address.
    let server = folder.start(&WITH_CLIENT).await;
    let address = server.base.strip_prefix("http://").expect("a URL");
    let ended = folder.run(&["check"], &[("ESL_LISTEN", address)]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("organizations: 1"), "{ended:?}");
    assert!(ended.stdout.contains("is in use"), "{ended:?}");
    server.stop().await;

    let nowhere = [("ESL_DATABASE_URL", "sqlite://no/such/folder/esl.db")];
    let ended = folder.run(&["check", "--json"], &nowhere).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let findings: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(findings["database"]["ok"], false, "{findings}");
    assert_eq!(findings["listen"]["ok"], true, "{findings}");
    assert_eq!(findings["configuration"]["ok"], true, "{findings}");
}

#[tokio::test]
async fn an_address_in_use_stops_the_start() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let address = server.base.strip_prefix("http://").expect("a URL");
    let other = Folder::new();
    let ended = other.run(&["serve"], &[("ESL_LISTEN", address)]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("could not listen on {address} (ESL_LISTEN)")));
    assert!(!other.database().exists(), "nothing is made before it listens");
    server.stop().await;
}
