use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::watch,
};

use super::in_time;

/// What a process prints, line by line.
#[derive(Debug)]
pub(crate) struct Lines(watch::Receiver<Printed>);

#[derive(Debug, Default)]
struct Printed {
    lines: Vec<String>,
    is_over: bool,
}

impl Lines {
    /// Collects until the process has closed its end. Dropped, it takes nothing more, and to write is a
    /// failure for the process.
    pub(crate) fn of(output: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(Printed::default());
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            loop {
                // What was read of a line is not wanted any more when nobody listens.
                let line = tokio::select! {
                    line = lines.next_line() => line,
                    () = sender.closed() => return,
                };
                let Ok(Some(line)) = line else { break };
                sender.send_modify(|printed| printed.lines.push(line));
            }
            sender.send_modify(|printed| printed.is_over = true);
        });
        Self(receiver)
    }

    /// The first line that `find` makes something of.
    pub(crate) async fn find<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let mut receiver = self.0.clone();
        let search = async {
            let mut seen = 0;
            loop {
                {
                    let printed = receiver.borrow_and_update();
                    if let Some(found) = printed.lines[seen..].iter().find_map(|line| find(line)) {
                        return found;
                    }
                    seen = printed.lines.len();
                    assert!(
                        !printed.is_over,
                        "{what}: the process ended without it\n{}",
                        printed.lines.join("\n")
                    );
                }
                receiver.changed().await.expect("the process's end is told first");
            }
        };
        in_time(what, search).await
    }

    /// Everything, once the process has closed its end.
    pub(crate) async fn all(mut self) -> String {
        let printed = in_time("the end of the output", self.0.wait_for(|printed| printed.is_over));
        printed.await.expect("the end is told before").lines.join("\n")
    }

    /// Everything so far.
    pub(crate) fn so_far(&self) -> String {
        self.0.borrow().lines.join("\n")
    }
}

/// A case that fails says what the process has said of late.
impl Drop for Lines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let printed = self.0.borrow();
            let last = printed.lines.len().saturating_sub(LAST);
            for line in &printed.lines[last..] {
                println!("| {line}");
            }
        }
    }
}

const LAST: usize = 40;
