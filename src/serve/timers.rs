//! The timers that wake the scheduler: one that counts the machine's sleep, and one that notices
//! when the machine's clock is set.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::wake::{Wake, Waker};

/// The shortest time that a timer is set to: 0 would switch it off.
const SHORTEST: Duration = Duration::from_millis(1);

/// The timer of the scheduler's next pass. It runs while the machine sleeps, and so expires when it
/// wakes up.
#[derive(Debug)]
pub(super) struct WakeTimer {
    timer: std::sync::Arc<AsyncFd<OwnedFd>>,
}

impl WakeTimer {
    /// Makes the timer, which is not set yet, and wakes the scheduler each time that it expires.
    pub(super) fn start(waker: Waker) -> io::Result<Self> {
        let timer = create(TimerfdClockId::Boottime)?;
        let timer = std::sync::Arc::new(timer);
        let expiring = std::sync::Arc::clone(&timer);
        tokio::spawn(async move {
            while expired(&expiring).await.is_ok() && waker.send(Wake::Tick).await.is_ok() {}
        });
        Ok(Self { timer })
    }

    /// Lets it expire after `time`.
    pub(super) fn set(&self, time: Duration) -> io::Result<()> {
        set(
            self.timer.get_ref(),
            TimerfdTimerFlags::empty(),
            time.max(SHORTEST),
        )
    }
}

/// Wakes the scheduler each time that the machine's clock is set.
pub(super) fn watch_clock(waker: Waker) -> io::Result<()> {
    let timer = create(TimerfdClockId::Realtime)?;
    watch(timer.get_ref())?;
    tokio::spawn(async move {
        // The timer expires in a distant future, so each end of the wait is a clock that was set.
        while expired(&timer).await.is_ok() {
            if watch(timer.get_ref()).is_err() || waker.send(Wake::ClockSet).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

#[allow(unsafe_code, reason = "tokio takes a descriptor on trust")]
fn create(clock: TimerfdClockId) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(clock, flags)?;
    // SAFETY: an `OwnedFd` is one descriptor, which stays open as long as it lives.
    Ok(unsafe { AsyncFd::register(timer) }?)
}

/// Lets the timer end early if the clock is set.
fn watch(timer: &OwnedFd) -> io::Result<()> {
    /// The year 2100.
    const DISTANT: Duration = Duration::from_secs(4_102_444_800);
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    set(timer, flags, DISTANT)
}

fn set(timer: &OwnedFd, flags: TimerfdTimerFlags, time: Duration) -> io::Result<()> {
    let spec = |time: Duration| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    let value = Itimerspec {
        it_interval: spec(Duration::ZERO),
        it_value: spec(time),
    };
    timerfd_settime(timer, flags, &value)?;
    Ok(())
}

/// Waits until the timer expired or was cancelled.
async fn expired(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = timer.readable().await?;
        let mut number = [0; 8];
        match rustix::io::read(timer.get_ref(), &mut number) {
            Ok(_) | Err(rustix::io::Errno::CANCELED) => return Ok(()),
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_expires_once_each_time_it_is_set() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (waker, mut wakes) = tokio::sync::mpsc::channel(4);
            let timer = WakeTimer::start(waker.clone()).unwrap();
            watch_clock(waker).unwrap();
            for _ in 0..3 {
                timer.set(Duration::from_millis(20)).unwrap();
                assert!(matches!(wakes.recv().await, Some(Wake::Tick)));
            }
            let more = tokio::time::timeout(Duration::from_millis(60), wakes.recv()).await;
            assert!(more.is_err());
        });
    }
}
