//! What keeps a plugin that runs for long, or fails again and again, from taking the threads that the
//! others wait for.
//!
//! A guest gives way with every tick, and so far that is all: two that compute for seconds are on two
//! threads for seconds. With a [`Fairness`], a call that is beyond its first tick goes on on threads of
//! its own kind, which the kernel lets wait for all others, as do all calls of a plugin whose last instance
//! failed, and one whose instances fail one after the other waits before the next one.

use std::future::Future;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;

/// How much the threads for long calls give way: the kernel's `nice`, of at most 19. At 10 they have a
/// tenth of a processor that another thread wants all the time, and all of one that nobody wants.
const GIVES_WAY: i32 = 10;

/// So many times its own time may a call take, at most, that waits for a thread again and again.
const SHARED_BY: u32 = 10;

/// Instances that may fail on end before the next one waits.
const FREE_FAILURES: u32 = 3;

/// The wait after one failure more; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// After so long without a failure, all is forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(30);

/// How calls share the threads of a host that answers many at a time.
#[derive(Clone, Debug)]
pub struct Fairness {
    /// Threads for calls that are beyond their first tick.
    pub long_calls: NonZeroUsize,
    /// The longest that the next instance of a plugin waits whose instances fail one after the other.
    pub back_off: Duration,
}

impl Fairness {
    /// Threads for long calls for all processors but one: where each has one that computes, a short call waits
    /// for a turn of one of these, however low.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            long_calls: NonZeroUsize::new(processors - 1).unwrap_or(NonZeroUsize::MIN),
            back_off: Duration::from_secs(1),
        }
    }
}

/// The threads for calls that are beyond their first tick.
#[derive(Debug)]
pub(crate) struct LongCalls {
    /// There until this is dropped.
    runtime: Option<Runtime>,
}

impl LongCalls {
    pub(crate) fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.get())
            .thread_name("long-calls")
            .enable_all()
            // With every tick of one of them, the others get their turn.
            .event_interval(1)
            .global_queue_interval(1)
            .on_thread_start(give_way)
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Lets a call go on there, until it is no longer waited for.
    pub(crate) fn go_on<T: Send + 'static>(
        &self,
        call: impl Future<Output = wasmtime::Result<T>> + Send + 'static,
    ) -> wasmtime::Result<GoingOn<T>> {
        match &self.runtime {
            Some(runtime) => Ok(GoingOn(runtime.spawn(call))),
            None => Err(wasmtime::Error::msg("the host ends")),
        }
    }

    /// Drops there what takes long to drop, and waits until it is gone.
    pub(crate) fn drop_there(&self, value: impl Send + 'static) {
        let Some(runtime) = &self.runtime else {
            return drop(value);
        };
        let (gone, wait) = mpsc::sync_channel::<()>(0);
        runtime.spawn(async move {
            drop(value);
            drop(gone);
        });
        // Nothing is ever sent.
        let _ = wait.recv();
    }

    /// Calls that go on there now.
    #[cfg(test)]
    pub(crate) fn number(&self) -> usize {
        let runtime = self.runtime.as_ref();
        runtime.map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }
}

impl Drop for LongCalls {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A call on those threads. It is given up with this.
pub(crate) struct GoingOn<T>(JoinHandle<wasmtime::Result<T>>);

impl<T> GoingOn<T> {
    /// Gives it up, and waits so long until it is gone: it may be inside the host.
    pub(crate) async fn give_up(mut self, patience: Duration) {
        self.0.abort();
        // If it ended at the last moment, that is too late.
        let _ = tokio::time::timeout(patience, &mut self.0).await;
    }
}

impl<T> Future for GoingOn<T> {
    type Output = wasmtime::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|ended| match ended {
                Ok(outcome) => outcome,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    Err(error) => Err(wasmtime::Error::msg(error.to_string())),
                },
            })
    }
}

impl<T> Drop for GoingOn<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does what takes long without keeping the thread from other tasks, where there are others.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Has this thread let all others go first, where the kernel can be told to.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // No number is this thread's. To wait for others is always allowed.
        if getpriority_process(None).is_ok_and(|now| now < GIVES_WAY) {
            let _ = setpriority_process(None, GIVES_WAY);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = GIVES_WAY;
}

