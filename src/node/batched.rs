//! One question for many: who asks while it is under way shares the next one.
//!
//! So a busy follower asks its leader once for all reads that came meanwhile, as etcd does (its loop of linearizable
//! reads). What a caller is told was always asked after it came.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Questions under way at a time: with two, who comes just after a question was asked waits half as long as with one.
const ASKING_MAX: usize = 2;
/// Where they are all older than this, who comes then asks again, for all who wait: what they ask may be gone.
const PATIENCE: Duration = Duration::from_millis(100);

/// Who waits for an answer of one kind. Cheap to clone.
#[derive(Clone)]
pub(super) struct Batched<T>(Arc<Mutex<Waiting<T>>>);

struct Waiting<T> {
    asking: usize,
    /// When the youngest question was asked.
    asked: Instant,
    /// Those for whom nobody asks yet.
    next: Vec<oneshot::Sender<Result<T>>>,
}

impl<T> Default for Batched<T> {
    fn default() -> Self {
        Batched(Arc::new(Mutex::new(Waiting {
            asking: 0,
            asked: Instant::now(),
            next: Vec::new(),
        })))
    }
}

impl<T: Clone + Send + 'static> Batched<T> {
    /// An answer to a question that is asked after this is called: the same one from all callers, since any of them may be
    /// the one who asks. A caller that goes takes nothing from the others.
    pub(super) async fn ask<F, A>(&self, question: F) -> Result<T>
    where
        F: Fn() -> A + Send + 'static,
        A: Future<Output = Result<T>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        if self.join(tell) {
            tokio::spawn(self.clone().run(question));
        }
        told.await.unwrap_or_else(|_| Err(Error::NoLeader("the node is shutting down".to_owned())))
    }

    /// Waits for the next question; whether the caller must see to it that it is asked.
    fn join(&self, tell: oneshot::Sender<Result<T>>) -> bool {
        let mut waiting = self.waiting();
        waiting.next.push(tell);
        let asks = waiting.asking < ASKING_MAX || waiting.asked.elapsed() > PATIENCE;
        if asks {
            waiting.asking += 1;
            waiting.asked = Instant::now();
        }
        asks
    }

    /// Asks for those who wait, until nobody does.
    async fn run<F, A>(self, question: F)
    where
        F: Fn() -> A,
        A: Future<Output = Result<T>>,
    {
        while let Some(waiting) = self.next() {
            let answer = question().await;
            for tell in waiting {
                // Whoever asked may have gone.
                let _ = tell.send(answer.clone());
            }
        }
    }

    /// Those who wait; where there is nobody, whoever comes next must begin to ask.
    fn next(&self) -> Option<Vec<oneshot::Sender<Result<T>>>> {
        let mut waiting = self.waiting();
        waiting.next.retain(|tell| !tell.is_closed());
        if waiting.next.is_empty() {
            waiting.asking -= 1;
            return None;
        }
        waiting.asked = Instant::now();
        Some(std::mem::take(&mut waiting.next))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::{BoxFuture, join_all};
    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::*;

    /// Who is asked: each question takes a permit, and is answered with its number.
    struct Oracle {
        asked: AtomicUsize,
        permits: Semaphore,
    }

    impl Oracle {
        fn new() -> Arc<Self> {
            Arc::new(Oracle { asked: AtomicUsize::new(0), permits: Semaphore::new(0) })
        }

        fn question(
            self: &Arc<Self>,
        ) -> impl Fn() -> BoxFuture<'static, Result<usize>> + Send + 'static {
            let oracle = Arc::clone(self);
            move || {
                let oracle = Arc::clone(&oracle);
                Box::pin(async move {
                    let number = oracle.asked.fetch_add(1, Ordering::Relaxed) + 1;
                    oracle.permits.acquire().await.unwrap().forget();
                    Ok(number)
                })
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    /// Callers that have begun to wait.
    async fn callers(
        batched: &Batched<usize>,
        oracle: &Arc<Oracle>,
        count: usize,
    ) -> Vec<tokio::task::JoinHandle<Result<usize>>> {
        let one = || {
            let (batched, question) = (batched.clone(), oracle.question());
            tokio::spawn(async move { batched.ask(question).await })
        };
        let callers = (0..count).map(|_| one()).collect();
        for _ in 0..100 {
            yield_now().await;
        }
        callers
    }

    /// As many callers as there are places to ask in, each with a question of its own.
    async fn all_places(
        batched: &Batched<usize>,
        oracle: &Arc<Oracle>,
    ) -> Vec<tokio::task::JoinHandle<Result<usize>>> {
        let mut under_way = Vec::new();
        for _ in 0..ASKING_MAX {
            under_way.extend(callers(batched, oracle, 1).await);
        }
        under_way
    }

    async fn told(callers: Vec<tokio::task::JoinHandle<Result<usize>>>) -> Vec<usize> {
        join_all(callers).await.into_iter().map(|told| told.unwrap().unwrap()).collect()
    }

    #[tokio::test]
    async fn those_who_come_meanwhile_share_the_next_question() {
        let (batched, oracle) = (Batched::default(), Oracle::new());
        let under_way = all_places(&batched, &oracle).await;
        let late = callers(&batched, &oracle, 50).await;
        assert_eq!(
            oracle.asked(),
            ASKING_MAX,
            "what is asked already is not for those who come later"
        );
        oracle.permits.add_permits(ASKING_MAX);
        assert_eq!(told(under_way).await, [1, 2]);
        oracle.permits.add_permits(1);
        assert_eq!(told(late).await, [3; 50]);
        assert_eq!(batched.waiting().asking, 0);
        oracle.permits.add_permits(1);
        assert_eq!(batched.ask(oracle.question()).await, Ok(4), "and it begins anew");
    }

    #[tokio::test]
    async fn who_goes_takes_nothing_from_the_others() {
        let (batched, oracle) = (Batched::default(), Oracle::new());
        let mut under_way = all_places(&batched, &oracle).await;
        let stays = callers(&batched, &oracle, 1).await;
        // Gone: the one that began to ask, and one that waits.
        let first = under_way.remove(0);
        first.abort();
        let mut gone = Box::pin(batched.ask(oracle.question()));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        oracle.permits.add_permits(ASKING_MAX + 1);
        assert_eq!(told(under_way).await, [2]);
        assert_eq!(told(stays).await, [3]);
        // Nobody was asked for those who had gone.
        assert_eq!((oracle.asked(), batched.waiting().asking), (3, 0));
    }

    #[tokio::test]
    async fn a_question_that_hangs_is_not_waited_for() {
        let (batched, oracle) = (Batched::default(), Oracle::new());
        all_places(&batched, &oracle).await;
        assert_eq!(callers(&batched, &oracle, 2).await.len(), 2);
        assert_eq!(oracle.asked(), ASKING_MAX);
        batched.waiting().asked -= 2 * PATIENCE;
        callers(&batched, &oracle, 2).await;
        assert_eq!(oracle.asked(), ASKING_MAX + 1, "one for all who wait");
    }

    #[tokio::test]
    async fn an_error_is_told_to_all() {
        let batched = Batched::<usize>::default();
        let refused = || async { Err(Error::NoLeader("an election".to_owned())) };
        let all = join_all((0..9).map(|_| batched.ask(refused))).await;
        assert!(all.iter().all(|told| *told == Err(Error::NoLeader("an election".to_owned()))));
    }
}
