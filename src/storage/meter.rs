//! Counts the bytes of a transfer while it runs.
//!
//! A [`Meter`] counts one transfer and reports each piece as [`ProgressEvent::BytesInFlight`]. The
//! caller opens it around a request with [`metered`]; the target's code finds it there, in the same
//! task, and takes a [`TransferAttempt`] of it for each try. What a failed try counted is taken
//! back, and [`Meter::close`] takes back the rest once the caller has counted the whole object. So
//! no byte is counted twice, however often an object is sent.
//!
//! A piece is tens of kilobytes or more, so counting costs nothing beside moving it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::progress::{Progress, ProgressEvent};

tokio::task_local! {
    /// The meter of the request that the task awaits.
    static CURRENT: Arc<Meter>;
}

/// What a meter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MeterKind {
    /// An object that goes to the target. Its parts stay counted until the meter is closed.
    Put,
    /// An archive that is read from one target and put onto another: each half counts half.
    Copy,
    /// Objects that are read. The caller counts each object as soon as it is read.
    Reads,
}

/// Counts the bytes of one transfer.
pub struct Meter {
    progress: Arc<dyn Progress>,
    target: String,
    counted: MeterKind,
    /// Bytes that were reported and not taken back. `None`: the meter is closed.
    in_flight: Mutex<Option<u64>>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Meter {
    fn new(progress: &Arc<dyn Progress>, target: &str, counted: MeterKind) -> Arc<Self> {
        Arc::new(Self {
            progress: Arc::clone(progress),
            target: target.to_owned(),
            counted,
            in_flight: Mutex::new(Some(0)),
        })
    }

    /// Returns a meter of an object that goes to `target`, the name that the events have.
    pub fn of_put(progress: &Arc<dyn Progress>, target: &str) -> Arc<Self> {
        Self::new(progress, target, MeterKind::Put)
    }

    /// Returns a meter of an archive that is copied to `target`.
    pub fn of_copy(progress: &Arc<dyn Progress>, target: &str) -> Arc<Self> {
        Self::new(progress, target, MeterKind::Copy)
    }

    /// Returns a meter of objects that are read from `target`.
    pub fn of_reads(progress: &Arc<dyn Progress>, target: &str) -> Arc<Self> {
        Self::new(progress, target, MeterKind::Reads)
    }

    /// Takes back all that is still counted. Later pieces count no more.
    pub fn close(&self) {
        if let Some(bytes) = lock(&self.in_flight).take() {
            self.report(0, bytes);
        }
    }

    /// Counts that an attempt has moved `now` bytes instead of `before`.
    fn change(&self, before: u64, now: u64) {
        let part = |bytes: u64| match self.counted {
            MeterKind::Copy => bytes / 2,
            MeterKind::Put | MeterKind::Reads => bytes,
        };
        let (before, now) = (part(before), part(now));
        let mut in_flight = lock(&self.in_flight);
        if let Some(bytes) = &mut *in_flight {
            *bytes = (*bytes + now).saturating_sub(before);
            self.report(now, before);
        }
    }

    fn report(&self, more: u64, less: u64) {
        let change = more.cast_signed().wrapping_sub(less.cast_signed());
        if change != 0 {
            let target = &self.target;
            self.progress
                .report(&ProgressEvent::BytesInFlight { target, change });
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.close();
    }
}

/// Awaits a request whose bytes `meter` counts. `None`: nothing counts them.
pub async fn metered<T>(meter: Option<&Arc<Meter>>, request: impl Future<Output = T>) -> T {
    match meter {
        Some(meter) => CURRENT.scope(Arc::clone(meter), request).await,
        None => request.await,
    }
}

/// Begins to count a try of the request that this task awaits.
pub(crate) fn attempt() -> TransferAttempt {
    let meter = CURRENT.try_with(Arc::clone).ok();
    TransferAttempt(meter.map(|meter| AttemptCount {
        meter,
        bytes: Mutex::new(Some(0)),
    }))
}

/// The bytes of one try. Dropped before it is kept, it takes them back.
#[derive(Debug)]
pub(crate) struct TransferAttempt(Option<AttemptCount>);

#[derive(Debug)]
struct AttemptCount {
    meter: Arc<Meter>,
    /// `None`: the try has ended.
    bytes: Mutex<Option<u64>>,
}

impl TransferAttempt {
    /// Whether anything counts.
    pub(crate) fn counts(&self) -> bool {
        self.0.is_some()
    }

    /// Counts `bytes` more.
    pub(crate) fn moved(&self, bytes: usize) {
        self.change(|before| before + bytes as u64);
    }

    /// Counts `bytes` in all.
    pub(crate) fn reached(&self, bytes: u64) {
        self.change(|_| bytes);
    }

    fn change(&self, now: impl FnOnce(u64) -> u64) {
        let Some(count) = &self.0 else { return };
        if let Some(bytes) = &mut *lock(&count.bytes) {
            let (before, now) = (*bytes, now(*bytes));
            *bytes = now;
            count.meter.change(before, now);
        }
    }

    /// The try has moved its bytes: they count until the meter is closed.
    pub(crate) fn keep(&self) {
        match &self.0 {
            Some(count) if count.meter.counted == MeterKind::Reads => self.take_back(),
            Some(count) => drop(lock(&count.bytes).take()),
            None => {}
        }
    }

    /// The try has failed: its bytes do not count.
    pub(crate) fn take_back(&self) {
        let Some(count) = &self.0 else { return };
        if let Some(bytes) = lock(&count.bytes).take() {
            count.meter.change(bytes, 0);
        }
    }
}

impl Drop for TransferAttempt {
    fn drop(&mut self) {
        self.take_back();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Sum(AtomicI64);

    impl Progress for Sum {
        fn report(&self, event: &ProgressEvent<'_>) {
            if let ProgressEvent::BytesInFlight { change, .. } = event {
                self.0.fetch_add(*change, Ordering::Relaxed);
            }
        }
    }

    impl Sum {
        fn get(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Runs `work` in a meter and returns the sum before and after the meter is closed.
    fn sums(make: fn(&Arc<dyn Progress>, &str) -> Arc<Meter>, work: impl FnOnce()) -> (i64, i64) {
        let sum = Arc::new(Sum::default());
        let progress: Arc<dyn Progress> = sum.clone();
        let meter = make(&progress, "s3");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(metered(Some(&meter), async { work() }));
        let before = sum.get();
        meter.close();
        (before, sum.get())
    }

    #[test]
    fn a_failed_try_counts_for_nothing_and_a_kept_one_until_the_meter_is_closed() {
        let tries = || {
            let failed = attempt();
            failed.moved(700);
            drop(failed);
            let kept = attempt();
            kept.moved(200);
            kept.reached(1000);
            kept.keep();
            kept.moved(1);
        };
        assert_eq!(sums(Meter::of_put, tries), (1000, 0));
        assert_eq!(sums(Meter::of_copy, tries), (500, 0));
        assert_eq!(sums(Meter::of_reads, tries), (0, 0));
    }

    #[test]
    fn a_piece_that_comes_after_the_end_counts_no_more() {
        let sum = Arc::new(Sum::default());
        let progress: Arc<dyn Progress> = sum.clone();
        let meter = Meter::of_put(&progress, "s3");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let late = runtime.block_on(metered(Some(&meter), async { attempt() }));
        late.moved(10);
        meter.close();
        late.moved(10);
        assert_eq!(sum.get(), 0);
        drop(late);
        assert_eq!(sum.get(), 0);
    }

    #[test]
    fn without_a_meter_nothing_counts() {
        let alone = attempt();
        alone.moved(10);
        assert!(!alone.counts());
    }

    proptest! {
        #[test]
        fn whatever_is_tried_the_sum_is_zero_at_the_end(
            tries in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0_usize..100_000, 0..8)), 0..8),
        ) {
            for make in [Meter::of_put, Meter::of_copy, Meter::of_reads] {
                let all = tries.clone();
                let (_, end) = sums(make, || for (is_kept, pieces) in all {
                    let attempt = attempt();
                    pieces.into_iter().for_each(|piece| attempt.moved(piece));
                    if is_kept {
                        attempt.keep();
                    }
                });
                prop_assert_eq!(end, 0);
            }
        }
    }
}