/// What the calls of one instance have of the threads; nothing is counted where they share none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share(Option<Arc<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    beyond: AtomicBool,
    waits: Mutex<Waits>,
}

/// The waits of a call for a thread.
#[derive(Debug, Default)]
struct Waits {
    /// Those that have ended.
    ended: Duration,
    /// What of them was not told yet.
    untold: Duration,
    /// When the one began that is under way.
    since: Option<Instant>,
}

impl Taken {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        // A panic elsewhere leaves a whole value.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    pub(crate) fn new(fairly: bool) -> Self {
        Self(fairly.then(Arc::default))
    }

    /// A call begins.
    pub(crate) fn begin(&self) {
        if let Some(taken) = &self.0 {
            taken.beyond.store(false, Ordering::Relaxed);
            let mut waits = taken.waits();
            (waits.ended, waits.since) = (Duration::ZERO, None);
        }
    }

    /// Whether the call that is under way is beyond its first tick.
    pub(crate) fn is_beyond(&self) -> bool {
        let taken = self.0.as_ref();
        taken.is_some_and(|taken| taken.beyond.load(Ordering::Relaxed))
    }

    /// How long it waited for a thread since this was last asked.
    pub(crate) fn waited(&self) -> Duration {
        let taken = self.0.as_ref();
        taken.map_or(Duration::ZERO, |taken| mem::take(&mut taken.waits().untold))
    }

    /// Gives way at a tick. None where nobody counts.
    pub(crate) fn give_way(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let taken = Arc::clone(self.0.as_ref()?);
        taken.beyond.store(true, Ordering::Relaxed);
        Some(async move {
            let began = Instant::now();
            taken.waits().since = Some(began);
            tokio::task::yield_now().await;
            let mut waits = taken.waits();
            let took = began.elapsed();
            waits.since = None;
            waits.ended += took;
            waits.untold += took;
        })
    }

    /// Waits for a call for as long as it may take that has a thread to itself, and longer by what it
    /// waits for one: who waits in the host, or has the host wait, is not given more.
    pub(crate) async fn wait_for<F: Future + Unpin>(
        &self,
        alone: Duration,
        mut call: F,
    ) -> Result<F::Output, Elapsed> {
        let began = tokio::time::Instant::now();
        loop {
            let longer = self.longer().min(alone.saturating_mul(SHARED_BY - 1));
            match timeout_at(began + alone + longer, &mut call).await {
                Err(_)
                    if self.longer() > longer && longer < alone.saturating_mul(SHARED_BY - 1) => {}
                outcome => return outcome,
            }
        }
    }

    /// How long the call that is under way has waited for a thread.
    fn longer(&self) -> Duration {
        let Some(taken) = &self.0 else {
            return Duration::ZERO;
        };
        let waits = taken.waits();
        waits.ended + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// How the instances of a plugin fare.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    on_end: u32,
    last: Option<Instant>,
    /// The next instance starts no earlier.
    next: Option<Instant>,
}

