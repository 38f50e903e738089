//! What an instance was asked and answered, kept so that it can be shown again.
//!
//! A guest is a function of its component, its configuration, what it is asked, and what came to it
//! from outside: the time, random numbers, answers over HTTP, how long a training took. A
//! [`Recording`] holds these, and a digest of each call into the host. [`replay`](fn@replay) lives
//! the instance again: it authorises nothing, writes no log, reaches no network and reads no
//! secret, computes on this machine what was computed then, and says whether every answer is the
//! same, or else which call into the host first differed.

pub(crate) mod answers;
mod call;
mod recorder;
mod replay;
mod store;
mod trace;

pub use call::{Call, Outcome, RecordedCall, Recording};
pub use replay::{Replay, ReplayError, ReplayedCall, replay};
pub use store::{RecordingError, Recordings};
pub use trace::{Divergence, HostCall};

pub(crate) use call::{rows_of_bytes, rows_to_bytes};
pub(crate) use recorder::Recorder;
pub(crate) use replay::Playback;
pub(crate) use trace::Trace;
