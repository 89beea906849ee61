//! A server for the tests of one program, and a schema for each case.

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Where the tests' databases are.
///
/// That is `ESL_TEST_POSTGRES_URL`, whose user must be allowed to create schemas; or a server of our own, which
/// the first test starts, and which ends with this process.
pub(crate) fn url() -> &'static str {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    &CLUSTER.get_or_init(Cluster::find).url
}

/// A name that no other case has, nor another run on the same server.
pub(crate) fn new_schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("esl_test_{}_{number}", std::process::id())
}

struct Cluster {
    url: String,
    /// The script, whose input ends with this process: no code of ours must run for the server to end.
    _script: Option<Child>,
}

impl Cluster {
    fn find() -> Self {
        match env::var("ESL_TEST_POSTGRES_URL") {
            Ok(url) => Self { url, _script: None },
            Err(_) => Self::start(),
        }
    }

    fn start() -> Self {
        let script = include_str!("cluster.sh");
        // It refuses to run as root. The group is its own, so that a signal to ours leaves it to end in order.
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh", "-c"]);
            command
        } else {
            let mut command = Command::new("sh");
            command.arg("-c");
            command
        };
        command.arg(script).current_dir("/").process_group(0);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the script that starts a server runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("it was asked for");
        BufReader::new(output).read_line(&mut line).expect("the script says where the server is");
        let folder = line.trim_end();
        assert!(!folder.is_empty(), "no server of PostgreSQL could be started");
        let url = format!("postgres://postgres@/postgres?host={folder}");
        Self { url, _script: Some(child) }
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("`id` runs");
    id.stdout == b"0\n"
}
