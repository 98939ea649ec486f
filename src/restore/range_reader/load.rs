//! Loads frames: each once, however many readers wait for it, neighbours with one request.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::ciphertext::{Ciphertext, blocking};
use super::error::RangeError;
use super::frame_cache::{FrameCache, FrameKey};
use super::frame_run::{FrameWant, MOST_FRAMES_IN_RUN, RunFrame, load_run, runs};
use super::opened::{self, OpenedArchive};
use super::sequential::SequentialRead;
use crate::base::ids::Hash;
use crate::format::manifest::ArchiveRow;
use crate::restore::fetch::ArchiveError;
use crate::restore::open::Identities;

/// Content of a frame, at most.
const FRAME_BYTES: u64 = 8 << 20;
/// Large frames that are loaded at a time, if there is memory for them.
const MOST_AT_ONCE: u64 = 8;
/// Content for which a load needs one permit: many small frames may be loaded at a time.
const PERMIT_BYTES: u64 = 256 << 10;
/// Frames that must have been read in order before the next ones are loaded ahead.
const IN_ORDER: u32 = 2;
/// Content that must have been read in order before that, bytes.
const IN_ORDER_BYTES: u64 = 1 << 20;
/// Content that is loaded ahead: as much as was read in order, and at most this, bytes.
const AHEAD_BYTES: u64 = 2 * FRAME_BYTES;
/// Number of the first part of an archive that is read from its begin; frames have lower numbers.
pub(super) const FIRST_PART: u32 = 1 << 31;

/// Frames by number, or why each is not there.
type Loaded = Arc<HashMap<u32, Result<Bytes, RangeError>>>;
/// A load that several readers may await.
type Flight = Shared<BoxFuture<'static, Loaded>>;
/// An archive that is being opened, or is open.
type PendingArchive = Shared<BoxFuture<'static, Result<Arc<OpenedArchive>, RangeError>>>;

struct LoadState {
    frames: FrameCache,
    flights: HashMap<FrameKey, Flight>,
    openings: HashMap<(Hash, Hash), PendingArchive>,
}

/// Opens archives and loads their frames.
pub(super) struct FrameLoader {
    ciphertext: Arc<Ciphertext>,
    identities: Arc<Identities>,
    state: Mutex<LoadState>,
    /// One for each [`PERMIT_BYTES`] that may be loaded at a time.
    permits: Semaphore,
    most_permits: u32,
    may_load_ahead: bool,
}

impl FrameLoader {
    pub(super) fn new(
        ciphertext: Ciphertext,
        identities: Arc<Identities>,
        memory_bytes: u64,
    ) -> Self {
        // A frame in the making takes about twice its content.
        let at_once = (memory_bytes / (4 * FRAME_BYTES)).clamp(1, MOST_AT_ONCE);
        let most_permits = (at_once * FRAME_BYTES / PERMIT_BYTES) as u32;
        Self {
            ciphertext: Arc::new(ciphertext),
            identities,
            state: Mutex::new(LoadState {
                frames: FrameCache::new(memory_bytes),
                flights: HashMap::new(),
                openings: HashMap::new(),
            }),
            permits: Semaphore::new(most_permits as usize),
            most_permits,
            may_load_ahead: at_once * FRAME_BYTES > AHEAD_BYTES,
        }
    }

    pub(super) fn ciphertext(&self) -> &Ciphertext {
        &self.ciphertext
    }

