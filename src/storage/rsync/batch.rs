//! Collects the requests that arrive during a call for the next one.
//!
//! A request that finds no call in progress starts a task, which makes calls of all waiting
//! requests until none waits. If the task is dropped with its runtime, the waiting requests get no
//! result.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Time that a call waits for more requests; short compared with a handshake.
const GATHER: Duration = Duration::from_millis(20);
/// Maximum number of requests in one call.
const MOST_IN_BATCH: usize = 256;

type RunBatch<I, O> =
    dyn Fn(Vec<I>) -> Pin<Box<dyn Future<Output = Vec<O>> + Send>> + Send + Sync + 'static;

/// Groups requests `I` with results `O` into calls.
pub(super) struct Batcher<I, O> {
    state: Arc<Mutex<BatchQueue<I, O>>>,
    run: Arc<RunBatch<I, O>>,
}

struct BatchQueue<I, O> {
    waiting: VecDeque<(I, oneshot::Sender<O>)>,
    is_running: bool,
}

impl<I, O> fmt::Debug for Batcher<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batcher")
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// `run` makes a call; it returns a result for each request, in the same order.
    pub(super) fn new(
        run: impl Fn(Vec<I>) -> Pin<Box<dyn Future<Output = Vec<O>> + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: Arc::new(Mutex::new(BatchQueue {
                waiting: VecDeque::new(),
                is_running: false,
            })),
            run: Arc::new(run),
        }
    }

    /// Returns the result of `request`. `None`: its call was cancelled.
    pub(super) async fn submit(&self, request: I) -> Option<O> {
        let (done, result) = oneshot::channel();
        let leads = {
            let mut state = lock(&self.state);
            state.waiting.push_back((request, done));
            !std::mem::replace(&mut state.is_running, true)
        };
        if leads {
            // As a task of its own, because this request may be cancelled and others rely on the
            // calls.
            tokio::spawn(lead(Arc::clone(&self.state), Arc::clone(&self.run)));
        }
        result.await.ok()
    }
}

/// Makes calls until no request waits.
async fn lead<I, O>(state: Arc<Mutex<BatchQueue<I, O>>>, run: Arc<RunBatch<I, O>>) {
    let leading = Leading(&state);
    loop {
        tokio::time::sleep(GATHER).await;
        let batch: Vec<_> = {
            let mut state = lock(&state);
            let count = state.waiting.len().min(MOST_IN_BATCH);
            if count == 0 {
                state.is_running = false;
                std::mem::forget(leading);
                return;
            }
            state.waiting.drain(..count).collect()
        };
        let (requests, senders): (Vec<I>, Vec<_>) = batch.into_iter().unzip();
        for (sender, result) in senders.into_iter().zip(run(requests).await) {
            // The request may have been cancelled.
            let _ = sender.send(result);
        }
    }
}

/// Releases the waiting requests if the task is dropped before its end.
struct Leading<'a, I, O>(&'a Mutex<BatchQueue<I, O>>);

impl<I, O> Drop for Leading<'_, I, O> {
    fn drop(&mut self) {
        let mut state = lock(self.0);
        state.is_running = false;
        state.waiting.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    fn batcher(calls: &Arc<Mutex<Vec<usize>>>) -> Batcher<u32, u32> {
        let calls = Arc::clone(calls);
        Batcher::new(move |requests| {
            lock(&calls).push(requests.len());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                requests.into_iter().map(|n| n * 10).collect()
            })
        })
    }

    #[test]
    fn concurrent_requests_share_a_call_and_each_gets_its_result() {
        let calls = Arc::default();
        let batcher = batcher(&calls);
        runtime().block_on(async {
            let all = futures::future::join_all((0..600).map(|n| batcher.submit(n))).await;
            let expected: Vec<_> = (0..600).map(|n| Some(n * 10)).collect();
            assert_eq!(all, expected);
            assert_eq!(batcher.submit(7).await, Some(70));
        });
        assert_eq!(*lock(&calls), [256, 256, 88, 1]);
    }

    #[test]
    fn a_cancelled_request_does_not_cancel_others() {
        let batcher = Arc::new(batcher(&Arc::default()));
        let submit = |n| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(async move { batcher.submit(n).await })
        };
        runtime().block_on(async {
            let first = submit(1);
            tokio::task::yield_now().await;
            let second = submit(2);
            tokio::time::sleep(GATHER + Duration::from_millis(10)).await;
            let third = submit(3);
            tokio::task::yield_now().await;
            first.abort();
            assert!(first.await.unwrap_err().is_cancelled());
            assert_eq!(second.await.unwrap(), Some(20));
            assert_eq!(third.await.unwrap(), Some(30));
        });
    }
}
