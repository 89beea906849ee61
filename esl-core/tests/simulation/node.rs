//! An engine as a process of its own: it can be left without its turn, shut down, and killed.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
};

use esl_core::{Esl, InProcessWake, Monotonic, Role};
use tokio::runtime::{Builder, Runtime};

use crate::{dice::Dice, network::Network, storage::FaultyStorage, world::World};

/// All its tasks are on a runtime of its own, which runs when it is given a turn, and drops them
/// wherever they are when it is killed.
pub(crate) struct Node {
    pub(crate) number: usize,
    runtime: Runtime,
    idle: Arc<Mutex<Idle>>,
    esl: Arc<Mutex<Started>>,
    /// It gets no turn before.
    pub(crate) stalled_until: Option<Monotonic>,
    /// Whether it may have something to do.
    pub(crate) is_behind: bool,
    ended: Option<Arc<Mutex<bool>>>,
}

#[derive(Default)]
struct Idle {
    is_idle: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
enum Started {
    #[default]
    NotYet,
    Running(Esl),
    Failed,
}

impl Node {
    /// Starts an engine. Each has a number of its own, over the whole of a simulation.
    pub(crate) fn start(
        world: &Arc<World>,
        number: usize,
        dice: Dice,
        (role, wake): (Role, InProcessWake),
    ) -> Self {
        let idle = Arc::<Mutex<Idle>>::default();
        let signal = Arc::clone(&idle);
        let runtime = Builder::new_current_thread()
            // One task at a time, so that it can be left after any of them.
            .event_interval(1)
            .on_thread_park(move || {
                let mut idle = signal.lock().unwrap();
                idle.is_idle = true;
                if let Some(waker) = idle.waker.take() {
                    waker.wake();
                }
            })
            .build()
            .unwrap();
        let builder = Esl::builder(FaultyStorage::new(world, number))
            .clock(Arc::new(world.clock.clone()))
            .chance(Arc::new(dice))
            .wake(wake)
            .role(role)
            .retry(world.retry.clone())
            .retention(None)
            .lanes_in_slice(world.slice)
            .transport(Network { world: Arc::clone(world), node: number });
        let esl = Arc::<Mutex<Started>>::default();
        let started = Arc::clone(&esl);
        runtime.spawn(async move {
            let built = builder.build().await;
            *started.lock().unwrap() = match built {
                Ok(esl) => Started::Running(esl),
                Err(_) => Started::Failed,
            };
        });
        world.note(format_args!("node {number} starts: {role:?}"));
        Self { number, runtime, idle, esl, stalled_until: None, is_behind: true, ended: None }
    }

    /// The engine, if it has come up and is not shutting down.
    pub(crate) fn esl(&self) -> Option<Esl> {
        match &*self.esl.lock().unwrap() {
            Started::Running(esl) if self.ended.is_none() => Some(esl.clone()),
            Started::Running(_) | Started::NotYet | Started::Failed => None,
        }
    }

    /// Whether it could not start, or has shut down.
    pub(crate) fn is_over(&self) -> bool {
        let is_ended = self.ended.as_ref().is_some_and(|ended| *ended.lock().unwrap());
        is_ended || matches!(&*self.esl.lock().unwrap(), Started::Failed)
    }

    pub(crate) const fn is_ending(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn shut_down(&mut self, esl: Esl) {
        let ended = Arc::<Mutex<bool>>::default();
        self.ended = Some(Arc::clone(&ended));
        self.spawn(async move {
            esl.shutdown().await;
            *ended.lock().unwrap() = true;
        });
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.is_behind = true;
        self.runtime.spawn(task);
    }

    /// Runs so many tasks for one step each, if there are so many.
    pub(crate) fn run(&mut self, steps: u64) {
        self.is_behind = true;
        let mut left = steps;
        self.runtime.block_on(poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }));
    }

    /// Runs until there is nothing to do.
    pub(crate) fn run_until_idle(&mut self) {
        self.is_behind = false;
        self.idle.lock().unwrap().is_idle = false;
        let idle = Arc::clone(&self.idle);
        self.runtime.block_on(poll_fn(move |context| {
            let mut idle = idle.lock().unwrap();
            if idle.is_idle {
                return Poll::Ready(());
            }
            idle.waker = Some(context.waker().clone());
            Poll::Pending
        }));
    }
}
