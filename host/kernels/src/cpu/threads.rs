//! A few threads that help the calling one. Which thread does which task says nothing about
//! the result: tasks are numbered, and what is summed is summed in the order of the numbers.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

/// Rounds that an idle thread waits awake, some ten microseconds: about what a step of a small
/// training leaves between two calls.
const AWAKE_ROUNDS: u32 = 1000;

/// Threads that wait for work. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held by the caller that has the helpers; others work alone.
    busy: Mutex<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    /// How many jobs there were; read without the lock by those that wait awake.
    jobs: AtomicU64,
    /// Helpers at work on the current job.
    active: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    job: Option<JobAddress>,
    ending: bool,
}

/// The address of a job on its caller's stack.
#[derive(Clone, Copy, Debug)]
struct JobAddress(*const Job<'static>);

// SAFETY: a job is shared by reference only, and all that it holds may be. Its caller does not
// return before every helper that took the address has left it.
unsafe impl Send for JobAddress {}

struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    panicked: AtomicBool,
}

impl Job<'_> {
    /// Does tasks until none is left.
    fn work(&self) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= self.tasks {
                return;
            }
            (self.work)(task);
        }
    }
}

impl Threads {
    /// `threads` in all, the calling one among them.
    pub(crate) fn start(threads: NonZeroUsize) -> std::io::Result<Threads> {
        let mut started = Threads {
            shared: Arc::default(),
            helpers: Vec::new(),
            busy: Mutex::new(()),
        };
        for index in 1..threads.get() {
            let shared = Arc::clone(&started.shared);
            let builder = std::thread::Builder::new().name(format!("compute-{index}"));
            started.helpers.push(builder.spawn(move || shared.help())?);
        }
        Ok(started)
    }

    /// How many work at a time.
    pub(crate) fn count(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Does `work(0..tasks)`, each once, and returns when all are done. While the helpers are
    /// with another caller, the calling thread does everything.
    pub(crate) fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        if tasks < 2 || self.helpers.is_empty() {
            (0..tasks).for_each(work);
            return;
        }
        let _helpers = match self.busy.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                (0..tasks).for_each(work);
                return;
            }
        };
        let job = Job {
            work,
            tasks,
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        };
        // Dropped before the job, also when a task panics.
        let published = Published::new(&self.shared, &job);
        job.work();
        drop(published);
        if job.panicked.load(Ordering::Relaxed) {
            resume_unwind(Box::new("a compute thread panicked"));
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.wake.notify_all();
        self.shared.jobs.fetch_add(1, Ordering::Release);
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of tasks.
            let _ = helper.join();
        }
    }
}

/// A job that helpers can see.
struct Published<'a> {
    shared: &'a Shared,
}

impl<'a> Published<'a> {
    fn new(shared: &'a Shared, job: &'a Job<'a>) -> Self {
        let address: *const Job<'a> = job;
        shared.lock().job = Some(JobAddress(address.cast()));
        shared.jobs.fetch_add(1, Ordering::Release);
        shared.wake.notify_all();
        Published { shared }
    }
}

impl Drop for Published<'_> {
    /// Takes the job back and waits until no helper is at it.
    fn drop(&mut self) {
        self.shared.lock().job = None;
        for _ in 0..AWAKE_ROUNDS {
            if self.shared.active.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut state = self.shared.lock();
        while self.shared.active.load(Ordering::Acquire) != 0 {
            state = self
                .shared
                .done
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a helper.
    fn help(&self) {
        let mut seen = 0;
        loop {
            for _ in 0..AWAKE_ROUNDS {
                if self.jobs.load(Ordering::Acquire) != seen {
                    break;
                }
                std::hint::spin_loop();
            }
            let mut state = self.lock();
            while state.job.is_none() || self.jobs.load(Ordering::Acquire) == seen {
                if state.ending {
                    return;
                }
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            seen = self.jobs.load(Ordering::Acquire);
            let Some(JobAddress(address)) = state.job else {
                continue;
            };
            // Under the lock: the caller takes the job back under it, then waits for this.
            self.active.fetch_add(1, Ordering::AcqRel);
            drop(state);
            // SAFETY: the caller waits until `active` is 0 before the job goes away.
            let job = unsafe { &*address };
            if catch_unwind(AssertUnwindSafe(|| job.work())).is_err() {
                job.panicked.store(true, Ordering::Relaxed);
            }
            let state = self.lock();
            self.active.fetch_sub(1, Ordering::AcqRel);
            drop(state);
            self.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(count: usize) -> Threads {
        let count = NonZeroUsize::new(count).expect("at least one");
        Threads::start(count).expect("threads start")
    }

    #[test]
    fn every_task_is_done_once_whatever_the_threads() {
        for count in [1, 2, 5] {
            let threads = threads(count);
            for tasks in [0, 1, 2, 7, 100] {
                for _ in 0..200 {
                    let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    threads.run(tasks, &|task| {
                        done[task].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn several_callers_share_the_helpers() {
        let threads = threads(3);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        threads.run(5, &|task| {
                            total.fetch_add(task, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 300 * 10);
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller_and_the_threads_live_on() {
        let threads = threads(2);
        for _ in 0..20 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                threads.run(50, &|task| assert!(task != 31, "task 31"));
            }));
            assert!(caught.is_err());
        }
        let count = AtomicUsize::new(0);
        threads.run(10, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 10);
    }
}
