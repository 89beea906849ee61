//! Nothing that the server ever writes has a secret in it: neither its output at its most talkative,
//! nor its files, nor any answer but the one that made the secret.

mod traces;

use std::fs;

use serde_json::{Value, json};

use self::traces::{ROWS, Secrets, Trace, Where};
use crate::support::{Authority, Behaviour, Ended, Folder, Receiver, Server, postgres_url};

const CLIENT_SECRET: &str = "the-clients-secret-0123456789abcdef";
const GIVEN: &str = "given-to-sign-with-0123";
const GIVEN_WHSEC: &str = "whsec_Z2l2ZW4tdG8tc2lnbi13aXRoLWFuZC1kZWNvZGVk";
const CREDENTIAL: &str = "Bearer gateway/token+with=signs%";
const API_KEY: &str = "api-key-of-a-gateway-98765";
const IN_A_CALLBACK: &str = "token-in-a-callbacks-query";
const NAME: &str = "jane-roe-of-7-elm-street";
const PROXY_PASSWORD: &str = "proxy-password-5f2c";
const STORE_SECRET: &str = "secret-key-of-the-object-store";
const KEY: &str = "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3JlLi4=";

/// A server, what it and its answers were, and what must not be in it.
struct World {
    folder: Folder,
    variables: Vec<(String, String)>,
    secrets: Secrets,
    traces: Vec<Trace>,
    token: String,
}

