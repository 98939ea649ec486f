//! Push, prune, verify and sync over the same targets at the same time, one operation at a time, in an order that
//! a seed chooses; actors die at any operation and are started again. After every single operation each manifest
//! that is anywhere must have all that it names.
//!
//! A failure prints its seed and what happened in which order; `SEALIFT_TEST_SEED=N cargo nextest run --test
//! interleavings --no-capture` plays that one again.

#[path = "support/shelf.rs"]
mod shelf;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;
#[path = "support/turns.rs"]
mod turns;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use sealift::agent::{NamedTarget, PushRequest, Reporter, State, push};
use sealift::ids::{HostName, ObjectKey, Stamp};
use sealift::index::ValidationRecord;
use sealift::manifest::signature::{Signer, Trust};
use sealift::packer::seal::Recipients;
use sealift::packer::{PackOptions, PackProgress};
use sealift::prune::{PruneReport, PruneRequest};
use sealift::repository::HostFolder;
use sealift::restore::open::generate;
use sealift::retention::Policy;
use sealift::scrub;
use sealift::shipper::Watcher;
use sealift::shipper::sync::SyncRequest;
use sealift::snapshot::{Part, Snapshot};
use sealift::target::Target;
use sealift::walk::Filter;

use shelf::Shelf;
use tree::noise;
use turns::{Stage, Turned, Witness};

const HOST: &str = "dalidou";
/// As many files as archives of a push, of so many contents each: what was forgotten comes back.
const FILES: usize = 3;
const CONTENTS: usize = 3;

struct Silent;

impl Reporter for Silent {
    fn shipped(&self, _: &str, _: u64) {}
    fn stage(&self, _: &str) {}
}

impl Watcher for Silent {
    fn shipped(&self, _: &ObjectKey, _: u64) {}
}

/// What all plays begin with: a state directory, and what three pushes left on two targets.
struct Base {
    dir: tempfile::TempDir,
    recipients: Arc<Recipients>,
    signer: Signer,
    stamp: Stamp,
    shelves: [BTreeMap<String, Bytes>; 2],
}

impl Base {
    fn new() -> Self {
        let dir = scratch();
        let recipients = Recipients::load(&[generate().1], dir.path()).unwrap();
        let mut base = Self {
            recipients: recipients.into(),
            signer: Signer::generate("test").unwrap(),
            stamp: "20260407T060000Z".parse().unwrap(),
            shelves: [BTreeMap::new(), BTreeMap::new()],
            dir,
        };
        let shelves = [Shelf::new("near", None), Shelf::new("far", None)];
        for n in 0..3 {
            write_data(&base.dir.path().join("data"), |file| (file + n) % CONTENTS);
            let named = shelves
                .clone()
                .map(|shelf| named(&shelf.label().to_owned(), shelf));
            let pushed = base.push(base.dir.path(), base.stamp, &named);
            pushed.unwrap();
            base.stamp = base.stamp.next();
        }
        base.shelves = shelves.map(|shelf| shelf.objects());
        base
    }

    fn trust(&self) -> Trust {
        Trust::Key(self.signer.public_key().clone())
    }

