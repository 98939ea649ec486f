//! Work on disk, away from the threads that serve connections, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::problem::HttpProblem;

/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_secs(20);

/// Runs work that blocks, on tokio's threads for it.
#[derive(Debug, Clone)]
pub(super) struct BlockingWork(Arc<Semaphore>);

impl BlockingWork {
    /// At most `most` at a time.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Runs `work` and returns its result. If the caller stops waiting, the work still ends.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HttpProblem> + Send + 'static,
    ) -> Result<T, HttpProblem> {
        let turn = tokio::time::timeout(WAIT, self.0.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let detail = "too many requests are being worked on";
            return Err(HttpProblem::overloaded(detail, 5));
        };
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.unwrap_or_else(|error| {
            Err(HttpProblem::failed(format!(
                "this is a fault of sealift: {error}"
            )))
        })
    }
}
