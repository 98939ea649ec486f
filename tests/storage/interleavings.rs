//! Push, prune, verify and sync over the same targets at the same time, one operation at a time, in an order that
//! a seed chooses; actors die at any operation and are started again. After every single operation each manifest
//! that is anywhere must have all that it names.
//!
//! A failure prints its seed and what happened in which order; `SEALIFT_TEST_SEED=N cargo nextest run --test storage
//! interleavings --no-capture` plays that one again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::ScopedJoinHandle;

use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use sealift::base::ids::{HostName, Stamp};
use sealift::base::progress::{Progress, ProgressEvent, Silent};
use sealift::format::chain::Finding;
use sealift::format::signature::{Signer, Trust};
use sealift::jobs::push::PushReport;
use sealift::jobs::push::PushRequest;
use sealift::jobs::push::Target;
use sealift::jobs::push::push;
use sealift::packer::PackOptions;
use sealift::packer::seal::Recipients;
use sealift::prune::{PruneReport, PruneRequest};
use sealift::repository::HostFolder;
use sealift::restore::open::generate;
use sealift::retention::Policy;
use sealift::scrub;
use sealift::shipper::sync::SyncRequest;
use sealift::storage::Storage;

use crate::support::is_long;
use crate::support::live_snapshot::snapshot;
use crate::support::memory_target::Shelf;
use crate::support::open_state;
use crate::support::tree::noise;
use crate::support::turns::{Gate, Stage, Turned, Witness};
use crate::support::watched_target::{Fault, Watched};

const HOST: &str = "dalidou";
/// As many files as archives of a push, with this number of contents each: what was forgotten comes back.
const FILES: usize = 3;
const CONTENTS: usize = 3;

/// What all plays begin with: a state directory, and what three pushes left on two targets.
struct Base {
    dir: tempfile::TempDir,
    recipients: Arc<Recipients>,
    signer: Signer,
    stamp: Stamp,
    past: Past,
    shelves: [BTreeMap<String, Bytes>; 2],
}

/// What the near target had of the three.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Past {
    Whole,
    /// It could not be reached for the last two: the host brings it what it lacks.
    Away,
    /// It is new: only a sync brings it the first two, which need much of what the third needs.
    Seeded,
}

impl Base {
    fn new(past: Past) -> Self {
        let dir = scratch();
        let recipients = Recipients::load(&[generate().1], dir.path()).unwrap();
        let mut base = Self {
            recipients: recipients.into(),
            signer: Signer::generate("test").unwrap(),
            stamp: "20260407T060000Z".parse().unwrap(),
            past,
            shelves: [BTreeMap::new(), BTreeMap::new()],
            dir,
        };
        let shelves = [Shelf::new("near", None), Shelf::new("far", None)];
        for n in 0..3 {
            write_data(&base.dir.path().join("data"), |file| usize::from(file < n));
            let fault = match past == Past::Away && n > 0 {
                true => Fault::From(0),
                false => Fault::None,
            };
            let near = Watched::new(shelves[NEAR].clone(), fault);
            let targets = [named("near", near), named("far", shelves[FAR].clone())];
            let first = usize::from(past == Past::Seeded && n < 2);
            let pushed = base.push(base.dir.path(), base.stamp, &targets[first..]);
            assert_eq!(pushed.is_ok(), fault == Fault::None, "{pushed:?}");
            base.stamp = base.stamp.next();
        }
        base.shelves = shelves.map(|shelf| shelf.objects());
        base
    }

    fn trust(&self) -> Trust {
        Trust::Key(self.signer.public_key().clone())
    }

    /// One push of `dir/data` with the state directory `dir/state`.
    fn push(&self, dir: &Path, stamp: Stamp, targets: &[Target]) -> Result<(), String> {
        let host = host();
        let snapshot = snapshot(dir.join("data"), stamp);
        let request = PushRequest {
            host: &host,
            snapshot: &snapshot,
            recipients: self.recipients.clone(),
            signer: &self.signer,
            signer_is_listed: true,
            next_signer: None,
            trust: self.trust(),
            targets,
            next_by: None,
            spool_limit: None,
            resealing: Default::default(),
            options: PackOptions {
                archive_bytes: 16 << 10,
                threads: 1,
                ..PackOptions::default()
            },
            recovery: Vec::new(),
        };
        let mut state = open_state(&dir.join("state"))?;
        let sums = Arc::new(Sums::default());
        let report = push(&mut state, &request, sums.clone());
        let report = report.map_err(|error| format!("{error:?}"))?;
        sums.require_those_of(&report)?;
        match report.is_complete() {
            true => Ok(()),
            false => Err(format!("{:?}, {:?}", report.targets, report.warnings)),
        }
    }
}