    /// One push of `dir/data` with the state directory `dir/state`.
    fn push(&self, dir: &Path, stamp: Stamp, targets: &[NamedTarget]) -> Result<(), String> {
        let host = host();
        let snapshot = snapshot(dir.join("data"), stamp);
        let request = PushRequest {
            host: &host,
            snapshot: &snapshot,
            recipients: self.recipients.clone(),
            signer: &self.signer,
            next_signer: None,
            trust: self.trust(),
            targets,
            next_by: None,
            spool_limit: None,
            options: PackOptions {
                archive_bytes: 16 << 10,
                threads: 1,
                ..PackOptions::default()
            },
            recovery: Vec::new(),
        };
        let mut state = State::open(&dir.join("state")).map_err(|error| error.to_string())?;
        let progress = PackProgress::default();
        let report = push(&mut state, &request, &progress, Arc::new(Silent));
        let report = report.map_err(|error| format!("{error:?}"))?;
        match report.is_complete() {
            true => Ok(()),
            false => Err(format!("{:?}, {:?}", report.targets, report.warnings)),
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

fn named(name: &str, target: Arc<dyn Target>) -> NamedTarget {
    NamedTarget {
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

fn snapshot(data: PathBuf, stamp: Stamp) -> Snapshot {
    Snapshot {
        stamp,
        parts: vec![Part {
            to: Vec::new(),
            root: data,
            filter: Filter::everything(),
            staged: false,
        }],
        tags: Vec::new(),
        note: None,
        sources: Vec::new(),
        validation: ValidationRecord {
            valid: true,
            checked_at: stamp.time(),
            errors: Vec::new(),
        },
        databases: Vec::new(),
        skipped: Vec::new(),
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
    now: DateTime<Utc>,
}

const NEAR: usize = 0;
const FAR: usize = 1;

impl<'a> Play<'a> {
    fn new(base: &'a Base, seed: u64) -> Self {
        let dir = scratch();
        copy_dir(&base.dir.path().join("state"), &dir.path().join("state"));
        let now = base.stamp.time() + Duration::days(30);
        // In every other play all that no manifest names looks like a leftover, from its first moment on.
        let modified = (seed % 2 == 0).then_some(now - Duration::days(20));
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
            now,
        }
    }

    fn target(&self, actor: usize, shelf: usize) -> Arc<dyn Target> {
        Arc::new(Turned {
            inner: self.shelves[shelf].clone(),
            stage: self.stage.clone(),
            actor,
            witness: self.witness.clone(),
        })
    }

    fn folder(&self, actor: usize, shelf: usize) -> HostFolder {
        HostFolder::new(self.target(actor, shelf), host())
    }

    /// The host: two backups, of contents that it had before, or not.
    fn host(&self, actor: usize) -> Result<(), String> {
        let mut done = Ok(());
        for n in 0..2 {
            let shift = self.stage.roll(CONTENTS);
            write_data(&self.dir.path().join("data"), |file| {
                (file * n + shift) % CONTENTS
            });
            let targets = [NEAR, FAR].map(|at| {
                let target = self.target(actor, at);
                named(&target.label().to_owned(), target)
            });
            let stamp = (0..=n).fold(self.base.stamp, |stamp, _| stamp.next());
            done = self.base.push(self.dir.path(), stamp, &targets);
            self.stage.note(format!("{actor}: pushed: {done:?}"));
        }
        done
    }

    /// Somebody with the right to delete, on another machine.
    fn prune(&self, actor: usize, shelf: usize) -> Result<PruneReport, String> {
        let request = PruneRequest {
            folder: self.folder(actor, shelf),
            trust: self.base.trust(),
            policy: Policy {
                last: 1,
                ..Policy::default()
            },
            now: self.now,
            pins: Default::default(),
            gone: false,
            confirmed: true,
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
            scratch: scratch.path().to_owned(),
            concurrency: 2,
        };
        let done = runtime().block_on(async {
            let plan = request.plan(&self.base.trust(), &[]).await?;
            request.run(plan, &Silent).await
        });
        self.stage.note(format!("{actor}: synced: {done:?}"));
        done.map(drop).map_err(|error| format!("{error:?}"))
    }

    fn verify(&self, actor: usize, shelf: usize) -> Result<Vec<String>, String> {
        let (folder, trust) = (self.folder(actor, shelf), self.base.trust());
        let done = runtime().block_on(scrub::examine(&folder, &trust, &[], self.now));
        let problems = done.map(|examined| {
            let problems = examined.problems.iter();
            problems.map(ToString::to_string).collect::<Vec<_>>()
        });
        self.stage.note(format!("{actor}: verified: {problems:?}"));
        problems.map_err(|error| format!("{error:?}"))
    }

    fn act(&self, actor: usize) {
        match actor {
            0 => drop(self.host(actor)),
            1 => {
                for _ in 0..3 {
                    drop(self.prune(actor, NEAR));
                }
            }
            2 => drop(self.sync(actor, FAR, NEAR)),
            3 => {
                if let Ok(problems) = self.verify(actor, NEAR)
                    && !problems.is_empty()
                {
                    let mut wrong = self.wrong.lock().unwrap();
                    wrong.extend(
                        problems
                            .into_iter()
                            .map(|what| format!("verify said: {what}")),
                    );
                }
            }
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
            let dies = self.seed % 3 == 0 && *actor == mortal;
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
        let alone = usize::MAX;
        let told = |what: &str, error: String| {
            self.wrong
                .lock()
                .unwrap()
                .push(format!("{what}, alone: {error}"));
        };
        self.stage.note("now one after the other".to_owned());
        for n in 3..6 {
            write_data(&self.dir.path().join("data"), |file| (file + n) % CONTENTS);
            let targets = [NEAR, FAR].map(|at| {
                let target = self.target(alone, at);
                named(&target.label().to_owned(), target)
            });
            let stamp = (0..=n).fold(self.base.stamp, |stamp, _| stamp.next());
            let pushed = self.base.push(self.dir.path(), stamp, &targets);
            // What an earlier run could not do may be told once more, by the first.
            if let (Err(error), true) = (pushed, n > 3) {
                told("push", error);
            }
            for shelf in [NEAR, FAR] {
                if let Err(error) = self.prune(alone, shelf) {
                    told("prune", error);
                }
                match self.verify(alone, shelf) {
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

#[test]
fn no_interleaving_publishes_what_is_not_there() {
    let base = Base::new();
    let asked_for = std::env::var("SEALIFT_TEST_SEED").ok();
    let (first, count) = match asked_for.and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => (seed, 1),
        None if std::env::var("SEALIFT_TEST_LONG").is_ok() => (0, 5000),
        None => (0, 120),
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
