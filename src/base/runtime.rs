//! The network runtime of a job.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Returns a runtime with two worker threads: jobs wait for the network and compute on threads of
/// their own.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}
