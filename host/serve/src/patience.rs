//! A connection whose client must take what it asked for.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection that fails when its client has let the server wait for too long: from the first byte
/// that found no room until all that was to be sent has left. A client that takes a byte now and then
/// does not get longer by that.
pub(crate) struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Since when nothing more fits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
        }
    }

    /// What a write came to; an error where it has been waited for long enough.
    fn held<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client did not take its answers within {patience:?}"),
            ))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.held(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.held(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        // All that was to be sent has left.
        if let Poll::Ready(Ok(())) = &polled {
            self.waiting = None;
        }
        self.held(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.held(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn who_takes_a_byte_now_and_then_does_not_get_longer() {
        let (here, mut there) = duplex(16);
        let mut impatient = Impatient::new(here, Duration::from_millis(300));
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            while matches!(there.read(&mut byte).await, Ok(1)) {
                sleep(Duration::from_millis(100)).await;
            }
        });
        let begun = std::time::Instant::now();
        let error = impatient.write_all(&[0; 128]).await.expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // All of it would take eleven seconds.
        assert!(begun.elapsed() < Duration::from_secs(5));
        reader.abort();
    }

    #[tokio::test]
    async fn who_takes_each_answer_in_time_goes_on() {
        let (here, mut there) = duplex(16);
        let mut impatient = Impatient::new(here, Duration::from_secs(1));
        let reader = tokio::spawn(async move {
            let mut answer = [0; 64];
            for _ in 0..4 {
                sleep(Duration::from_millis(400)).await;
                there.read_exact(&mut answer).await.expect("an answer");
            }
        });
        for _ in 0..4 {
            impatient.write_all(&[0; 64]).await.expect("taken");
            impatient.flush().await.expect("taken");
        }
        reader.await.expect("no panic");
    }
}
