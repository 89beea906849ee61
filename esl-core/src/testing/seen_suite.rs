//! The suite that every [`Seen`] passes: one async function per promise, and one list of them, in
//! [`seen_suite!`](crate::testing::seen_suite).

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use async_trait::async_trait;

use crate::{Begun, EventId, EventKey, OrganizationId, Seen};

/// What the suite needs to know of whatever remembers events.
#[async_trait]
pub trait SeenHarness: Send + Sync + 'static {
    /// Makes room for a memory that is empty.
    fn new() -> Self
    where
        Self: Sized;

    /// Opens it, as a process would. Called once.
    async fn open(&self) -> Arc<dyn Seen>;

    /// Ends a process as SIGKILL does, and opens what it has left; `None` if nothing outlives a process.
    ///
    /// `killed` is the only reference. It must not get to finish anything: forget what a clean stop would do,
    /// or open a copy of the files.
    async fn reopen_after_kill(&mut self, killed: Arc<dyn Seen>) -> Option<Arc<dyn Seen>>;
}

/// Writes one `#[test]` for each promise of [`Seen`](crate::Seen).
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use esl_core::{MemorySeen, Seen, testing::{SeenHarness, seen_suite}};
///
/// struct InMemory;
///
/// #[async_trait]
/// impl SeenHarness for InMemory {
///     fn new() -> Self {
///         Self
///     }
///
///     async fn open(&self) -> Arc<dyn Seen> {
///         Arc::new(MemorySeen::new())
///     }
///
///     async fn reopen_after_kill(&mut self, _: Arc<dyn Seen>) -> Option<Arc<dyn Seen>> {
///         None
///     }
/// }
///
/// seen_suite!(InMemory); // what_is_done_is_not_begun_again, of_many_at_once_one_begins, …
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! seen_suite {
    // The one list.
    (@list $what:ident $arguments:tt) => {
        $crate::seen_suite! { @$what $arguments
            what_is_new_is_begun_now,
            what_is_under_way_is_not_begun_beside_it,
            what_is_done_is_not_begun_again,
            what_has_failed_is_begun_again,
            done_twice_is_done,
            what_was_never_begun_may_fail,
            events_do_not_disturb_each_other,
            the_same_id_of_another_organization_is_another_event,
            of_many_at_once_one_begins,
            of_many_that_fail_at_once_the_next_begins,
            many_are_done_at_once,
            what_is_done_survives_a_kill,
            what_was_under_way_is_begun_again_after_a_kill,
            what_has_failed_is_begun_again_after_a_kill,
        }
    };
    (@tests [$harness:ty] $($case:ident),+ $(,)?) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::seen_suite::run::<$harness>($crate::testing::seen_suite::cases::$case);
            }
        )+
    };
    (@cases [] $($case:ident),+ $(,)?) => {
        /// Every case under its name. A function that the list forgets is never used: a warning.
        pub mod cases {
            use super::{Case, World};
            $(
                #[doc(hidden)]
                #[must_use]
                pub fn $case(world: World) -> Case {
                    Box::pin(super::$case(world))
                }
            )+
        }
    };
    ($harness:ty) => {
        $crate::seen_suite! { @list tests [$harness] }
    };
}

seen_suite! { @list cases [] }

