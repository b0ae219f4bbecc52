//! The stream of appends to a follower: requests in order out, answers in order back, many under way.
//!
//! **What openraft concludes from an answer is held to what was asked.** A linearizable read is confirmed by answers to what
//! was sent after it came, and openraft takes an answer for one to every request that ends where it says the logs are
//! equal (`InflightAppendQueue::drain_acked`). A request that only tells how far the log is committed ends where the one
//! before it ends. So the answer to the one before, sent long ago by a follower that serves another leader by
//! now, would confirm a read that came since. Where such a request is under way, the answer to the one before it is left
//! out: the next one says the same. And while openraft has an answer, no request is taken from it.
//!
//! **A stream that is over takes no more requests.** openraft makes the requests of all streams to a follower from one
//! state, and HTTP/2 may keep a body for a while whose answers nobody reads.
//!
//! No lock is held while openraft's code or a waker runs: where a runtime ends, a waker drops the task that it
//! is to wake, and with it what is here.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};

use super::types::{LogId, TypeConfig};

/// What was sent on a stream and is not answered yet.
struct Pipeline(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Sent>,
    /// Who works with openraft, if anybody.
    turn: Turn,
    /// Wakes who takes requests, where there was none.
    requests: Option<Waker>,
    /// Whether that is for the end of a turn.
    blocked: bool,
    /// Wakes who has an answer for the end of a turn.
    answers: Option<Waker>,
    /// Whether nobody reads the answers any more.
    over: bool,
}

/// A request is taken from openraft, or openraft has an answer: never both, so that one comes before the other.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Free,
    Request,
    Answer,
}

struct Sent {
    at: Instant,
    /// The last entry that the follower has where it agrees.
    last: Option<LogId>,
}

/// The requests of a stream, noted as they are taken from openraft.
pub(super) struct Requests<S> {
    /// Nothing when it is over: openraft's part of it may hold what the next stream needs.
    input: Option<S>,
    pipeline: Arc<Pipeline>,
}

/// What the answers go through. The stream is over when this is dropped.
pub(super) struct Answers(Arc<Pipeline>);

/// Both ends of a stream.
pub(super) fn pipeline<S>(input: S) -> (Requests<S>, Answers) {
    let pipeline = Arc::new(Pipeline(Mutex::default()));
    (Requests { input: Some(input), pipeline: Arc::clone(&pipeline) }, Answers(pipeline))
}

impl Pipeline {
    /// Changes the state, and wakes whom that concerns when the lock is free again.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> (T, Option<Waker>)) -> T {
        let (value, waker) = change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(waker) = waker {
            waker.wake();
        }
        value
    }
}

impl State {
    /// Whether a request may be taken; nothing where there will be none any more.
    fn begin_request(&mut self, context: &Context<'_>) -> Option<bool> {
        if self.over {
            return None;
        }
        self.requests = Some(context.waker().clone());
        self.blocked = self.turn == Turn::Answer;
        if !self.blocked {
            self.turn = Turn::Request;
        }
        Some(!self.blocked)
    }

    fn end_request(&mut self, sent: Option<Sent>) -> Option<Waker> {
        self.turn = Turn::Free;
        self.waiting.extend(sent);
        self.answers.take()
    }

    fn answer(
        &mut self,
        answer: &StreamAppendResult<TypeConfig>,
        context: &Context<'_>,
    ) -> Poll<bool> {
        if self.turn == Turn::Request {
            self.answers = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.waiting.pop_front();
        let next = answer.as_ref().ok().zip(self.waiting.front());
        let is_for_openraft = next.is_none_or(|(matching, next)| *matching < next.last);
        if is_for_openraft {
            self.turn = Turn::Answer;
        }
        Poll::Ready(is_for_openraft)
    }

    fn end_answer(&mut self) -> Option<Waker> {
        if self.turn == Turn::Answer {
            self.turn = Turn::Free;
        }
        if std::mem::take(&mut self.blocked) { self.requests.take() } else { None }
    }
}

impl<S> Stream for Requests<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    type Item = AppendEntriesRequest<TypeConfig>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Requests { input, pipeline } = self.get_mut();
        let begun = pipeline.change(|state| (state.begin_request(context), None));
        let (Some(may), Some(stream)) = (begun, input.as_mut()) else {
            *input = None;
            return Poll::Ready(None);
        };
        if !may {
            return Poll::Pending;
        }
        let polled = stream.poll_next_unpin(context);
        let sent = match &polled {
            Poll::Ready(Some(request)) => {
                let last = request.entries.last().map(|entry| entry.log_id);
                Some(Sent { at: Instant::now(), last: last.or(request.prev_log_id) })
            }
            _ => None,
        };
        pipeline.change(|state| ((), state.end_request(sent)));
        polled
    }
}

