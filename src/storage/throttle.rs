//! A limit of bytes per second that all transfers of one target and direction share.
//!
//! Each piece books its time behind all pieces booked before it, of any transfer. So concurrent
//! transfers take turns and together keep to the rate. A piece is short (about 50 ms), and the rate
//! is looked up for each piece: if the timetable changes, running transfers follow within a moment.
//! (sftp books in the pieces in which it sends, of up to 255 KiB.)

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::meter::TransferAttempt;
use super::spec::TargetSpec;
use crate::base::rate_schedule::Timetable;

const MOST_PIECE_BYTES: usize = 64 << 10;
/// Bytes that are copied at once without a limit.
const STRETCH_BYTES: u64 = 4 << 20;
const LEAST_PIECE_BYTES: usize = 512;
const PIECES_PER_SECOND: u64 = 20;
/// Time that an idle throttle saves up: enough to compensate for sleeps that were too long.
const SLACK: Duration = Duration::from_millis(50);

/// The limit of one target and direction.
#[derive(Debug)]
pub(super) struct Throttle {
    timetable: Timetable,
    clock: fn() -> DateTime<Utc>,
    /// End of the time that is booked.
    free: Mutex<Instant>,
}

impl Throttle {
    fn new(timetable: Timetable, clock: fn() -> DateTime<Utc>) -> Self {
        Self {
            timetable,
            clock,
            free: Mutex::new(Instant::now()),
        }
    }

    /// Bytes per second now. `None`: no limit.
    fn rate(&self) -> Option<u64> {
        self.timetable.at((self.clock)())
    }

    /// Number of bytes to move at once.
    fn piece_bytes(&self) -> usize {
        let bytes = self
            .rate()
            .map_or(u64::MAX, |rate| rate / PIECES_PER_SECOND);
        let bytes = usize::try_from(bytes).unwrap_or(MOST_PIECE_BYTES);
        bytes.clamp(LEAST_PIECE_BYTES, MOST_PIECE_BYTES)
    }

    /// Books the time for a piece; returns how long to wait before moving it.
    fn book(&self, bytes: usize) -> Duration {
        match self.rate() {
            Some(rate) => self.book_from(Instant::now(), bytes, rate),
            None => Duration::ZERO,
        }
    }

    fn book_from(&self, now: Instant, bytes: usize, bytes_per_second: u64) -> Duration {
        let takes = (bytes as u64).saturating_mul(1_000_000_000) / bytes_per_second.max(1);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = now
            .checked_sub(SLACK)
            .map_or(*free, |least| least.max(*free));
        *free = begins + Duration::from_nanos(takes);
        begins.saturating_duration_since(now)
    }
}

/// Returns how many of `left` bytes to move next, and how long to wait before.
pub(super) fn next_piece(throttle: Option<&Throttle>, left: usize) -> (usize, Duration) {
    match throttle {
        Some(throttle) => {
            let piece = throttle.piece_bytes().min(left);
            (piece, throttle.book(piece))
        }
        None => (MOST_PIECE_BYTES.min(left), Duration::ZERO),
    }
}

/// Waits for the turn of `bytes` bytes.
pub(super) async fn wait(throttle: Option<&Throttle>, bytes: usize) {
    if let Some(throttle) = throttle {
        tokio::time::sleep(throttle.book(bytes)).await;
    }
}

/// Copies to the end of `from` within the limit, counted by `attempt`; blocks.
pub(super) fn copy(
    from: &mut impl io::Read,
    to: &mut impl io::Write,
    throttle: Option<&Throttle>,
    attempt: &TransferAttempt,
) -> io::Result<u64> {
    match throttle {
        None if attempt.counts() => return copy_counted(from, to, attempt),
        None => return io::copy(from, to),
        Some(_) => {}
    }
    let mut buffer = vec![0; MOST_PIECE_BYTES];
    let mut copied = 0;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let (piece, wait) = next_piece(throttle, rest.len());
            std::thread::sleep(wait);
            let (now, later) = rest.split_at(piece);
            to.write_all(now)?;
            attempt.moved(piece);
            rest = later;
        }
        copied += length as u64;
    }
}

/// Copies to the end of `from` in stretches that are large enough for the system's own copy.
fn copy_counted(
    from: &mut impl io::Read,
    to: &mut impl io::Write,
    attempt: &TransferAttempt,
) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        let stretch = io::copy(&mut io::Read::take(&mut *from, STRETCH_BYTES), to)?;
        if stretch == 0 {
            return Ok(copied);
        }
        copied += stretch;
        attempt.moved(usize::try_from(stretch).unwrap_or(usize::MAX));
    }
}

