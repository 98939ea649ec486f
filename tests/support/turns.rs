//! A scheduler for operations on targets: of all that wait, one at a time is let through, chosen by a seed. What
//! the actors do between two operations is theirs; what a target sees of them is one interleaving of many.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use sealift::storage::{Body, ErrorKind, Listed, PutMode, PutOutcome, Storage, TargetError};
use tokio::sync::oneshot;

use super::random::Random;

/// An actor that waits this long for its turn shows that the scheduler, or an actor, hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What looks on after each operation: its name, its key, and whether it did something.
pub type Witness = Box<dyn Fn(&str, &str) + Send + Sync>;

struct Waiting {
    number: usize,
    actor: usize,
    what: String,
    go: oneshot::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    /// Actors that have begun and not ended, and how many of their operations are under way or wait.
    live: BTreeMap<usize, usize>,
    waiting: Vec<Waiting>,
    /// Of the newest that ever waited.
    number: usize,
    /// One was let through and has not come back.
    busy: bool,
    random: Random,
    /// Turns until an actor dies: all that it asks for from then on fails.
    lifetimes: BTreeMap<usize, usize>,
    turns: usize,
    /// What happened, in order.
    log: Vec<String>,
}

/// Who may do the next operation.
#[derive(Default)]
pub struct Stage {
    inner: Mutex<Inner>,
}

impl Stage {
    pub fn new(seed: u64) -> Arc<Self> {
        let stage = Self::default();
        stage.inner.lock().unwrap().random = Random::new(seed);
        Arc::new(stage)
    }

    /// Announces `actor`: no actor gets a turn before each actor that was announced waits for one.
    pub fn enter(&self, actor: usize, lifetime: Option<usize>) {
        let mut inner = self.inner.lock().unwrap();
        inner.live.insert(actor, 0);
        if let Some(turns) = lifetime {
            inner.lifetimes.insert(actor, turns);
        }
    }

    pub fn leave(&self, actor: usize) {
        let mut inner = self.inner.lock().unwrap();
        inner.live.remove(&actor);
        inner.lifetimes.remove(&actor);
        inner.next();
    }

    pub fn turns(&self) -> usize {
        self.inner.lock().unwrap().turns
    }

    /// A number below `n`.
    pub fn roll(&self, n: usize) -> usize {
        self.inner.lock().unwrap().roll(n)
    }

    pub fn note(&self, what: String) {
        self.inner.lock().unwrap().log.push(what);
    }

    pub fn log(&self) -> Vec<String> {
        self.inner.lock().unwrap().log.clone()
    }

    /// Waits for a turn, which lasts until it is dropped. `None`: an actor that was not announced takes no part.
    async fn turn(&self, actor: usize, what: String) -> Option<Turn<'_>> {
        let (go, gone) = oneshot::channel();
        let number = {
            let mut inner = self.inner.lock().unwrap();
            *inner.live.get_mut(&actor)? += 1;
            inner.number += 1;
            let number = inner.number;
            inner.waiting.push(Waiting {
                number,
                actor,
                what,
                go,
            });
            inner.next();
            number
        };
        let mut turn = Turn {
            stage: self,
            actor,
            number,
            alive: false,
        };
        match tokio::time::timeout(PATIENCE, gone).await {
            Ok(Ok(alive)) => turn.alive = alive,
            _ => panic!("no actor moves: {:#?}", self.log()),
        }
        Some(turn)
    }
}

/// An operation that waits for its turn, or has it; given up where it is dropped.
struct Turn<'a> {
    stage: &'a Stage,
    actor: usize,
    number: usize,
    alive: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Ok(mut inner) = self.stage.inner.lock() else {
            return;
        };
        let waiting = inner.waiting.len();
        inner.waiting.retain(|one| one.number != self.number);
        if inner.waiting.len() == waiting {
            inner.busy = false;
        }
        if let Some(count) = inner.live.get_mut(&self.actor) {
            *count -= 1;
        }
        inner.next();
    }
}

impl Inner {
    fn roll(&mut self, n: usize) -> usize {
        self.random.below(n.max(1))
    }

    /// Lets one through if all are there.
    fn next(&mut self) {
        if self.busy || self.waiting.is_empty() || self.live.values().any(|count| *count == 0) {
            return;
        }
        self.waiting
            .sort_by(|a, b| (a.actor, &a.what).cmp(&(b.actor, &b.what)));
        // An actor first, then one of its operations: one that does eight at once is not eight times as fast.
        let mut actors: Vec<usize> = self.waiting.iter().map(|one| one.actor).collect();
        actors.dedup();
        let actor = actors[self.roll(actors.len())];
        let its: Vec<usize> = (0..self.waiting.len())
            .filter(|n| self.waiting[*n].actor == actor)
            .collect();
        let chosen = its[self.roll(its.len())];
        let chosen = self.waiting.remove(chosen);
        let alive = match self.lifetimes.get_mut(&actor) {
            Some(0) => false,
            Some(turns) => {
                *turns -= 1;
                true
            }
            None => true,
        };
        self.turns += 1;
        let died = if alive { "" } else { " (dead)" };
        self.log.push(format!("{actor}: {}{died}", chosen.what));
        self.busy = true;
        // Its turn ends when it is dropped, taken or not.
        let _ = chosen.go.send(alive);
    }
}

/// A target as one actor has it.
pub struct Turned {
    pub inner: Arc<dyn Storage>,
    pub stage: Arc<Stage>,
    pub actor: usize,
    pub witness: Arc<Witness>,
    pub gate: Option<Arc<Gate>>,
}

/// Holds an actor up before its nth operation, from 0, until it is opened.
#[derive(Debug)]
pub struct Gate {
    nth: usize,
    calls: Mutex<usize>,
    reached: Mutex<mpsc::Sender<()>>,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Also gives where it tells that it was reached.
    pub fn new(nth: usize) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (reached, hears) = mpsc::channel();
        let gate = Self {
            nth,
            calls: Mutex::default(),
            reached: Mutex::new(reached),
            is_open: Mutex::default(),
            opened: Condvar::new(),
        };
        (Arc::new(gate), hears)
    }

    pub fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls - 1
        };
        if number == self.nth {
            self.reached.lock().unwrap().send(()).unwrap();
            let is_open = self.is_open.lock().unwrap();
            drop(self.opened.wait_while(is_open, |open| !*open).unwrap());
        }
    }
}

impl std::fmt::Debug for Turned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} for actor {}", self.inner, self.actor)
    }
}

impl Turned {
    async fn take<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, TargetError>>,
    ) -> Result<T, TargetError> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        let what = format!("{operation} {key} on {}", self.label());
        let turn = self.stage.turn(self.actor, what).await;
        let outcome = match turn.as_ref().is_none_or(|turn| turn.alive) {
            true => work.await,
            false => Err(TargetError {
                operation,
                key: key.to_owned(),
                target: self.label().to_owned(),
                kind: ErrorKind::Unavailable,
                source: "its actor died".into(),
            }),
        };
        if outcome.is_ok() {
            (self.witness)(operation, key);
        }
        drop(turn);
        outcome
    }
}

#[async_trait::async_trait]
impl Storage for Turned {
    fn label(&self) -> &str {
        self.inner.label()
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        self.take("list", prefix, self.inner.list(prefix)).await
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        self.take("list", "/", self.inner.list_folders()).await
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        self.take("put", key, self.inner.put(key, body, mode)).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        self.take("get", key, self.inner.get(key, limit)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        self.take("get", key, self.inner.get_range(key, range))
            .await
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        self.take("get", key, self.inner.stream(key, offset)).await
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.take("delete", key, self.inner.delete(key)).await
    }
}
