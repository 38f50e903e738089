//! Calls into guests of the engine: each begins on the thread that makes it, and one that is beyond its
//! first tick goes on on the threads for long calls, where there are such threads; those of a plugin whose
//! last instance failed begin there.
//!
//! A Store that is on another thread comes back when its call is over. Where nobody waits for it any
//! more, whoever is the last to hold it ends the instance.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};
use wasmtime::Store;

use super::{Begun, Instance};
use crate::call::CallError;
use crate::fairness::LongCalls;
use crate::state::State;

/// How long a call that is given up may take to notice: a tick, or what the host does for it just then.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Where a Store comes back to.
#[derive(Default)]
pub(super) struct Home(Mutex<Whereabouts>);

#[derive(Default)]
enum Whereabouts {
    /// With its call.
    #[default]
    Away,
    Here(Store<State>),
    /// Nobody waits for it; this is to be done with it.
    Unwanted(Box<dyn FnOnce(Store<State>) + Send>),
}

impl Home {
    fn put(&self, to: Whereabouts) -> Whereabouts {
        mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            to,
        )
    }

    /// The Store, if it has come back; else what is to be done with it once it does.
    fn take_or(
        &self,
        unwanted: impl FnOnce() -> Box<dyn FnOnce(Store<State>) + Send>,
    ) -> Option<Store<State>> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mem::take(&mut *place) {
            Whereabouts::Here(store) => Some(store),
            Whereabouts::Away | Whereabouts::Unwanted(_) => {
                *place = Whereabouts::Unwanted(unwanted());
                None
            }
        }
    }
}

/// A Store with its call. It goes home with this, however the call ends.
struct Lent {
    store: Option<Store<State>>,
    home: Arc<Home>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(store) = self.store.take() else {
            return;
        };
        let mut place = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mem::take(&mut *place) {
            Whereabouts::Unwanted(end) => {
                drop(place);
                end(store);
            }
            _ => *place = Whereabouts::Here(store),
        }
    }
}

impl Instance {
    /// One whose long calls go on there.
    pub(crate) fn sharing(mut self, long: Option<Arc<LongCalls>>) -> Self {
        self.long = long;
        self
    }

    /// A call into the guest.
    pub(crate) async fn call<T: Send + 'static>(
        &mut self,
        call: impl for<'a> FnOnce(&'a mut Store<State>) -> BoxFuture<'a, wasmtime::Result<T>>
        + Send
        + 'static,
    ) -> Result<T, CallError> {
        let long = self.long.clone();
        let Begun { store, patience } = self.begin()?;
        let Some(long) = long else {
            let outcome = timeout(patience, call(store)).await;
            return self.end(outcome);
        };
        let share = store.data().share.clone();
        // Who failed last is not let try again where others wait.
        let is_suspect = self.place.is_of_one_that_failed();
        let home = Arc::new(Home::default());
        let mut lent = Lent {
            store: self.lend(&home),
            home,
        };
        let mut going = Box::pin(async move {
            match &mut lent.store {
                Some(store) => call(store).await,
                None => Err(wasmtime::Error::msg("its Store is elsewhere")),
            }
        });
        let began = Instant::now();
        let here = poll_fn(|context| {
            if is_suspect {
                return Poll::Ready(None);
            }
            match going.as_mut().poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if share.is_beyond() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let outcome = match timeout(patience, here).await {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => match long.go_on(going) {
                Ok(mut there) => {
                    let left = patience.saturating_sub(began.elapsed());
                    let outcome = share.wait_for(left, &mut there).await;
                    if outcome.is_err() {
                        there.give_up(LETTING_GO).await;
                    }
                    outcome
                }
                Err(error) => Ok(Err(error)),
            },
            Err(late) => {
                drop(going);
                Err(late)
            }
        };
        self.reclaim();
        self.end(outcome)
    }

    /// Lets a call have the Store.
    fn lend(&mut self, home: &Arc<Home>) -> Option<Store<State>> {
        let store = self.held().take();
        if store.is_some() {
            self.home = Some(Arc::clone(home));
        }
        store
    }

    /// Takes the Store back, if it is there.
    fn reclaim(&mut self) {
        if let Some(home) = &self.home
            && let Whereabouts::Here(store) = home.put(Whereabouts::Away)
        {
            *self.held() = Some(store);
            self.home = None;
        }
    }

    /// Takes the Store back, or leaves word that it is to be ended where it is.
    pub(super) fn reclaim_or_end(&mut self, outcome: &str) {
        let Some(home) = self.home.take() else {
            return;
        };
        let store = home.take_or(|| {
            let mut heir = Self::bare(
                Arc::clone(&self.actor),
                self.ends.clone(),
                Arc::clone(&self.place),
                self.recorder.take(),
            );
            heir.guest = self.guest.take();
            heir.traced = self.traced.take();
            let outcome = outcome.to_owned();
            Box::new(move |store| {
                *heir.held() = Some(store);
                heir.close(&outcome);
            })
        });
        if let Some(store) = store {
            *self.held() = Some(store);
        }
    }

    fn held(&mut self) -> &mut Option<Store<State>> {
        self.store.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
