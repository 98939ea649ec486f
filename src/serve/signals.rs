//! The signals that the agent obeys.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::wake::{Wake, Waker};

/// Wakes the scheduler for each SIGTERM, SIGINT and SIGHUP.
pub(super) fn watch(waker: &Waker) -> io::Result<()> {
    watch_one(SignalKind::terminate(), waker.clone(), || Wake::Stop)?;
    watch_one(SignalKind::interrupt(), waker.clone(), || Wake::Stop)?;
    watch_one(SignalKind::hangup(), waker.clone(), || Wake::Reload)
}

fn watch_one(kind: SignalKind, waker: Waker, wake: fn() -> Wake) -> io::Result<()> {
    let mut signals = signal(kind)?;
    tokio::spawn(async move {
        while signals.recv().await.is_some() && waker.send(wake()).await.is_ok() {}
    });
    Ok(())
}