    fn state(&self) -> MutexGuard<'_, LoadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, row: &ArchiveRow, error: ArchiveError) -> RangeError {
        RangeError::new(row, self.ciphertext.target(), error)
    }

    /// Returns the opened archive of `row`.
    pub(super) async fn open(
        self: &Arc<Self>,
        row: &ArchiveRow,
    ) -> Result<Arc<OpenedArchive>, RangeError> {
        let key = (row.blake3, row.head_sha256);
        let opening = {
            let mut state = self.state();
            let known = state.openings.get(&key).cloned();
            known.unwrap_or_else(|| {
                let opening = self.start_opening(row.clone());
                state.openings.insert(key, opening.clone());
                opening
            })
        };
        opening.await
    }

    fn start_opening(self: &Arc<Self>, row: ArchiveRow) -> PendingArchive {
        let (loader, key) = (Arc::clone(self), (row.blake3, row.head_sha256));
        let stopped = self.failed(&row, ArchiveError::Stopped);
        let task = tokio::spawn(async move {
            let opened = opened::open(&loader.ciphertext, &loader.identities, &row).await;
            let opened = opened.map(Arc::new);
            opened.map_err(|error| {
                // The next reader tries again.
                loader.state().openings.remove(&key);
                loader.failed(&row, error)
            })
        });
        let opened = async move { task.await.unwrap_or(Err(stopped)) };
        opened.boxed().shared()
    }

    /// Returns frames of an archive, by number.
    pub(super) async fn frames(
        self: &Arc<Self>,
        opened: &Arc<OpenedArchive>,
        wants: &[FrameWant],
    ) -> Result<HashMap<u32, Bytes>, RangeError> {
        let mut found = HashMap::new();
        loop {
            let flights = self.take_or_start(opened, wants, &mut found);
            if flights.is_empty() {
                break;
            }
            for loaded in join_all(flights).await {
                for want in wants {
                    match loaded.get(&want.number) {
                        Some(Ok(content)) if content.len() as u64 >= want.needed => {
                            found.insert(want.number, content.clone());
                        }
                        // Another reader needed less of it: now all of it is loaded.
                        Some(Ok(_)) | None => {}
                        Some(Err(error)) => return Err(error.clone()),
                    }
                }
            }
        }
        self.load_ahead(opened, wants);
        Ok(found)
    }

    /// Puts the frames that are in memory into `found`. Returns the loads of the others, and starts
    /// those that are not started yet.
    fn take_or_start(
        self: &Arc<Self>,
        opened: &Arc<OpenedArchive>,
        wants: &[FrameWant],
        found: &mut HashMap<u32, Bytes>,
    ) -> Vec<Flight> {
        let (mut flights, mut missing) = (Vec::new(), Vec::new());
        let mut state = self.state();
        for want in wants {
            let key = (opened.row.blake3, want.number);
            if found.contains_key(&want.number) {
                continue;
            }
            if let Some(content) = state.frames.get(key, want.needed) {
                found.insert(want.number, content);
            } else if let Some(flight) = state.flights.get(&key) {
                flights.push(flight.clone());
            } else {
                missing.push(*want);
            }
        }
        for cargo in self.cargoes(&state, opened, &missing) {
            flights.push(self.start(&mut state, opened, cargo));
        }
        flights
    }

    /// Returns what must be loaded so that all of `missing` are there.
    fn cargoes(
        &self,
        state: &LoadState,
        opened: &OpenedArchive,
        missing: &[FrameWant],
    ) -> Vec<Cargo> {
        let (parts, frames): (Vec<&FrameWant>, Vec<&FrameWant>) =
            missing.iter().partition(|want| want.number >= FIRST_PART);
        let table = opened.frames.as_deref().unwrap_or_default();
        let frames = frames.into_iter().filter_map(|want| {
            // If a beginning was too short once, all of the frame is loaded.
            let may_cut = !state.frames.has((opened.row.blake3, want.number), 0);
            let frame = table.get(want.number as usize)?;
            Some(RunFrame::new(frame, *want, may_cut))
        });
        let runs = runs(frames.collect()).into_iter().map(Cargo::Run);
        let parts: BTreeMap<u64, u64> = parts
            .iter()
            .map(|want| (u64::from(want.number - FIRST_PART), want.needed))
            .collect();
        let parts = (!parts.is_empty()).then_some(Cargo::Parts(parts));
        runs.chain(parts).collect()
    }

    /// Starts to load `cargo`.
    fn start(
        self: &Arc<Self>,
        state: &mut LoadState,
        opened: &Arc<OpenedArchive>,
        cargo: Cargo,
    ) -> Flight {
        let numbers = cargo.numbers();
        let stopped = self.failed(&opened.row, ArchiveError::Stopped);
        let stopped = numbers.iter().map(|one| (*one, Err(stopped.clone())));
        let stopped: Loaded = Arc::new(stopped.collect());
        let archive = opened.row.blake3;
        let mut landing = Landing {
            loader: Arc::clone(self),
            archive,
            numbers: numbers.clone(),
            loaded: Arc::clone(&stopped),
        };
        let opened = Arc::clone(opened);
        let task = tokio::spawn(async move {
            let loaded = landing.loader.load(&opened, cargo).await;
            landing.loaded = Arc::new(loaded);
            Arc::clone(&landing.loaded)
        });
        let flight = async move { task.await.unwrap_or(stopped) };
        let flight = flight.boxed().shared();
        for number in numbers {
            state.flights.insert((archive, number), flight.clone());
        }
        flight
    }

    async fn load(
        &self,
        opened: &Arc<OpenedArchive>,
        cargo: Cargo,
    ) -> HashMap<u32, Result<Bytes, RangeError>> {
        let wanted = cargo.permits().clamp(1, u64::from(self.most_permits)) as u32;
        let permits = self.permits.acquire_many(wanted).await;
        // Nobody closes the semaphore.
        let Ok(_permits) = permits else {
            return HashMap::new();
        };
        let failed = |error| self.failed(&opened.row, error);
        let numbers = cargo.numbers();
        let loaded = match cargo {
            Cargo::Run(run) => load_run(&self.ciphertext, opened, &run).await,
            Cargo::Parts(needed) => self.load_parts(opened, needed).await,
        };
        match loaded {
            Ok(loaded) => {
                let loaded = loaded.into_iter();
                loaded
                    .map(|(number, content)| (number, content.map_err(failed)))
                    .collect()
            }
            Err(error) => {
                let error = failed(error);
                let all = numbers.into_iter();
                all.map(|number| (number, Err(error.clone()))).collect()
            }
        }
    }

    async fn load_parts(
        &self,
        opened: &OpenedArchive,
        needed: BTreeMap<u64, u64>,
    ) -> Result<HashMap<u32, Result<Bytes, ArchiveError>>, ArchiveError> {
        let read = SequentialRead {
            ciphertext: Arc::clone(&self.ciphertext),
            identities: Arc::clone(&self.identities),
            row: opened.row.clone(),
        };
        let runtime = Handle::current();
        let parts = blocking(move || read.read(&runtime, &needed)).await??;
        let numbered = |(number, part)| (FIRST_PART | number as u32, Ok(part));
        Ok(parts.into_iter().map(numbered).collect())
    }

    /// Loads the next frames of an archive that is read in order, if nothing else is to be loaded.
    fn load_ahead(self: &Arc<Self>, opened: &Arc<OpenedArchive>, wants: &[FrameWant]) {
        let (Some(first), Some(last)) = (wants.first(), wants.last()) else {
            return;
        };
        let Some(table) = opened.table() else {
            return;
        };
        let (begin, end) = (first.number as usize, last.number as usize);
        let Some([from, .., upto] | [from @ upto]) = table.get(begin..=end) else {
            return;
        };
        let (start, end) = (from.content.start, upto.content.end);
        let (frames, bytes) = opened.note_order(first.number, last.number, end - start);
        if frames < IN_ORDER || bytes < IN_ORDER_BYTES || !self.may_load_ahead {
            return;
        }
        let ahead = bytes.min(AHEAD_BYTES);
        let mut state = self.state();
        let next = (last.number + 1..).zip(table.iter().skip(last.number as usize + 1));
        let next: Vec<RunFrame> = next
            .take(MOST_FRAMES_IN_RUN)
            .take_while(|(_, frame)| frame.content.end <= end + ahead)
            .filter_map(|(number, frame)| {
                let key = (opened.row.blake3, number);
                let needed = frame.content.end - frame.content.start;
                let is_there = state.frames.has(key, needed) || state.flights.contains_key(&key);
                let want = FrameWant { number, needed };
                (!is_there).then(|| RunFrame::new(frame, want, false))
            })
            .collect();
        // Small frames are not loaded one by one: when half of what is ahead is used up, the rest
        // is.
        let is_enough = |frame: &RunFrame| frame.content_start() > end + ahead / 2;
        if next.first().is_some_and(is_enough) {
            return;
        }
        for run in runs(next) {
            drop(self.start(&mut state, opened, Cargo::Run(run)));
        }
    }
}

