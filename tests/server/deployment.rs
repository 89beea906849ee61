//! The files that a container is made of, against the server that is put into it.

use std::collections::BTreeMap;

use serde_json::Value;
use url::Url;

use crate::support::Folder;

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const COMPOSE: &str = include_str!("../../docker-compose.yml");
const MANIFEST: &str = include_str!("../../Cargo.toml");

#[tokio::test]
async fn the_server_takes_every_variable_of_the_compose_file() {
    let services = services();
    let mut variables = services["esl"].clone();
    variables.insert("ESL_LISTEN", words("ENV ESL_LISTEN=")[0].to_owned());
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    assert!(variables.len() > 3, "{variables:?}");

    let folder = Folder::new();
    // Its names lead nowhere here, so that it would not start; but what is in force is said.
    let checked = folder.run(&["check", "--json"], &variables).await;
    let said: Value = serde_json::from_str(&checked.stdout)
        .unwrap_or_else(|_| panic!("the configuration is wrong: {}", checked.stderr));
    assert_eq!(said["configuration"]["warnings"], Value::Array(Vec::new()), "{said}");
    let in_force = said["configuration"]["in_force"].to_string();
    for (name, _) in variables {
        assert!(in_force.contains(name), "{name} is not in force: {in_force}");
    }
}

#[test]
fn the_server_finds_the_others_and_may_in() {
    let services = services();
    for (variable, host, user, password) in [
        ("ESL_DATABASE_URL", "postgres", "POSTGRES_USER", "POSTGRES_PASSWORD"),
        ("ESL_BROKER_URL", "rabbitmq", "RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"),
    ] {
        let url = Url::parse(&services["esl"][variable]).expect("a URL");
        assert_eq!(url.host_str(), Some(host));
        assert_eq!(url.username(), services[host][user]);
        assert_eq!(url.password(), Some(&*services[host][password]));
    }
    let database = Url::parse(&services["esl"]["ESL_DATABASE_URL"]).expect("a URL");
    assert_eq!(database.path().trim_start_matches('/'), services["postgres"]["POSTGRES_DB"]);
}

#[test]
fn the_image_is_built_with_the_rust_that_is_asked_for_and_opens_the_port_that_is_listened_on() {
    let rust = MANIFEST.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let rust = rust.expect("the manifest names it").trim_matches('"');
    assert!(DOCKERFILE.contains(&format!("FROM rust:{rust}-")), "rust {rust}");
    let (_, port) = words("ENV ESL_LISTEN=")[0].split_once(':').expect("an address and a port");
    assert_eq!(words("EXPOSE "), [port]);
    assert!(DOCKERFILE.contains(&format!("http://127.0.0.1:{port}/health")));
    let (published, _) = COMPOSE.split_once("environment:").expect("the server has some");
    assert!(published.contains(&format!(":{port}\"")), "{published}");
    // The container's folder is the volume's, and the server's own.
    let folder = words("WORKDIR /var")[0];
    assert!(COMPOSE.contains(&format!("esl:/var{folder}")), "{folder}");
    assert_eq!(words("VOLUME /var"), [folder]);
}

/// What the environment of each service says, without one that is set outside.
fn services() -> BTreeMap<&'static str, BTreeMap<&'static str, String>> {
    let mut services = BTreeMap::new();
    let mut service = "";
    let mut is_environment = false;
    let (_, rest) = COMPOSE.split_once("\nservices:\n").expect("it has some");
    let (block, _) = rest.split_once("\nvolumes:\n").expect("they end with the volumes");
    for line in block.lines() {
        let indent = line.len() - line.trim_start().len();
        let Some((name, value)) = line.trim().split_once(':') else { continue };
        match indent {
            2 => {
                service = name;
                services.insert(service, BTreeMap::new());
            }
            4 => is_environment = name == "environment",
            6 if is_environment && !name.starts_with('#') => {
                let variables = services.get_mut(service).expect("it has begun");
                variables.insert(name, without_outside(value.trim()));
            }
            _ => {}
        }
    }
    services
}

/// Puts in place of `${NAME:-default}` its default.
fn without_outside(value: &str) -> String {
    let mut value = value.to_owned();
    while let Some(start) = value.find("${") {
        let end = start + value[start..].find('}').expect("it ends");
        let (_, default) = value[start..end].split_once(":-").expect("it has a default");
        value = format!("{}{default}{}", &value[..start], &value[end + 1..]);
    }
    value
}

/// What stands in the Dockerfile behind this beginning of a line.
fn words(beginning: &str) -> Vec<&'static str> {
    let line = DOCKERFILE.lines().find_map(|line| line.strip_prefix(beginning));
    line.unwrap_or_else(|| panic!("there is no {beginning}")).split_whitespace().collect()
}
