//! Which points of a command are tried: all of them in the long form, else some that differ from run to run.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use crate::disk::Losses;
use crate::support::is_long;
use crate::support::random::Random;
use crate::tracer::Fault;

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The process dies; what it wrote is there.
    Kill,
    /// The power goes; what was not flushed is not there.
    PowerOff,
    /// The power goes; what was not flushed is there in part, in no order.
    PowerOffTorn,
    /// The same on a disk that says of the catalog that it was flushed, and it was not.
    CatalogTorn,
    /// The call fails, and others do not.
    Error,
    /// The disk that it is for is full from then on.
    Full,
    /// The disk that it is for takes nothing any more.
    Dead,
}

const EVENTS: [Event; 7] = [
    Event::Kill,
    Event::PowerOff,
    Event::PowerOffTorn,
    Event::CatalogTorn,
    Event::Error,
    Event::Full,
    Event::Dead,
];

#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub event: Event,
    /// At which call, from 0; that of their number: after the last.
    pub call: usize,
    pub seed: u64,
}

impl Point {
    pub fn fault(&self) -> Fault {
        match self.event {
            Event::Kill | Event::PowerOff | Event::PowerOffTorn | Event::CatalogTorn => {
                Fault::Kill(self.call)
            }
            Event::Error => Fault::Error(self.call, Errno::EIO),
            Event::Full => Fault::Full(self.call),
            Event::Dead => Fault::Dead(self.call),
        }
    }

    /// What the disks lose, of a run that ended so.
    pub fn losses(&self, code: Option<i32>) -> Option<Losses> {
        match self.event {
            Event::PowerOffTorn | Event::CatalogTorn => Some(Losses::Some(self.seed)),
            Event::PowerOff => Some(Losses::All),
            // Who says that all is well has flushed it; and power may go after a failure.
            _ => match code {
                Some(0) => Some(Losses::All),
                Some(_) if self.seed.is_multiple_of(2) => Some(Losses::Some(self.seed)),
                _ => None,
            },
        }
    }
}

/// Says where it was when something panics.
struct Where<'a> {
    what: &'a str,
    index: usize,
    seed: u64,
    point: Point,
}

impl fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            index,
            seed,
            point,
        } = self;
        write!(
            f,
            "{what}: {:?} at call {}; again with SEALIFT_TEST_SEED={seed} SEALIFT_TEST_POINT={index}",
            point.event, point.call
        )
    }
}

impl Drop for Where<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self}");
        }
    }
}

/// Tries the points of a command that makes `calls` calls, or `everyday` of them. `attempt` gives what was seen, in a
/// word or two, to be counted.
pub fn try_points(
    what: &str,
    calls: usize,
    everyday: usize,
    mut attempt: impl FnMut(&Point) -> String,
) {
    let seed = number("SEALIFT_TEST_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_micros())
    });
    let all = (calls + 1) * EVENTS.len();
    let some = number("SEALIFT_TEST_POINTS").map_or(everyday, |points| points as usize);
    let chosen: Vec<usize> = match number("SEALIFT_TEST_POINT") {
        Some(index) => vec![index as usize],
        None if is_long() => (0..all).collect(),
        None => {
            // All over the run, and one kind after the other.
            let place = |n: usize| (seed as usize + n * (calls + 1) / some) % (calls + 1);
            let kind = |n: usize| (seed as usize + n) % EVENTS.len();
            (0..some)
                .map(|n| place(n) * EVENTS.len() + kind(n))
                .collect()
        }
    };
    let mut seen: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for &index in &chosen {
        let point = Point {
            event: EVENTS[index % EVENTS.len()],
            call: index / EVENTS.len(),
            seed: Random::new(seed ^ ((index as u64) << 32)).next(),
        };
        let at = Where {
            what,
            index,
            seed,
            point,
        };
        let key = format!("{:?}: {}", point.event, attempt(&point));
        *seen.entry(key).or_default() += 1;
        drop(at);
    }
    println!(
        "{what}: {calls} calls, {} of {all} points tried, seed {seed}: {seen:?}",
        chosen.len()
    );
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
