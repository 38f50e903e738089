//! The bounds of a request under way: what goes out and what comes back, in bytes and in time. One that
//! is reached ends the request, and is a denial on record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use super::secrecy::{Repeated, Seeker};
use super::target::Target;
use super::{HttpGrant, MAX_TARGET_BYTES};
use crate::effect::{Actor, Effect};
use crate::grants::Capability;
use crate::state::Identity;
use crate::text;

/// Under which grant a request is sent, and by whom.
#[derive(Clone)]
pub(super) struct Terms {
    actor: Arc<Actor>,
    /// The grant, by its place.
    index: usize,
    /// Where it goes, as records say it.
    target: String,
}

impl Terms {
    pub(super) fn of(actor: &Arc<Actor>, index: usize, target: &Target) -> Self {
        Self {
            actor: Arc::clone(actor),
            index,
            target: target.to_string(),
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.actor.identity
    }

    pub(super) fn grant(&self) -> &HttpGrant {
        &self.actor.identity.grants.http[self.index]
    }

    /// Puts on record that a key of the grant is in the way.
    pub(super) fn deny(&self, key: &str, what: &str) {
        let (name, index) = (&self.actor.identity.name, self.index);
        let line = format!("plugins.{name}.grants.http[{index}].{key}");
        let detail = text::sentence(&format!("{}: {what}", self.target), MAX_TARGET_BYTES);
        self.actor
            .deny_with(Capability::Http.as_str(), detail, line);
    }

    /// Puts on record that a server repeated the credential.
    pub(super) fn repeated(&self) -> Error {
        let what = "its answer repeats the credential, so it is held back; grant one only for servers \
                    that keep it to themselves";
        self.deny("credential", what);
        Error::HttpRequestDenied
    }

    pub(super) fn too_late(&self) {
        let timeout = self.grant().timeout;
        self.deny("timeout", &format!("it took longer than {timeout}"));
    }
}

/// The body of a request, counted and bounded.
pub(super) struct Counted {
    body: WasiBody,
    left: u64,
    terms: Terms,
    /// Whether it was longer than it may be.
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn new(body: WasiBody, terms: Terms, sent: Arc<AtomicU64>) -> Self {
        Self {
            body,
            left: terms.grant().request_bytes.bytes(),
            terms,
            is_over: Arc::default(),
            sent,
        }
    }

    /// What says whether it was longer than it may be.
    pub(super) fn is_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let bytes = data.len() as u64;
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => {
                    let most = self.terms.grant().request_bytes;
                    let what = format!("the body of the request is over {most}");
                    self.terms.deny("request_bytes", &what);
                    self.is_over.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(Error::HttpRequestBodySize(None))));
                }
            }
            self.sent.fetch_add(bytes, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, bounded in size and time. When it is dropped, what it came to is recorded.
pub(super) struct Bounded {
    incoming: Incoming,
    left: u64,
    terms: Terms,
    deadline: Pin<Box<Sleep>>,
    pause: Duration,
    /// When the next bytes must be there, while somebody waits for them.
    next: Option<Pin<Box<Sleep>>>,
    effect: Effect,
    /// Looks for the credential.
    seeker: Option<Seeker>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Bounded {
    /// An answer that must be whole by then, and whose next bytes may take so long.
    pub(super) fn new(
        incoming: Incoming,
        deadline: Instant,
        pause: Duration,
        terms: Terms,
        effect: Effect,
        seeker: Option<Seeker>,
        place: Arc<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            incoming,
            left: terms.grant().response_bytes.bytes(),
            terms,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            pause,
            next: None,
            effect,
            seeker,
            _place: place,
        }
    }

    /// A piece of the answer as the guest may have it; None where there is none of it yet.
    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, Error> {
        let frame = match frame.into_data() {
            Err(trailers) => {
                let seeker = self.seeker.as_ref();
                let fields = trailers.trailers_ref();
                if seeker.zip(fields).is_some_and(|(it, of)| it.is_in(of)) {
                    return Err(self.terms.repeated());
                }
                return Ok(Some(trailers));
            }
            Ok(data) => data,
        };
        let bytes = frame.len() as u64;
        let Some(left) = self.left.checked_sub(bytes) else {
            let most = self.terms.grant().response_bytes;
            let what = format!("the body of the answer is over {most}");
            self.terms.deny("response_bytes", &what);
            return Err(Error::HttpResponseBodySize(None));
        };
        self.left = left;
        self.effect.bytes_in += bytes;
        let Some(seeker) = &mut self.seeker else {
            return Ok(Some(Frame::data(frame)));
        };
        let passed = seeker
            .pass(frame)
            .map_err(|Repeated| self.terms.repeated())?;
        Ok((!passed.is_empty()).then(|| Frame::data(passed)))
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.effect.outcome = text::sentence(&error.to_string(), MAX_TARGET_BYTES);
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.deadline.as_mut().poll(context).is_ready() {
            this.terms.too_late();
            return this.fail(Error::HttpResponseTimeout);
        }
        loop {
            match Pin::new(&mut this.incoming).poll_frame(context) {
                Poll::Pending => {
                    let pause = this.pause;
                    let next = this
                        .next
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                    return match next.as_mut().poll(context) {
                        // As long as the guest wanted to wait: the deadline is before the longest pause.
                        Poll::Ready(()) => this.fail(Error::ConnectionReadTimeout),
                        Poll::Pending => Poll::Pending,
                    };
                }
                Poll::Ready(None) => {
                    let rest = this.seeker.as_mut().map(Seeker::end).unwrap_or_default();
                    let rest = (!rest.is_empty()).then(|| Ok(Frame::data(rest)));
                    return Poll::Ready(rest);
                }
                Poll::Ready(Some(Err(error))) => return this.fail(error.into()),
                Poll::Ready(Some(Ok(frame))) => {
                    this.next = None;
                    match this.pass(frame) {
                        Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                        Ok(None) => {}
                        Err(error) => return this.fail(error),
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // Where something is sought, some of the end may be held back.
        self.seeker.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.seeker {
            None => self.incoming.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
