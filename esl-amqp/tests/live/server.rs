//! A RabbitMQ of its own, which ends with the process of the tests, however that ends.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use crate::ports::free_port;

/// The URL of a virtual host in which nobody was before.
pub(crate) fn fresh() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < VHOSTS, "there are {VHOSTS} virtual hosts: make more");
    format!("{}/esl-test-{number}", base())
}

/// The same for ESL, by a user who may do no more than docs/broker.md says; but for a server that is not
/// ours, of which nobody knows the users.
pub(crate) fn for_esl(url: &str) -> String {
    url.replacen("//guest:guest@", "//esl:guest@", 1)
}

/// User, password and address of the server.
fn base() -> &'static str {
    static BASE: OnceLock<(String, Option<Server>)> = OnceLock::new();
    let (base, _) = BASE.get_or_init(|| match std::env::var("ESL_TEST_BROKER_URL") {
        Ok(url) => (url.trim_end_matches('/').to_owned(), None),
        Err(_) => {
            let server = Server::start();
            (format!("amqp://guest:guest@127.0.0.1:{}", server.port), Some(server))
        }
    });
    base
}

struct Server {
    port: u16,
    /// Ends the server when its input is closed.
    _keeper: Child,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let binary = binary();
        let [port, dist_port, epmd_port] = [(); 3].map(|()| free_port());
        let file = |name: &str| folder.join(name);
        fs::write(file("rabbitmq.conf"), configuration(&file("definitions.json"))).unwrap();
        fs::write(file("definitions.json"), definitions()).unwrap();
        fs::write(file("enabled_plugins"), "[].").unwrap();
        let keeper = Command::new("setsid")
            .args(["sh", "-c", KEEPER])
            .current_dir(&folder)
            .env("BINARY", &binary)
            .env("HOME", &folder)
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("esl-test-{port}@localhost"))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", dist_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", file("data"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_PID_FILE", file("pid"))
            .stdin(Stdio::piped())
            .stdout(fs::File::create(file("output")).unwrap())
            .stderr(fs::File::create(file("errors")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { port, _keeper: keeper };
        server.wait(&folder);
        server
    }

    /// Waits until it answers: it speaks only once its virtual hosts are there.
    fn wait(&self, folder: &Path) {
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if began.elapsed() > PATIENCE {
                let said = ["output", "errors"].map(|name| fs::read_to_string(folder.join(name)));
                panic!("RabbitMQ does not start: {said:?}");
            }
            // Another process: nothing but trying says that it is there.
            sleep(Duration::from_millis(100));
        }
    }
}

fn binary() -> PathBuf {
    let known = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/sbin/rabbitmq-server"];
    let known = known.map(PathBuf::from).into_iter().find(|path| path.exists());
    known.expect("RabbitMQ is installed (Debian's rabbitmq-server), or ESL_TEST_BROKER_URL is set")
}

fn configuration(definitions: &Path) -> String {
    format!(
        "load_definitions = {}\nlog.console = true\nlog.console.level = warning\n\
         log.file = false\nvm_memory_high_watermark.relative = 0.8\n\
         disk_free_limit.absolute = 50MB\n",
        definitions.display()
    )
}

/// The virtual hosts, a user who may do everything in them, and one for ESL.
fn definitions() -> String {
    let names = || (0..VHOSTS).map(|number| format!("esl-test-{number}"));
    let vhosts: Vec<_> = names().map(|name| serde_json::json!({ "name": name })).collect();
    let permission = |vhost: String, user, [configure, write, read]: [&str; 3]| {
        serde_json::json!({
            "user": user, "vhost": vhost, "configure": configure, "write": write, "read": read,
        })
    };
    let all = names().map(|vhost| permission(vhost, "guest", [".*"; 3]));
    let for_esl = names().map(|vhost| permission(vhost, "esl", FOR_ESL));
    let permissions: Vec<_> = all.chain(for_esl).collect();
    let users = ["guest", "esl"].map(|name| {
        serde_json::json!({
            "name": name,
            "password_hash": GUEST,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": "",
        })
    });
    serde_json::json!({ "users": users, "vhosts": vhosts, "permissions": permissions }).to_string()
}

const VHOSTS: usize = 16;

/// What ESL needs to configure, write and read: as docs/broker.md says.
const FOR_ESL: [&str; 3] = [r"^esl\..*", r"^(esl\..*|amq\.default)$", r"^esl\..*"];

/// `guest`, with a salt of zeros.
const GUEST: &str = "AAAAAPEoQ8a3jY6DABRiJzkoKooQbXiBp2iGLke7d+FVKzJx";

/// Starts the server, waits until nobody holds the other end of the input, and ends all of it.
const KEEPER: &str = r#"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 &
"$BINARY" &
cat > /dev/null
rm -rf "$HOME"
kill -KILL 0
"#;

const PATIENCE: Duration = Duration::from_secs(300);