impl Answers {
    /// An answer came. Whether it is for openraft: not where openraft would take it for one to a later request, too.
    pub(super) async fn came(&self, answer: &StreamAppendResult<TypeConfig>) -> bool {
        let came = |context: &mut Context<'_>| {
            self.0.change(|state| (state.answer(answer, context), None))
        };
        futures::future::poll_fn(came).await
    }

    /// openraft has done with the answer that it had.
    pub(super) fn done(&self) {
        self.0.change(|state| ((), state.end_answer()));
    }

    /// For how long the oldest request has waited.
    pub(super) fn age(&self) -> Duration {
        let age = |state: &State| state.waiting.front().map(|sent| sent.at.elapsed());
        self.0.change(|state| (age(state), None)).unwrap_or_default()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.over = true;
            ((), state.requests.take())
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use openraft::raft::StreamAppendError;

    use super::super::testing::append;
    use super::*;
    use crate::raft::types::{self, Vote};

    type Request = AppendEntriesRequest<TypeConfig>;

    fn log_id(index: u64) -> LogId {
        types::log_id(1, index)
    }

    fn matching(index: u64) -> StreamAppendResult<TypeConfig> {
        Ok(Some(log_id(index)))
    }

    /// openraft's end of the requests, and the other two.
    struct Ends {
        openraft: UnboundedSender<Request>,
        requests: Requests<futures::channel::mpsc::UnboundedReceiver<Request>>,
        answers: Answers,
    }

    impl Ends {
        fn new() -> Self {
            let (openraft, input) = unbounded();
            let (requests, answers) = pipeline(input);
            Ends { openraft, requests, answers }
        }

        /// openraft has a request with the entries from one index up to another.
        fn make(&self, prev: u64, last: u64) {
            self.openraft.unbounded_send(append(prev, last)).unwrap();
        }

        /// Whether one is sent now.
        fn sends(&mut self) -> bool {
            self.requests.next().now_or_never().is_some_and(|request| request.is_some())
        }

        fn sent(&mut self, requests: &[(u64, u64)]) {
            for (prev, last) in requests {
                self.make(*prev, *last);
                assert!(self.sends());
            }
        }

        /// Whether openraft gets an answer, with which it has done at once.
        fn is_passed(&self, answer: &StreamAppendResult<TypeConfig>) -> bool {
            let passed = self.answers.came(answer).now_or_never().unwrap();
            self.answers.done();
            passed
        }
    }

    #[test]
    fn no_answer_stands_for_a_request_that_was_sent_after_it() {
        let mut ends = Ends::new();
        ends.sent(&[(0, 10), (10, 10), (10, 10), (10, 20), (20, 30)]);
        assert!(
            !ends.is_passed(&matching(10)),
            "it would be one to the word of a commit behind it"
        );
        assert!(!ends.is_passed(&matching(10)));
        assert!(ends.is_passed(&matching(10)));
        assert!(ends.is_passed(&matching(20)));
        assert!(ends.is_passed(&matching(30)));
        // Less than was sent, and refusals.
        ends.sent(&[(30, 40), (40, 40)]);
        assert!(ends.is_passed(&matching(35)));
        assert!(ends.is_passed(&Err(StreamAppendError::Conflict(log_id(40)))));
        ends.sent(&[(40, 50), (50, 50)]);
        let higher = Vote::new_committed(2, 2);
        assert!(ends.is_passed(&Err(StreamAppendError::HigherVote(higher))));
    }

    #[test]
    fn nothing_is_sent_while_openraft_has_an_answer() {
        let mut ends = Ends::new();
        ends.sent(&[(0, 10)]);
        assert_eq!(ends.answers.came(&matching(10)).now_or_never(), Some(true));
        ends.make(10, 10);
        assert!(!ends.sends(), "it would be counted as answered");
        ends.answers.done();
        assert!(ends.sends());
        assert!(ends.answers.age() > Duration::ZERO);
        assert!(ends.is_passed(&matching(10)));
        assert_eq!(ends.answers.age(), Duration::ZERO);
    }

    /// An answer that comes while openraft makes a request is judged when that is known.
    #[test]
    fn an_answer_waits_for_a_request_that_is_being_made() {
        let mut ends = Ends::new();
        ends.sent(&[(0, 10)]);
        ends.make(10, 10);
        let Ends { requests: Requests { input, pipeline }, answers, .. } = ends;
        let mut input = input.unwrap();
        let answer = matching(10);
        let mut came = Box::pin(answers.came(&answer));
        let slow = futures::stream::poll_fn(|context| {
            assert!((&mut came).now_or_never().is_none());
            input.poll_next_unpin(context)
        });
        let mut requests = Requests { input: Some(slow), pipeline };
        assert!(requests.next().now_or_never().is_some());
        drop(requests);
        assert_eq!(came.now_or_never(), Some(false));
    }

    #[tokio::test]
    async fn who_waits_to_send_is_woken() {
        let mut ends = Ends::new();
        ends.sent(&[(0, 10)]);
        assert!(ends.answers.came(&matching(10)).await);
        ends.make(10, 20);
        let Ends { openraft: _openraft, mut requests, answers } = ends;
        let waiting = tokio::spawn(async move {
            let first = requests.next().await.is_some();
            (first, requests.next().await.is_none())
        });
        tokio::task::yield_now().await;
        answers.done();
        tokio::task::yield_now().await;
        // And where nobody reads the answers any more, whether or not openraft has more to send.
        drop(answers);
        assert_eq!(waiting.await.unwrap(), (true, true));
    }

    #[test]
    fn a_stream_that_is_over_holds_nothing_of_openraft() {
        let mut ends = Ends::new();
        ends.sent(&[(0, 10)]);
        assert!(!ends.sends());
        drop(ends.answers);
        assert!(ends.requests.next().now_or_never().unwrap().is_none());
        assert!(ends.openraft.is_closed());
    }
}