/// What is loaded at once.
enum Cargo {
    /// Frames that one request fetches.
    Run(Vec<RunFrame>),
    /// Parts of an archive that is read from its begin, and how many bytes of each are needed.
    Parts(BTreeMap<u64, u64>),
}

impl Cargo {
    fn numbers(&self) -> Vec<u32> {
        match self {
            Self::Run(run) => run.iter().map(|frame| frame.want.number).collect(),
            Self::Parts(parts) => parts.keys().map(|n| FIRST_PART | *n as u32).collect(),
        }
    }

    fn permits(&self) -> u64 {
        match self {
            Self::Run(run) => {
                let sizes = run
                    .iter()
                    .map(|frame| frame.content_bytes().div_ceil(PERMIT_BYTES));
                sizes.sum()
            }
            Self::Parts(parts) => parts.len() as u64 * (FRAME_BYTES / PERMIT_BYTES),
        }
    }
}

/// Ends a load, also one that panics: its frames go into the memory, and no reader waits for it any
/// more.
struct Landing {
    loader: Arc<FrameLoader>,
    archive: Hash,
    numbers: Vec<u32>,
    loaded: Loaded,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut state = self.loader.state();
        for number in &self.numbers {
            let key = (self.archive, *number);
            state.flights.remove(&key);
            if let Some(Ok(content)) = self.loaded.get(number) {
                state.frames.put(key, content);
            }
        }
    }
}