impl World {
    fn new() -> Self {
        let mut secrets = Secrets::default();
        for given in [CLIENT_SECRET, GIVEN, CREDENTIAL, API_KEY, PROXY_PASSWORD, STORE_SECRET] {
            secrets.add(given.as_bytes(), Where::Nowhere);
        }
        secrets.add_signing(GIVEN_WHSEC, Where::Nowhere);
        secrets.add(IN_A_CALLBACK.as_bytes(), Where::NotInOutput);
        secrets.add(KEY.as_bytes(), Where::Nowhere);
        secrets.add(b"sixteen bytes and sixteen more..", Where::Nowhere);
        let variables = [
            ("ESL_BOOTSTRAP_CLIENT", format!("shop:{CLIENT_SECRET}")),
            ("ESL_ENCRYPTION_KEY", KEY.into()),
            ("ESL_ALLOW_PRIVATE_CALLBACKS", "true".into()),
            ("ESL_MAX_PAYLOAD_SIZE", "1024".into()),
            ("ESL_RETRY_ATTEMPTS", "0".into()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let folder = Folder::new();
        Self { folder, variables, secrets, traces: Vec::new(), token: String::new() }
    }

    fn with<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.variables.iter().map(|(name, value)| (&**name, &**value));
        own.chain(more.iter().copied()).collect()
    }

    async fn start(&self, more: &[(&str, &str)]) -> Server {
        self.folder.start(&self.with(more)).await
    }

    /// Runs a command, and keeps what it prints.
    async fn run(&mut self, arguments: &[&str], more: &[(&str, &str)]) -> Ended {
        let ended = self.folder.run(arguments, &self.with(more)).await;
        self.keep_output(&format!("{arguments:?}"), &ended);
        ended
    }

    fn keep_output(&mut self, what: &str, ended: &Ended) {
        self.traces.push(Trace::output(format!("stdout of {what}"), ended.stdout.clone()));
        self.traces.push(Trace::output(format!("stderr of {what}"), ended.stderr.clone()));
    }

    /// Asks with curl, and keeps the answer, head and body.
    async fn ask(&mut self, server: &Server, path: &str, arguments: &[&str]) -> (u16, Value) {
        let answer = self.ask_unkept(server, path, arguments).await;
        self.traces.push(Trace::answer(&format!("{arguments:?} {path}"), answer.1.clone()));
        (answer.0, body(&answer.1))
    }

    /// Asks for what makes a secret, the one answer that may have it.
    async fn ask_unkept(&self, server: &Server, path: &str, arguments: &[&str]) -> (u16, String) {
        let url = server.url(path);
        let bearer = format!("Authorization: Bearer {}", self.token);
        let is_authorized = arguments.iter().any(|one| one.starts_with("Authorization"));
        let own: &[&str] =
            if self.token.is_empty() || is_authorized { &[] } else { &["-H", &bearer] };
        let answer = crate::support::curl(&[&["-i"], own, arguments, &[&*url]].concat()).await;
        (answer.status, answer.body)
    }

    async fn post(&mut self, server: &Server, path: &str, body: &Value) -> (u16, Value) {
        self.ask(server, path, &["-H", JSON, "-d", &body.to_string()]).await
    }

    /// As [`post`](Self::post), of an answer that makes the secret at `secret`.
    async fn post_for(&mut self, server: &Server, path: &str, body: &Value) -> Value {
        let arguments = ["-H", JSON, "-d", &body.to_string()];
        let (status, answer) = self.ask_unkept(server, path, &arguments).await;
        assert!((200..300).contains(&status), "{answer}");
        let made = self::body(&answer);
        self.secrets.add_signing(made["secret"].as_str().expect("a secret"), Where::Nowhere);
        made
    }

    /// Gets tokens, which are secrets from then on; gives the refresh token.
    async fn tokens(&mut self, server: &Server, form: &str) -> String {
        self.token.clear();
        let (status, answer) = self.ask_unkept(server, "/oauth/token", &["-d", form]).await;
        assert_eq!(status, 200, "{answer}");
        let answer = body(&answer);
        let [access, refresh] =
            ["access_token", "refresh_token"].map(|name| answer[name].as_str().expect("a token"));
        self.secrets.add(access.as_bytes(), Where::Nowhere);
        self.secrets.add(refresh.as_bytes(), Where::Nowhere);
        self.token = access.to_owned();
        refresh.to_owned()
    }
}

const JSON: &str = "Content-Type: application/json";

fn body(answer: &str) -> Value {
    let (_, body) = answer.rsplit_once("\r\n\r\n").expect("a head before the body");
    serde_json::from_str(body).unwrap_or_default()
}

#[tokio::test]
async fn no_secret_is_in_anything_that_the_server_writes() {
    let mut world = World::new();
    let authority = Authority::new();
    let ca_file = world.folder.database().with_file_name("ca.pem");
    fs::write(&ca_file, authority.pem()).expect("it can be written");
    let ca_file = ca_file.to_str().expect("UTF-8").to_owned();
    let plain = Receiver::start(Behaviour::Accept).await;
    let secure = Receiver::start_tls(authority.acceptor("127.0.0.1"), Behaviour::Accept).await;

    // Everything that ESL and what it is made of can say.
    let talkative = [("ESL_LOG", "trace"), ("ESL_CA_FILE", &*ca_file)];
    let server = world.start(&talkative).await;
    let subscription = use_as_intended(&mut world, &server, [&plain, &secure]).await;
    misuse(&mut world, &server, &subscription).await;
    // What it leaves has a write-ahead log.
    server.signal("KILL").await;
    let killed = server.ended().await;
    assert!(killed.stderr.contains(r#""level":"TRACE""#), "it is talkative");
    world.keep_output("a server that was killed", &killed);
    world.keep_state().await;
    let has_state = |trace: &Trace| {
        trace.is_of("esl.db-wal", IN_A_CALLBACK) || trace.is_of(ROWS, IN_A_CALLBACK)
    };
    assert!(world.traces.iter().any(has_state));

    // Once more, with what cannot be reached.
    let proxy = Receiver::start(Behaviour::statuses([407; 100])).await;
    let proxy = format!("http://esl:{PROXY_PASSWORD}@{}", proxy.address());
    let store = Receiver::start(Behaviour::statuses([403; 100])).await;
    let endpoint = store.url("");
    let failing = [
        ("XDEBUG_MODE", "trace"),
        ("ESL_LOG_FORMAT", "json"),
        ("ESL_EGRESS_PROXY", &*proxy),
        ("ESL_BLOB_STORAGE_URL", "s3://bucket/prefix"),
        ("AWS_ACCESS_KEY_ID", "id-of-the-store"),
        ("AWS_SECRET_ACCESS_KEY", STORE_SECRET),
        ("AWS_ENDPOINT", &*endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "nowhere"),
    ];
    let server = world.start(&failing).await;
    let form =
        format!("grant_type=client_credentials&client_id=shop&client_secret={CLIENT_SECRET}");
    world.tokens(&server, &form).await;
    let event = |data| json!({ "type": "person.updated", "data": data });
    world.post(&server, "/api/v1/events", &event(json!(1))).await;
    server.logs("deliveries cannot be sent").await;
    let large = event(json!("x".repeat(2_000)));
    let (status, refused) = world.post(&server, "/api/v1/events", &large).await;
    assert!(status >= 500, "{refused}");
    commands(&mut world, &failing).await;
    let ended = server.stop().await;
    world.keep_output("a server without proxy and store", &ended);

    world.keep_state().await;
    let found = world.secrets.found_in(&world.traces);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Subscribes, publishes, rotates and reads; gives a subscription's id.
async fn use_as_intended(world: &mut World, server: &Server, to: [&Receiver; 2]) -> String {
    let form =
        format!("grant_type=client_credentials&client_id=shop&client_secret={CLIENT_SECRET}");
    let refresh = world.tokens(server, &form).await;
    let form = format!(
        "grant_type=refresh_token&client_id=shop&client_secret={CLIENT_SECRET}&refresh_token={refresh}"
    );
    let second = world.tokens(server, &form).await;
    let basic = format!("shop:{CLIENT_SECRET}");
    let introspected = format!("token={second}");
    let arguments = ["-u", &basic, "-d", &introspected];
    world.ask(server, "/oauth/introspect", &arguments).await;

    let urls = [to[0].url(&format!("/hook?token={IN_A_CALLBACK}")), {
        format!("https://{}/hook?token={IN_A_CALLBACK}", to[1].address())
    }];
    let mut ids = Vec::new();
    for (url, secret) in urls.iter().zip([GIVEN, GIVEN_WHSEC]) {
        let new = json!({
            "callback_url": url,
            "events": ["person.*"],
            "secret": secret,
            "headers": { "Authorization": CREDENTIAL, "X-Api-Key": API_KEY },
        });
        let (status, created) = world.post(server, "/api/v1/subscriptions", &new).await;
        assert_eq!(status, 201, "{created}");
        ids.push(created["id"].as_str().expect("an id").to_owned());
    }
    let generated = json!({ "callback_url": urls[0], "events": ["pet.*"] });
    let generated = world.post_for(server, "/api/v1/subscriptions", &generated).await;
    let generated = generated["id"].as_str().expect("an id");
    let path = |id: &str, rest: &str| format!("/api/v1/subscriptions/{id}{rest}");
    world.post_for(server, &path(generated, "/rotate-secret"), &json!({})).await;
    world.secrets.add(b"rotated-to-by-its-owner", Where::Nowhere);
    let to_this = json!({ "secret": "rotated-to-by-its-owner" });
    let (status, rotated) = world.post(server, &path(&ids[0], "/rotate-secret"), &to_this).await;
    assert_eq!(status, 200, "{rotated}");

    for data in [json!(1), json!("x".repeat(2_000))] {
        let event = json!({ "type": "person.updated", "data": data });
        let (status, published) = world.post(server, "/api/v1/events", &event).await;
        assert_eq!(status, 202, "{published}");
    }
    for receiver in to {
        let received = receiver.first_of(2).await;
        assert!(received.iter().all(|one| one.header("authorization") == Some(CREDENTIAL)));
        // Whoever has a link to a large payload may read it.
        let links = received.iter().map(|one| one.event()["data_ref"]["uri"].clone());
        let link = links.filter(|link| link.is_string()).last().expect("a link");
        let link =
            link.as_str().expect("it is").strip_prefix(&server.base).expect("of this server");
        let (_, signature) = link.split_once("sig=").expect("signed");
        world.secrets.add(signature.as_bytes(), Where::NotInOutput);
        let nobody = ["-H", "Authorization:"];
        assert_eq!(world.ask(server, link, &nobody).await.0, 200);
    }
    for id in &ids {
        for rest in ["", "/deliveries"] {
            assert_eq!(world.ask(server, &path(id, rest), &[]).await.0, 200);
        }
    }
    // It is no secret, and no business of who reads the log.
    world.secrets.add(NAME.as_bytes(), Where::NotInOutput);
    let (status, person) = world.post(server, "/api/persons", &json!({ "name": NAME })).await;
    assert_eq!(status, 201, "{person}");
    let (status, refused) = world.post(server, "/api/toys", &json!({ NAME: NAME })).await;
    assert_eq!(status, 422, "{refused}");
    for path in ["/api/v1/subscriptions", "/api/v1/events", "/api/persons", "/health"] {
        assert_eq!(world.ask(server, path, &[]).await.0, 200);
    }
    ids.swap_remove(0)
}

/// Sends secrets where they are wrong, or to where they do not belong.
async fn misuse(world: &mut World, server: &Server, subscription: &str) {
    let wrong = "a-wrong-secret-or-token-4711";
    world.secrets.add(wrong.as_bytes(), Where::Nowhere);
    for (id, secret) in [("shop", wrong), (wrong, "shop"), (CLIENT_SECRET, "shop")] {
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let basic = format!("{id}:{secret}");
        world.ask(server, "/oauth/token", &["-d", &form]).await;
        world
            .ask(server, "/oauth/token", &["-u", &basic, "-d", "grant_type=client_credentials"])
            .await;
    }
    let right = format!("shop:{CLIENT_SECRET}");
    for form in [
        format!("grant_type=refresh_token&refresh_token={wrong}"),
        format!("grant_type=client_credentials&scope={wrong}"),
        format!("grant_type={wrong}"),
    ] {
        world.ask(server, "/oauth/token", &["-u", &right, "-d", &form]).await;
    }
    let form = format!("token={wrong}");
    world.ask(server, "/oauth/revoke", &["-u", &right, "-d", &form]).await;
    for authorization in [format!("Bearer {wrong}"), wrong.to_owned(), format!("Basic {wrong}")] {
        let authorization = format!("Authorization: {authorization}");
        let (status, refused) = world.ask(server, "/api/v1/events", &["-H", &authorization]).await;
        assert_eq!(status, 401, "{refused}");
    }
    let nobody = ["-H", "Authorization:"];
    let in_query = format!("/api/v1/events?access_token={wrong}");
    world.ask(server, &in_query, &nobody).await;
    for path in [
        format!("/api/v1/events?limit={wrong}&cursor={wrong}"),
        format!("/api/v1/subscriptions/{wrong}"),
        format!("/api/v1/blobs/evt_01J00000000000000000000000?exp=1&sig={wrong}"),
        format!("/{wrong}"),
    ] {
        let (status, refused) = world.ask(server, &path, &[]).await;
        assert!((400..500).contains(&status), "{path}: {refused}");
    }

    let url = "https://receiver.example/";
    let new = |change: Value| {
        let mut new = json!({ "callback_url": url, "events": ["person.*"] });
        for (name, value) in change.as_object().expect("members") {
            new[name] = value.clone();
        }
        new.to_string()
    };
    let too_long = wrong.repeat(10);
    let cut_off = new(json!({ "secret": wrong }));
    let event_type = json!({ "type": wrong, "data": 1 }).to_string();
    let bodies = [
        new(json!({ "secret": [wrong] })),
        new(json!({ "secret": too_long })),
        new(json!({ "secret": format!("whsec_{wrong}!") })),
        new(json!({ "headers": { "X-Api-Key": format!("{wrong}\n") } })),
        new(json!({ "headers": { "X-Api-Key": [wrong] } })),
        new(json!({ "headers": { "Content-Type": wrong } })),
        new(json!({ "headers": wrong })),
        new(json!({ "callback_url": format!("https://user:{wrong}@receiver.example/") })),
        new(json!({ "callback_url": format!("ftp://receiver.example/?token={wrong}") })),
        new(json!({ "events": [wrong] })),
        new(json!({ "secret": wrong, "description": 7 })),
        new(
            json!({ "secret": wrong, "on_exhausted": wrong, "ordering": wrong, "metadata": wrong }),
        ),
        cut_off[..cut_off.len() - 2].to_owned(),
        format!("{cut_off}{wrong}"),
        wrong.to_owned(),
        format!("secret={wrong}"),
    ];
    let at = format!("/api/v1/subscriptions/{subscription}");
    let rotate = format!("{at}/rotate-secret");
    for body in bodies.iter().chain([&event_type]) {
        let path = if body == &event_type { "/api/v1/events" } else { "/api/v1/subscriptions" };
        for content_type in [JSON, "Content-Type: text/plain"] {
            let (status, refused) =
                world.ask(server, path, &["-H", content_type, "-d", body]).await;
            assert!((400..500).contains(&status), "{body}: {refused}");
        }
    }
    let patch = json!({ "secret": wrong }).to_string();
    let (status, refused) =
        world.ask(server, &at, &["-X", "PATCH", "-H", JSON, "-d", &patch]).await;
    assert_eq!(status, 422, "{refused}");
    let under_way = json!({ "secret": wrong });
    assert_eq!(world.post(server, &rotate, &under_way).await.0, 409);
}

/// Commands that fail, with secrets where they are wrong, and some that do not.
async fn commands(world: &mut World, variables: &[(&str, &str)]) {
    const WRONG: &str = "a-wrong-value-of-a-variable";
    world.secrets.add(WRONG.as_bytes(), Where::Nowhere);
    let with_wrong = format!("shop:{WRONG}");
    let long = WRONG.repeat(2);
    let another = format!("shop:{long}");
    let proxy = format!("ftp://esl:{WRONG}@127.0.0.1:1");
    let database = format!("postgres://esl:{WRONG}@127.0.0.1:1/esl");
    for (name, value, code) in [
        ("ESL_BOOTSTRAP_CLIENT", &with_wrong, 2),
        ("ESL_BOOTSTRAP_CLIENT", &another, 1),
        ("ESL_ENCRYPTION_KEY", &WRONG.to_owned(), 2),
        ("ESL_ENCRYPTION_KEY", &"61".repeat(32), 1),
        ("ESL_EGRESS_PROXY", &proxy, 2),
        ("ESL_DATABASE_URL", &database, 1),
        ("ESL_PUBLIC_URL", &proxy, 2),
        ("ESL_BROKER_URL", &database, 2),
    ] {
        for arguments in [&["check"][..], &["check", "--json"]] {
            let variables = [variables, &[(name, value)]].concat();
            let ended = world.run(arguments, &variables).await;
            assert_eq!(ended.code, Some(code), "{name}: {ended:?}");
        }
    }
    // Beside the server that runs, which on Postgres may have others beside it.
    let of_a_file = if postgres_url().is_some() { 1 } else { 0 };
    if postgres_url().is_none() {
        let ended = world.run(&["serve"], variables).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
    for (arguments, code) in [
        (&["client", "create", "--org", "shop", "--id", "shop"][..], 1),
        (&["client", "list", "--org", "shop"], 0),
        (&["org", "create", "shop"], 1),
        (&["check"], 0),
        (&["secrets", "reencrypt"], 0),
        (&["backup", "copy.db"], of_a_file),
        (&["backup", "copy.db"], 1),
    ] {
        let ended = world.run(arguments, variables).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
    }
}