impl Health {
    /// An instance has ended, well or by its own fault.
    pub(crate) fn ended(&self, well: bool) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if well {
            *failures = Failures::default();
            return;
        }
        let now = Instant::now();
        if failures
            .last
            .is_some_and(|last| now.duration_since(last) > FORGIVEN_AFTER)
        {
            *failures = Failures::default();
        }
        failures.on_end = failures.on_end.saturating_add(1);
        failures.last = Some(now);
    }

    /// Whether the last one that ended of late failed.
    pub(crate) fn has_failed(&self) -> bool {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.on_end > 0
            && failures
                .last
                .is_some_and(|last| last.elapsed() <= FORGIVEN_AFTER)
    }

    /// When the next instance may start: now, later, or, where others wait already for longer than
    /// `most`, not at all.
    pub(crate) fn next_start(&self, most: Duration) -> Result<Option<Instant>, String> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (Some(over), Some(last)) = (failures.on_end.checked_sub(FREE_FAILURES), failures.last)
        else {
            return Ok(None);
        };
        if now.duration_since(last) > FORGIVEN_AFTER {
            *failures = Failures::default();
            return Ok(None);
        }
        let wait = FIRST_WAIT.saturating_mul(1 << over.min(16)).min(most);
        let start = failures.next.unwrap_or(last).max(last) + wait;
        // One at a time: who comes next is behind this one.
        if start > now + most {
            return Err(format!(
                "its last {} instances failed one after the other, and others wait to try again; it gets \
                 one instance every {wait:?} until one ends well",
                failures.on_end
            ));
        }
        failures.next = Some(start);
        Ok((start > now).then_some(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(1);

    #[test]
    fn a_plugin_that_fails_on_end_waits_longer_each_time_and_others_are_told() {
        let health = Health::default();
        assert_eq!(health.next_start(MOST), Ok(None));
        assert!(!health.has_failed());
        for _ in 0..FREE_FAILURES {
            assert_eq!(health.next_start(MOST), Ok(None), "some are free");
            health.ended(false);
            assert!(health.has_failed());
        }
        for _ in 0..10 {
            health.ended(false);
        }
        let start = health.next_start(MOST).expect("the first may");
        let wait = start.expect("it waits").duration_since(Instant::now());
        assert!(wait <= MOST, "{wait:?}");
        let refused = health
            .next_start(MOST)
            .expect_err("the second would wait for longer");
        assert!(refused.contains("13 instances failed"), "{refused}");
        health.ended(true);
        assert!(!health.has_failed());
        assert_eq!(
            health.next_start(MOST),
            Ok(None),
            "one that ends well is enough"
        );
    }

    #[tokio::test]
    async fn what_waits_for_a_thread_knows_how_long() {
        assert!(Share::default().give_way().is_none());
        let share = Share::new(true);
        share.begin();
        assert!(!share.is_beyond());
        let mut waiting = Box::pin(share.give_way().expect("it is counted"));
        assert!(share.is_beyond());
        assert!(futures::poll!(&mut waiting).is_pending());
        thread::sleep(Duration::from_millis(20));
        waiting.await;
        assert!(share.waited() >= Duration::from_millis(20));
        assert_eq!(share.waited(), Duration::ZERO, "it is told once");
        share.begin();
        assert!(!share.is_beyond());
    }

    #[tokio::test]
    async fn a_call_is_waited_for_longer_by_what_it_waits_for_a_thread_alone() {
        let alone = Duration::from_millis(50);
        let share = Share::new(true);
        share.begin();
        let began = Instant::now();
        let parked = share.wait_for(alone, Box::pin(std::future::pending::<()>()));
        assert!(parked.await.is_err(), "it waits in the host");
        assert!(
            began.elapsed() < alone * SHARED_BY / 2,
            "{:?}",
            began.elapsed()
        );

        // Others have the thread for longer than it may take.
        let way = share.give_way().expect("it is counted");
        let others = tokio::spawn(async move { thread::sleep(alone * 2) });
        let call = Box::pin(async move {
            way.await;
            tokio::time::sleep(alone / 2).await;
        });
        assert!(share.wait_for(alone, call).await.is_ok());
        others.await.expect("they end");

        // What waited before is not this call's.
        share.begin();
        assert_eq!(share.longer(), Duration::ZERO);
    }

    #[test]
    fn what_is_dropped_there_is_gone_and_was_dropped_there() {
        struct Told(mpsc::Sender<Option<String>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let name = thread::current().name().map(str::to_owned);
                let _ = self.0.send(name);
            }
        }
        let (tell, told) = mpsc::channel();
        let mut long = LongCalls::start(NonZeroUsize::MIN).expect("threads");
        long.drop_there(Told(tell.clone()));
        let there = told.try_recv().expect("it is gone");
        assert_eq!(there.as_deref(), Some("long-calls"));
        // Where they are no more, it is gone all the same.
        long.runtime
            .take()
            .expect("they are there")
            .shutdown_background();
        long.drop_there(Told(tell));
        let here = told.try_recv().expect("it is gone");
        assert_ne!(here.as_deref(), Some("long-calls"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn threads_for_long_calls_let_others_go_first() {
        let long = LongCalls::start(NonZeroUsize::MIN).expect("threads");
        let nice = || {
            rustix::process::getpriority_process(None)
                .map_err(|error| wasmtime::Error::msg(error.to_string()))
        };
        let before = nice().expect("a priority");
        let there = long.go_on(async move { nice() }).expect("it goes on");
        assert_eq!(there.await.expect("a priority"), GIVES_WAY.max(before));
        assert_eq!(
            nice().expect("a priority"),
            before,
            "this thread is as it was"
        );
    }
}