/// Fills `rest` within the limit; blocks.
pub(super) fn read_exact(
    from: &mut impl io::Read,
    mut rest: &mut [u8],
    throttle: Option<&Throttle>,
) -> io::Result<()> {
    while throttle.is_some() && !rest.is_empty() {
        let (piece, wait) = next_piece(throttle, rest.len());
        std::thread::sleep(wait);
        let (now, later) = rest.split_at_mut(piece);
        from.read_exact(now)?;
        rest = later;
    }
    from.read_exact(rest)
}

/// The limits of one target. `None`: no limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    pub upload: Option<Arc<Throttle>>,
    pub download: Option<Arc<Throttle>>,
}

impl Limits {
    pub(super) fn of(spec: &TargetSpec) -> Self {
        let throttle = |timetable: &Option<Timetable>| {
            let timetable = timetable.clone()?;
            Some(Arc::new(Throttle::new(timetable, crate::base::clock::now)))
        };
        Self {
            upload: throttle(&spec.upload),
            download: throttle(&spec.download),
        }
    }

    pub(super) fn are_none(&self) -> bool {
        self.upload.is_none() && self.download.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn noon() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::Duration::hours(12)
    }

    /// Moves `bytes` and returns how many seconds it took.
    fn seconds(throttle: &Throttle, bytes: usize) -> f64 {
        let began = Instant::now();
        let mut left = bytes;
        while left > 0 {
            let (piece, wait) = next_piece(Some(throttle), left);
            std::thread::sleep(wait);
            left -= piece;
        }
        began.elapsed().as_secs_f64()
    }

    #[test]
    fn the_rate_holds_for_one_and_for_many() {
        let throttle = Throttle::new(Timetable::constant(1_000_000), noon);
        let one = seconds(&throttle, 500_000);
        assert!((0.4..0.8).contains(&one), "{one}");
        let began = Instant::now();
        let each: Vec<f64> = std::thread::scope(|scope| {
            let moves = [0; 4].map(|_| scope.spawn(|| seconds(&throttle, 125_000)));
            moves.map(|moving| moving.join().unwrap()).into()
        });
        let all = began.elapsed().as_secs_f64();
        assert!((0.4..0.8).contains(&all), "{all}");
        // They take turns: none is through long before the others.
        assert!(each.iter().all(|one| *one > 0.25), "{each:?}");
    }

    #[test]
    fn an_idle_throttle_saves_nothing_up() {
        let throttle = Throttle::new(Timetable::constant(1_000_000), noon);
        std::thread::sleep(Duration::from_millis(400));
        let took = seconds(&throttle, 400_000);
        assert!(took > 0.25, "{took}");
    }

    #[test]
    fn a_running_transfer_follows_the_timetable() {
        static EVENING: AtomicBool = AtomicBool::new(false);
        fn clock() -> DateTime<Utc> {
            let hour = if EVENING.load(Ordering::Relaxed) {
                20
            } else {
                12
            };
            DateTime::UNIX_EPOCH + chrono::Duration::hours(hour)
        }
        let parse = |text: &str| text.parse().map_err(|_| text.to_owned());
        let timetable = Timetable::parse("08:00 100000, 18:00 off", parse).unwrap();
        let throttle = Throttle::new(timetable, clock);
        let took = std::thread::scope(|scope| {
            // Ten minutes at the rate of the day.
            let moving = scope.spawn(|| seconds(&throttle, 60_000_000));
            std::thread::sleep(Duration::from_millis(400));
            assert!(!moving.is_finished());
            EVENING.store(true, Ordering::Relaxed);
            moving.join().unwrap()
        });
        assert!(took < 2.0, "{took}");
    }

    #[test]
    fn each_waits_for_those_before_and_a_pause_is_not_made_up_for() {
        let throttle = Throttle::new(Timetable::constant(1000), noon);
        let now = Instant::now() + Duration::from_secs(1);
        let second = Duration::from_secs(1);
        assert_eq!(throttle.book_from(now, 2000, 1000), Duration::ZERO);
        assert_eq!(throttle.book_from(now, 500, 1000), 2 * second - SLACK);
        let later = now + 10 * second;
        assert_eq!(throttle.book_from(later, 1000, 1000), Duration::ZERO);
        assert_eq!(throttle.book_from(later, 1000, 1000), second - SLACK);
    }

    #[test]
    fn pieces_are_short() {
        let piece = |rate| Throttle::new(Timetable::constant(rate), noon).piece_bytes();
        assert_eq!(piece(1), 512);
        assert_eq!(piece(20_000), 1000);
        assert_eq!(piece(1 << 40), 64 << 10);
    }
}
