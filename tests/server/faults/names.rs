//! Names that cannot be looked up, hang, or lead elsewhere the next time: a name server of the
//! case's own, put in place for the server's process alone.

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tokio::{net::UdpSocket, task::JoinHandle};

use super::until_all_came;
use crate::support::{Api, Authority, Behaviour, Folder, Receiver, Server, WITH_CLIENT};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "puts a name server in place, which takes root"]
async fn names_that_fail_or_hang_are_named_and_cost_others_nothing() {
    let names = Names::serve([127, 0, 0, 71]).await;
    names.set("hangs.test", Answer::None);
    names.set("fails.test", Answer::Failure);
    let folder = Folder::new();
    let server = names.start(&folder, &WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let options = json!({ "timeout_ms": 1000, "retry_schedule": [] });
    let hangs = api.subscribe_with("http://hangs.test/", options.clone()).await;
    let fails = api.subscribe_with("http://fails.test/", options.clone()).await;
    let unknown = api.subscribe_with("http://unknown.test/", options).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    names.set("healthy.test", Answer::Address(Ipv4Addr::LOCALHOST));
    let healthy = format!("http://healthy.test:{}/", receiver.address().port());
    api.subscribe(&healthy, &["person.*"]).await;
    let mut ids = Vec::new();
    for number in 0..50 {
        ids.push(api.publish("person.updated", number.into()).await);
    }
    until_all_came(&receiver, ids).await;
    for (subscription, error) in [(hangs, "timeout"), (fails, "dns"), (unknown, "dns")] {
        let path = format!("/api/v1/subscriptions/{subscription}/deliveries?state=exhausted");
        let list = api.until(&path, |list| list["data"] != json!([])).await;
        assert_eq!(list["data"][0]["last_error"], error, "{list}");
        assert_eq!(list["data"][0]["attempts"], 1, "{list}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "puts a name server in place, which takes root"]
async fn a_name_that_leads_elsewhere_is_followed_by_the_next_attempt() {
    let names = Names::serve([127, 0, 0, 72]).await;
    // Nobody listens there.
    names.set("moves.test", Answer::Address(Ipv4Addr::new(127, 0, 0, 99)));
    let folder = Folder::new();
    let server = names.start(&folder, &WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let url = format!("http://moves.test:{}/", receiver.address().port());
    let options = json!({ "retry_schedule": [500, 500, 500, 500, 500, 500] });
    let subscription = api.subscribe_with(&url, options).await;
    let id = api.publish("person.updated", 1.into()).await;
    let path = format!("/api/v1/subscriptions/{subscription}/deliveries");
    let list = api.until(&path, |list| list["data"][0]["attempts"] != 0).await;
    assert_eq!(list["data"][0]["last_error"], "connect", "{list}");
    names.set("moves.test", Answer::Address(Ipv4Addr::LOCALHOST));
    until_all_came(&receiver, [id]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "puts a name server in place, which takes root"]
async fn a_public_name_that_leads_to_this_machine_is_refused_after_one_look() {
    let names = Names::serve([127, 0, 0, 73]).await;
    names.set("rebinds.your-app.com", Answer::Address(Ipv4Addr::LOCALHOST));
    let folder = Folder::new();
    let authority = Authority::new();
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, authority.pem()).expect("it can be written");
    let variables = [WITH_CLIENT[0], ("ESL_CA_FILE", ca_file.to_str().expect("UTF-8"))];
    let server = names.start(&folder, &variables).await;
    let api = Api::new(&server.base).await;
    let acceptor = authority.acceptor("rebinds.your-app.com");
    let receiver = Receiver::start_tls(acceptor, Behaviour::Accept).await;
    let url = format!("https://rebinds.your-app.com:{}/", receiver.address().port());
    let subscription = api.subscribe_with(&url, json!({ "retry_schedule": [] })).await;
    api.publish("person.updated", 1.into()).await;
    let path = format!("/api/v1/subscriptions/{subscription}/deliveries?state=exhausted");
    let list = api.until(&path, |list| list["data"] != json!([])).await;
    assert_eq!(list["data"][0]["last_error"], "refused_address", "{list}");
    assert_eq!(names.asked("rebinds.your-app.com"), 1, "connected to is what was checked");
    assert_eq!(receiver.so_far().len(), 0);
    server.stop().await;
}

/// What is said of a name's IPv4 address. Names that nobody set do not exist, and no name has an
/// IPv6 address.
#[derive(Debug, Clone, Copy)]
enum Answer {
    None,
    Failure,
    Address(Ipv4Addr),
}

/// A name server (RFC 1035) on an address of its own: resolvers ask at port 53 only.
struct Names {
    address: Ipv4Addr,
    known: Arc<Mutex<HashMap<String, (Answer, usize)>>>,
    task: JoinHandle<()>,
}

impl Names {
    async fn serve(address: [u8; 4]) -> Self {
        let address = Ipv4Addr::from(address);
        let socket = UdpSocket::bind((address, 53)).await.expect("port 53 takes root");
        let known: Arc<Mutex<HashMap<String, (Answer, usize)>>> = Arc::default();
        let knows = Arc::clone(&known);
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut query).await.expect("a query");
                let answer = answer(&query[..length], &mut knows.lock().expect("nobody panics"));
                if let Some(answer) = answer {
                    drop(socket.send_to(&answer, from).await);
                }
            }
        });
        Self { address, known, task }
    }

    fn set(&self, name: &str, answer: Answer) {
        let mut known = self.known.lock().expect("nobody panics");
        known.entry(name.to_owned()).or_insert((answer, 0)).0 = answer;
    }

    /// How often a name's IPv4 address was asked for.
    fn asked(&self, name: &str) -> usize {
        self.known.lock().expect("nobody panics").get(name).map_or(0, |(_, asked)| *asked)
    }

    /// Starts a server that asks here.
    async fn start(&self, folder: &Folder, variables: &[(&str, &str)]) -> Server {
        let file = folder.path().join("resolv.conf");
        let text = format!("nameserver {}\noptions timeout:5 attempts:1\n", self.address);
        fs::write(&file, text).expect("it can be written");
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let file = file.to_str().expect("UTF-8");
        folder.start_by(&["unshare", "--mount", "sh", "-c", script, file], variables).await
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(query: &[u8], known: &mut HashMap<String, (Answer, usize)>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut place = 12;
    while query[place] != 0 {
        let end = place + 1 + usize::from(query[place]);
        labels.push(String::from_utf8_lossy(&query[place + 1..end]).to_lowercase());
        place = end;
    }
    let question = &query[12..place + 5];
    let is_ipv4 = query[place + 2] == 1;
    let found = known.get_mut(&labels.join("."));
    let (failure, address) = match found {
        None => (NO_SUCH_NAME, None),
        Some((answer, asked)) => {
            *asked += usize::from(is_ipv4);
            match answer {
                Answer::None => return None,
                Answer::Failure => (SERVER_FAILURE, None),
                Answer::Address(address) => (0, is_ipv4.then_some(*address)),
            }
        }
    };
    let answers = u8::from(address.is_some());
    let mut bytes = query[..2].to_vec();
    bytes.extend([0x81, 0x80 | failure, 0, 1, 0, answers, 0, 0, 0, 0]);
    bytes.extend(question);
    if let Some(address) = address {
        // The name of the question, type A, class IN, not to be kept, four bytes.
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        bytes.extend(address.octets());
    }
    Some(bytes)
}

const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
