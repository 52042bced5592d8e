//! Waiting without a thread, for any executor: a future for each task, and a stream of completions.
//!
//! The runtime's own thread wakes whoever waits; without [`RuntimeOptions::launch_on_submit`](crate::RuntimeOptions::launch_on_submit) there is
//! none, and whoever drives does: [`Runtime::poll`], [`Runtime::run_slice`], a wait on another thread.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::wakers::Wakers;
use super::{Runtime, TaskHandle};
use crate::abi;
use crate::error::BackendError;
use crate::runtime::Completion;

/// The end of the task. There is no timeout: an executor's own does it, on `&mut handle`, which leaves the handle to be waited for again. Dropping
/// the handle forgets the completion.
///
/// On a GPU in live mode the runtime's thread takes a core while slices run and somebody waits like this.
///
/// # Errors
/// What the device or the driver gives; [`BackendError::AlreadyTaken`] once the completion was taken.
impl Future for TaskHandle {
    type Output = Result<Completion, BackendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = self.untaken() {
            return Poll::Ready(Err(error));
        }
        let ticket = self.ticket;
        let ended = self.inner.poll(
            context,
            |_, ends, memory| {
                while ends.listen(memory)? {}
                Ok(ends.deliveries.take(ticket))
            },
            |wakers, waker| wakers.wait_for(ticket & abi::TR_INDEX_MASK, waker),
        );
        self.taken = matches!(ended, Poll::Ready(Ok(_)));
        ended
    }
}

/// # Without a thread
impl Runtime {
    /// As [`Runtime::completions`], for executors: appends up to `limit` completions of batched tasks, or has the task of this context woken when
    /// there is one. Their number; 0 once the runtime is stopped and nothing is left to come.
    ///
    /// ```
    /// # use taskring::{BackendError, Completion, Runtime};
    /// async fn some(runtime: &Runtime, ended: &mut Vec<Completion>) -> Result<usize, BackendError> {
    ///     std::future::poll_fn(|context| runtime.poll_completions(context, ended, 64)).await
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Runtime::poll`].
    pub fn poll_completions(
        &self,
        context: &mut Context<'_>,
        into: &mut Vec<Completion>,
        limit: usize,
    ) -> Poll<Result<usize, BackendError>> {
        if limit == 0 {
            return Poll::Ready(Ok(0));
        }
        self.0.poll(
            context,
            |state, ends, memory| {
                let had = into.len();
                while ends.take_bulk(memory, limit - (into.len() - had), into)? {}
                let taken = into.len() - had;
                let over = state.stopped && state.journal.in_flight() == 0;
                Ok((taken > 0 || over).then_some(taken))
            },
            Wakers::wait_for_any,
        )
    }

    /// The completions of batched tasks as a stream, one by one, until the runtime is stopped. Several streams share them, each completion going to
    /// one.
    pub fn completion_stream(&self) -> Completions {
        Completions { runtime: self.clone(), next: Vec::with_capacity(1) }
    }
}

/// A stream of completions; see [`Runtime::completion_stream`].
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct Completions {
    runtime: Runtime,
    /// The one that was just taken; empty between polls.
    next: Vec<Completion>,
}

impl Stream for Completions {
    type Item = Result<Completion, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { runtime, next } = &mut *self;
        runtime.poll_completions(context, next, 1).map(|taken| match taken {
            Ok(_) => next.pop().map(Ok),
            Err(error) => Some(Err(error)),
        })
    }
}