/// What a case lives in: a memory that began empty.
pub struct World {
    harness: Box<dyn SeenHarness>,
    seen: Arc<dyn Seen>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// A case that is under way.
#[doc(hidden)]
pub type Case = Pin<Box<dyn Future<Output = ()>>>;

/// Runs a case; called by what [`seen_suite!`](crate::testing::seen_suite) writes.
///
/// # Panics
/// When the promise is broken.
#[doc(hidden)]
pub fn run<H: SeenHarness>(case: fn(World) -> Case) {
    block_on(async {
        let harness = Box::new(H::new());
        let seen = harness.open().await;
        // No case waits for time to pass. This ends one that waits for what never comes.
        let case = case(World { harness, seen });
        tokio::time::timeout(PATIENCE, case).await.expect("the case does not hang");
    });
}

async fn what_is_new_is_begun_now(world: World) {
    assert_eq!(world.begin(1).await, Begun::Now);
}

async fn what_is_under_way_is_not_begun_beside_it(world: World) {
    world.begin(1).await;
    assert_eq!(world.begin(1).await, Begun::UnderWay);
    assert_eq!(world.begin(1).await, Begun::UnderWay);
}

async fn what_is_done_is_not_begun_again(world: World) {
    world.begin(1).await;
    world.done(1).await;
    assert_eq!(world.begin(1).await, Begun::Before);
    assert_eq!(world.begin(1).await, Begun::Before);
}

async fn what_has_failed_is_begun_again(world: World) {
    for _ in 0..3 {
        assert_eq!(world.begin(1).await, Begun::Now);
        world.failed(1).await;
    }
    assert_eq!(world.begin(1).await, Begun::Now);
    world.done(1).await;
    assert_eq!(world.begin(1).await, Begun::Before);
}

async fn done_twice_is_done(world: World) {
    world.begin(1).await;
    world.done(1).await;
    world.done(1).await;
    // Too late.
    world.failed(1).await;
    assert_eq!(world.begin(1).await, Begun::Before);
}

async fn what_was_never_begun_may_fail(world: World) {
    world.failed(1).await;
    assert_eq!(world.begin(1).await, Begun::Now);
}

async fn events_do_not_disturb_each_other(world: World) {
    for number in 1..=4 {
        assert_eq!(world.begin(number).await, Begun::Now);
    }
    world.done(1).await;
    world.failed(2).await;
    let expected = [Begun::Before, Begun::Now, Begun::UnderWay, Begun::UnderWay];
    for (number, expected) in (1..).zip(expected) {
        assert_eq!(world.begin(number).await, expected, "{number}");
    }
}

async fn the_same_id_of_another_organization_is_another_event(world: World) {
    let of = |organization: u128| EventKey {
        organization: OrganizationId::from_bytes(organization.to_be_bytes()),
        ..event(1)
    };
    for organization in 1..=4 {
        assert_eq!(world.seen.begin(of(organization)).await.expect(WORKS), Begun::Now);
    }
    world.seen.done(of(1)).await.expect(WORKS);
    world.seen.failed(of(2)).await.expect(WORKS);
    let expected = [Begun::Before, Begun::Now, Begun::UnderWay, Begun::UnderWay];
    for (organization, expected) in (1..).zip(expected) {
        let begun = world.seen.begin(of(organization)).await.expect(WORKS);
        assert_eq!(begun, expected, "{organization}");
    }
    // So does what outlives the process.
    world.seen.done(of(3)).await.expect(WORKS);
    let Some(world) = world.killed().await else { return };
    let expected = [Begun::Before, Begun::Now, Begun::Before, Begun::Now];
    for (organization, expected) in (1..).zip(expected) {
        let begun = world.seen.begin(of(organization)).await.expect(WORKS);
        assert_eq!(begun, expected, "{organization}");
    }
}

async fn of_many_at_once_one_begins(world: World) {
    for number in 1..=ROUNDS {
        let begun = world.at_once(move |seen| async move { seen.begin(event(number)).await });
        let now = begun.iter().filter(|begun| **begun == Begun::Now).count();
        let under_way = begun.iter().filter(|begun| **begun == Begun::UnderWay).count();
        assert_eq!((now, under_way), (1, THREADS - 1), "{begun:?}");
    }
}

async fn of_many_that_fail_at_once_the_next_begins(world: World) {
    for number in 1..=ROUNDS {
        let begun = world.at_once(move |seen| async move {
            let begun = seen.begin(event(number)).await?;
            if begun == Begun::Now {
                seen.failed(event(number)).await?;
            }
            Ok(begun)
        });
        assert!(begun.contains(&Begun::Now) && !begun.contains(&Begun::Before), "{begun:?}");
        assert_eq!(world.begin(number).await, Begun::Now);
    }
}

async fn many_are_done_at_once(world: World) {
    let begun = world.at_once(move |seen| async move {
        let mut now = 0;
        for number in 1..=ROUNDS {
            if seen.begin(event(number)).await? == Begun::Now {
                seen.done(event(number)).await?;
                now += 1;
            }
        }
        Ok(now)
    });
    assert_eq!(begun.iter().sum::<u128>(), ROUNDS, "each of them once");
    for number in 1..=ROUNDS {
        assert_eq!(world.begin(number).await, Begun::Before);
    }
}

async fn what_is_done_survives_a_kill(world: World) {
    for number in 1..=10 {
        world.begin(number).await;
        world.done(number).await;
    }
    let Some(world) = world.killed().await else { return };
    for number in 1..=10 {
        assert_eq!(world.begin(number).await, Begun::Before, "{number}");
    }
}

async fn what_was_under_way_is_begun_again_after_a_kill(world: World) {
    world.begin(1).await;
    let Some(world) = world.killed().await else { return };
    assert_eq!(world.begin(1).await, Begun::Now);
    assert_eq!(world.begin(1).await, Begun::UnderWay);
    world.done(1).await;
    assert_eq!(world.begin(1).await, Begun::Before);
}

async fn what_has_failed_is_begun_again_after_a_kill(world: World) {
    world.begin(1).await;
    world.failed(1).await;
    let Some(world) = world.killed().await else { return };
    assert_eq!(world.begin(1).await, Begun::Now);
}

impl World {
    async fn begin(&self, number: u128) -> Begun {
        self.seen.begin(event(number)).await.expect(WORKS)
    }

    async fn done(&self, number: u128) {
        self.seen.done(event(number)).await.expect(WORKS);
    }

    async fn failed(&self, number: u128) {
        self.seen.failed(event(number)).await.expect(WORKS);
    }

    async fn killed(self) -> Option<Self> {
        let Self { mut harness, seen } = self;
        let seen = harness.reopen_after_kill(seen).await?;
        Some(Self { harness, seen })
    }

    /// Does the same in many threads that start together.
    fn at_once<T, F>(&self, what: impl Fn(Arc<dyn Seen>) -> F + Sync) -> Vec<T>
    where
        T: Send,
        F: Future<Output = Result<T, crate::SeenError>>,
    {
        let (barrier, what) = (Barrier::new(THREADS), &what);
        thread::scope(|scope| {
            let start = || {
                let (barrier, seen) = (&barrier, Arc::clone(&self.seen));
                scope.spawn(move || {
                    barrier.wait();
                    block_on(what(seen)).expect(WORKS)
                })
            };
            let threads: Vec<_> = (0..THREADS).map(|_| start()).collect();
            threads.into_iter().map(|thread| thread.join().expect("no case panics there")).collect()
        })
    }
}

fn event(number: u128) -> EventKey {
    EventKey {
        organization: OrganizationId::from_bytes([1; 16]),
        event: EventId::from_bytes(number.to_be_bytes()),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(future)
}

const WORKS: &str = "what was seen can be read and written";
const THREADS: usize = 8;
const ROUNDS: u128 = 20;
const PATIENCE: Duration = Duration::from_secs(120);