/// Adds up what the progress of a push says.
#[derive(Default)]
struct Sums {
    shipped: Mutex<HashMap<String, u64>>,
    in_flight: AtomicI64,
}

impl Progress for Sums {
    fn report(&self, event: &ProgressEvent<'_>) {
        match event {
            ProgressEvent::BytesShipped { target, bytes } => {
                *self
                    .shipped
                    .lock()
                    .unwrap()
                    .entry((*target).to_owned())
                    .or_default() += bytes;
            }
            ProgressEvent::BytesInFlight { change, .. } => {
                self.in_flight.fetch_add(*change, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

impl Sums {
    /// The sums are the report's, and nothing is left in flight.
    fn require_those_of(&self, report: &PushReport) -> Result<(), String> {
        let shipped = self.shipped.lock().unwrap();
        for target in &report.targets {
            let sum = shipped.get(&target.name).copied().unwrap_or(0);
            if sum != target.shipped_bytes {
                return Err(format!(
                    "{}: progress says {sum}, the report {}",
                    target.name, target.shipped_bytes
                ));
            }
        }
        match self.in_flight.load(Ordering::SeqCst) {
            0 => Ok(()),
            left => Err(format!("{left} bytes are left in flight")),
        }
    }
}

fn scratch() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    dir.unwrap()
}

fn host() -> HostName {
    HOST.parse().unwrap()
}

fn named(name: &str, target: Arc<dyn Storage>) -> Target {
    Target {
        name: name.to_owned(),
        target,
        concurrency: 2,
        write_only: false,
    }
}

fn write_data(data: &Path, content: impl Fn(usize) -> usize) {
    fs::create_dir_all(data).unwrap();
    for file in 0..FILES {
        let seed = (file * CONTENTS + content(file)) as u64;
        fs::write(data.join(format!("file-{file}")), noise(seed, 17_000)).unwrap();
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// One interleaving.
struct Play<'a> {
    base: &'a Base,
    seed: u64,
    dir: tempfile::TempDir,
    stage: Arc<Stage>,
    shelves: [Arc<Shelf>; 2],
    witness: Arc<Witness>,
    wrong: Arc<Mutex<Vec<String>>>,
    /// Actors that are held up, and where.
    gates: Vec<(usize, Arc<Gate>)>,
    now: DateTime<Utc>,
}

/// No turn: actors that are not announced.
const ALONE: usize = 100;
const PAUSED: usize = 101;
const PAUSED_TOO: usize = 102;

const NEAR: usize = 0;
const FAR: usize = 1;

impl<'a> Play<'a> {
    fn new(base: &'a Base, seed: u64) -> Self {
        let dir = scratch();
        copy_dir(&base.dir.path().join("state"), &dir.path().join("state"));
        let now = base.stamp.time() + Duration::days(30);
        // In every other play each archive that no manifest names looks like a leftover, from its first moment on.
        let modified = (seed.is_multiple_of(2)).then_some(now - Duration::days(20));
        let shelf =
            |name: &str, at: usize| Shelf::holding(name, modified, base.shelves[at].clone());
        let shelves = [shelf("near", NEAR), shelf("far", FAR)];
        let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, looked_at) = (wrong.clone(), shelves.clone());
        let witness: Witness = Box::new(move |operation, _| {
            if operation == "put" || operation == "delete" {
                for shelf in &looked_at {
                    seen.lock().unwrap().extend(shelf.look(HOST).1);
                }
            }
        });
        Self {
            base,
            seed,
            dir,
            stage: Stage::new(seed + 1),
            shelves,
            witness: Arc::new(witness),
            wrong,
            gates: Vec::new(),
            now,
        }
    }

    /// Holds `actor` up before its nth operation; gives what lets it go on, and where it tells that it is there.
    fn hold_up(&mut self, actor: usize, nth: usize) -> (Arc<Gate>, Receiver<()>) {
        let (gate, reached) = Gate::new(nth);
        self.gates.push((actor, gate.clone()));
        (gate, reached)
    }

    fn target(&self, actor: usize, shelf: usize) -> Arc<dyn Storage> {
        Arc::new(Turned {
            inner: self.shelves[shelf].clone(),
            stage: self.stage.clone(),
            actor,
            witness: self.witness.clone(),
            gate: {
                let mut gates = self.gates.iter();
                let its = gates.find(|(held_up, _)| *held_up == actor);
                its.map(|(_, gate)| gate.clone())
            },
        })
    }

    fn folder(&self, actor: usize, shelf: usize) -> HostFolder {
        HostFolder::new(self.target(actor, shelf), host())
    }

    /// The host's nth backup, of contents that it had before, or not.
    fn push(&self, actor: usize, n: usize) -> Result<(), String> {
        let shift = self.stage.roll(CONTENTS);
        write_data(&self.dir.path().join("data"), |file| {
            (file * n + shift) % CONTENTS
        });
        let targets = [NEAR, FAR].map(|at| {
            let target = self.target(actor, at);
            named(self.shelves[at].label(), target)
        });
        let stamp = (0..=n).fold(self.base.stamp, |stamp, _| stamp.next());
        let done = self.base.push(self.dir.path(), stamp, &targets);
        self.stage.note(format!("{actor}: pushed: {done:?}"));
        done
    }

    /// An operator with the right to delete, on another machine.
    fn prune(&self, actor: usize, shelf: usize) -> Result<PruneReport, String> {
        let request = PruneRequest {
            folder: self.folder(actor, shelf),
            trust: self.base.trust(),
            policy: Policy {
                last: 1,
                ..Policy::default()
            },
            forget: Vec::new(),
            now: self.now,
            tags: Default::default(),
            pins: Default::default(),
            gone: false,
            confirmed: true,
            recovery: Vec::new(),
        };
        let done = runtime().block_on(async {
            let plan = request.plan().await?;
            request.run(&plan, &self.base.signer).await
        });
        self.stage.note(format!("{actor}: pruned: {done:?}"));
        done.map_err(|error| format!("{error:?}"))
    }

    fn sync(&self, actor: usize, from: usize, to: usize) -> Result<(), String> {
        let scratch = scratch();
        let request = SyncRequest {
            from: self.folder(actor, from),
            to: self.folder(actor, to),
            trust: self.base.trust(),
            scratch: scratch.path().to_owned(),
            concurrency: 2,
        };
        let done = runtime().block_on(async {
            let plan = request.plan(&[]).await?;
            request.run(plan, &Silent::shared()).await
        });
        self.stage.note(format!("{actor}: synced: {done:?}"));
        done.map(drop).map_err(|error| format!("{error:?}"))
    }

    fn verify(&self, actor: usize, shelf: usize) -> Result<Vec<String>, String> {
        let (folder, trust) = (self.folder(actor, shelf), self.base.trust());
        let done = runtime().block_on(scrub::examine(&folder, &trust, &[], self.now));
        // A new target never had the first ones, as only the host knows.
        let is_known = |what: &String| {
            self.base.past == Past::Seeded && what.contains("its manifest is missing")
        };
        let problems = done.map(|examined| {
            let problems = examined.problems.iter().map(ToString::to_string);
            problems.filter(|what| !is_known(what)).collect::<Vec<_>>()
        });
        self.stage.note(format!("{actor}: verified: {problems:?}"));
        problems.map_err(|error| format!("{error:?}"))
    }

    /// Whatever goes on meanwhile: nothing is wrong.
    fn verify_all(&self, actor: usize) {
        if let Ok(problems) = self.verify(actor, NEAR) {
            let mut wrong = self.wrong.lock().unwrap();
            let said = problems.iter().map(|what| format!("verify said: {what}"));
            wrong.extend(said);
        }
    }

    /// Backups, each followed by a prune that lets go of all but the newest. The state directory can be held by
    /// another operator: then prunes only.
    fn weeks(&self, can_push: bool) {
        for n in 1..4 {
            drop(self.prune(ALONE, NEAR));
            if can_push {
                drop(self.push(ALONE, n));
            }
        }
        drop(self.prune(ALONE, NEAR));
        drop(self.prune(ALONE, FAR));
    }

    fn act(&self, actor: usize) {
        match actor {
            0 => {
                for n in 0..3 {
                    drop(self.push(actor, n));
                }
            }
            1 => {
                for _ in 0..4 {
                    drop(self.prune(actor, NEAR));
                }
            }
            2 => {
                for _ in 0..2 {
                    drop(self.sync(actor, FAR, NEAR));
                }
            }
            3 => self.verify_all(actor),
            _ => {
                for _ in 0..2 {
                    drop(self.prune(actor, FAR));
                }
            }
        }
    }

    /// All at once; some of them die on the way, and are started again once the others have ended.
    fn run(&self) {
        let actors: Vec<usize> = (0..5)
            .filter(|n| *n < 2 || self.stage.roll(2) == 0)
            .collect();
        let mortal = actors[self.stage.roll(actors.len())];
        let lifetime = self.stage.roll(60);
        for actor in &actors {
            let dies = self.seed.is_multiple_of(3) && *actor == mortal;
            self.stage.enter(*actor, dies.then_some(lifetime));
        }
        std::thread::scope(|scope| {
            for actor in actors {
                scope.spawn(move || {
                    self.act(actor);
                    self.stage.leave(actor);
                });
            }
        });
    }

    /// Alone, one after the other, everything works, and nothing is left.
    fn converges(&self) {
        let told = |what: &str, error: String| {
            self.wrong
                .lock()
                .unwrap()
                .push(format!("{what}, alone: {error}"));
        };
        self.stage.note("now one after the other".to_owned());
        for n in 4..7 {
            // What an earlier run could not do may be reported once more, by the first.
            if let (Err(error), true) = (self.push(ALONE, n), n > 4) {
                told("push", error);
            }
            for shelf in [NEAR, FAR] {
                if let Err(error) = self.prune(ALONE, shelf) {
                    told("prune", error);
                }
                match self.verify(ALONE, shelf) {
                    Ok(problems) if problems.is_empty() => {}
                    other => told("verify", format!("{other:?}")),
                }
            }
        }
        for shelf in &self.shelves {
            let (names, wrong) = shelf.look(HOST);
            self.wrong.lock().unwrap().extend(wrong);
            if names.len() != 1 {
                told("prune", format!("it left {names:?}"));
            }
        }
    }

    fn end(self) -> usize {
        let wrong = self.wrong.lock().unwrap();
        if !wrong.is_empty() {
            let log = self.stage.log().join("\n");
            panic!("seed {}: {wrong:#?}\n{log}", self.seed);
        }
        self.stage.turns()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn play_all(past: Past) {
    let base = Base::new(past);
    let asked_for = std::env::var("SEALIFT_TEST_SEED").ok();
    let (first, count) = match asked_for.and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => (seed, 1),
        None if is_long() => (0, 300),
        None => (0, 20),
    };
    let mut turns = 0;
    for seed in first..first + count {
        let play = Play::new(&base, seed);
        play.run();
        play.converges();
        turns += play.end();
    }
    println!("{count} interleavings, {turns} operations that took turns");
}

#[test]
fn no_interleaving_publishes_what_is_not_there() {
    play_all(Past::Whole);
}

#[test]
fn nor_does_one_where_a_target_was_away() {
    play_all(Past::Away);
}

#[test]
fn nor_does_one_where_a_target_is_new() {
    play_all(Past::Seeded);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Push,
    Prune,
    Verify,
    Sync,
}

/// Waits until a thread is held up; false: it came to its end.
fn comes_to<T>(reached: &Receiver<()>, thread: &ScopedJoinHandle<'_, T>) -> bool {
    while !thread.is_finished() {
        if reached
            .recv_timeout(std::time::Duration::from_millis(5))
            .is_ok()
        {
            return true;
        }
    }
    reached.try_recv().is_ok()
}

/// Between any two operations of one actor as much happens as else in weeks: what it saw is not so any more.
fn weeks_pass_during(kind: Kind) {
    let base = Base::new(match kind {
        Kind::Prune | Kind::Verify => Past::Whole,
        Kind::Push => Past::Away,
        Kind::Sync => Past::Seeded,
    });
    let stride = match is_long() {
        true => 1,
        false => 6,
    };
    let mut points = 0;
    for nth in (0..).step_by(stride) {
        let mut play = Play::new(&base, 2 * nth as u64);
        if kind == Kind::Prune {
            // So that it has something to sweep.
            play.prune(ALONE, NEAR).unwrap();
            play.push(ALONE, 0).unwrap();
        }
        let (gate, reached) = play.hold_up(PAUSED, nth);
        let was_reached = std::thread::scope(|scope| {
            let play = &play;
            let held_up = scope.spawn(move || match kind {
                Kind::Push => drop(play.push(PAUSED, 0)),
                // A manifest that goes while it looks is none that cannot be believed.
                Kind::Prune => match play.prune(PAUSED, NEAR) {
                    Err(error) if !error.contains("Changed") => panic!("{error}"),
                    _ => {}
                },
                Kind::Sync => drop(play.sync(PAUSED, FAR, NEAR)),
                Kind::Verify => play.verify_all(PAUSED),
            });
            let was_reached = comes_to(&reached, &held_up);
            if was_reached {
                play.weeks(kind != Kind::Push);
                gate.open();
            }
            was_reached
        });
        play.converges();
        play.end();
        if !was_reached {
            break;
        }
        points += 1;
    }
    println!("{kind:?}: weeks pass at {points} points");
    assert!(points > 2);
}

#[test]
fn weeks_may_pass_during_a_push() {
    weeks_pass_during(Kind::Push);
}

#[test]
fn weeks_may_pass_during_a_prune() {
    weeks_pass_during(Kind::Prune);
}

#[test]
fn weeks_may_pass_during_a_verify() {
    weeks_pass_during(Kind::Verify);
}

#[test]
fn weeks_may_pass_during_a_sync() {
    weeks_pass_during(Kind::Sync);
}

/// A sync is held up anywhere; then archives that it leans on are marked, and a backup takes notice; then the prune
/// that would delete them is held up anywhere, and the sync goes on first. Whichever looks last sees the other.
#[test]
fn a_prune_and_a_sync_wait_for_each_other() {
    let base = Base::new(Past::Seeded);
    let (stride, other_stride) = match is_long() {
        true => (1, 1),
        false => (7, 5),
    };
    let mut points = 0;
    'places: for nth in (0..).step_by(stride) {
        for other in (0..).step_by(other_stride) {
            let mut play = Play::new(&base, (100 * nth + other) as u64);
            let (sync_gate, sync_is_there) = play.hold_up(PAUSED, nth);
            let (prune_gate, prune_is_there) = play.hold_up(PAUSED_TOO, other);
            let (sync_came, prune_came) = std::thread::scope(|scope| {
                let play = &play;
                let sync = scope.spawn(|| play.sync(PAUSED, FAR, NEAR));
                let sync_came = comes_to(&sync_is_there, &sync);
                drop(play.push(ALONE, 0));
                drop(play.prune(ALONE, NEAR));
                drop(play.push(ALONE, 1));
                let prune = scope.spawn(|| play.prune(PAUSED_TOO, NEAR));
                let prune_came = comes_to(&prune_is_there, &prune);
                sync_gate.open();
                let _ = sync.join().unwrap();
                prune_gate.open();
                let _ = prune.join().unwrap();
                (sync_came, prune_came)
            });
            play.converges();
            play.end();
            points += 1;
            if !sync_came {
                break 'places;
            }
            if !prune_came {
                break;
            }
        }
    }
    println!("a sync and a prune are held up at {points} pairs of places");
    assert!(points > 10);
}

/// Who lists, restores or pushes reads manifests while a prune deletes some: none of them is refused for that.
#[test]
fn a_manifest_that_goes_while_it_is_read_is_not_refused() {
    let base = Base::new(Past::Whole);
    let mut points = 0;
    for nth in 0.. {
        let mut play = Play::new(&base, nth as u64);
        let (gate, reached) = play.hold_up(PAUSED, nth);
        let folder = play.folder(PAUSED, NEAR);
        let findings = std::thread::scope(|scope| {
            let trust = base.trust();
            let reads = scope.spawn(move || {
                let chain = runtime().block_on(folder.chain(&trust)).unwrap();
                chain.findings
            });
            if comes_to(&reached, &reads) {
                points += 1;
                play.prune(ALONE, NEAR).unwrap();
                gate.open();
            }
            reads.join().unwrap()
        });
        let refused = findings
            .iter()
            .find(|finding| matches!(finding, Finding::Refused(..)));
        assert!(refused.is_none(), "before operation {nth}: {refused:?}");
        if points <= nth {
            break;
        }
    }
    assert!(points > 4);
}
