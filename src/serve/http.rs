//! The agent over HTTP: its API, the admin API of AtoCore, metrics, and a page for people.
//!
//! A request goes through these steps ([`dispatch`]):
//!
//! 1. The name by which the client calls the agent ([`hosts`]).
//! 2. The route ([`routes`]).
//! 3. The token or the session ([`access`], [`sessions`], [`attempts`]).
//! 4. For a request that changes something: the site that sent it ([`cross_site`]), and its body.
//! 5. The operation.
//!
//! Every number of things is bounded: connections, streams of events, work on disk, sessions,
//! remembered addresses. There is no route that restores, that changes the configuration, or that
//! shows the content of a snapshot.

pub(crate) mod access;
mod admin;
mod answer;
mod api;
mod attempts;
mod blocking;
mod body;
mod call;
mod client;
mod connection;
mod cross_site;
mod dispatch;
mod events;
pub(crate) mod facts;
mod follow;
mod hosts;
pub(crate) mod listeners;
mod pages;
mod port_owner;
mod problem;
mod quiet_front;
mod routes;
mod sessions;
mod style;
#[cfg(test)]
mod tests;
mod timed_stream;
mod token_check;
mod typed_body;
mod views;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use self::blocking::BlockingWork;
use self::events::EventRing;
use self::sessions::Sessions;
use super::handle::{AgentHandle, AgentState};
use crate::base::lock::lock;
use crate::config::Config;

pub(crate) use access::AccessTokens;
pub(crate) use facts::HostFacts;
pub(crate) use listeners::HttpListener;

/// Connections that are served at a time.
const CONNECTIONS: usize = 256;
/// Clients without a place that get an answer at a time.
const REFUSALS: usize = 32;
/// Streams of events at a time.
const STREAMS: usize = 32;
/// Requests that read the disk at a time.
const DISK_READERS: usize = 8;
/// Checks of whole snapshots at a time.
const VALIDATIONS: usize = 1;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientLimits {
    /// For the line and the headers of a request.
    pub(crate) headers: Duration,
    /// For a body.
    pub(crate) body: Duration,
    /// To take a part of an answer.
    pub(crate) write: Duration,
    /// Until a stream of events that has nothing to say sends a comment.
    pub(crate) comment: Duration,
    /// Until a stream of events ends.
    pub(crate) stream: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(10),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            comment: Duration::from_secs(20),
            stream: Duration::from_secs(3600),
        }
    }
}

/// The places that requests take.
#[derive(Debug)]
struct Places {
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// The tokens, and the configuration that named them.
#[derive(Debug)]
struct LoadedAccess {
    config: Arc<Config>,
    tokens: AccessTokens,
}

/// What all requests share.
struct HttpParts {
    handle: AgentHandle,
    facts: Arc<dyn HostFacts>,
    limits: ClientLimits,
    access: Mutex<LoadedAccess>,
    sessions: Sessions,
    attempts: attempts::FailedAttempts,
    events: EventRing,
    places: Places,
    disk: BlockingWork,
    /// What changes files of the state directory, one after another.
    changes: BlockingWork,
    validations: BlockingWork,
}

impl HttpParts {
    /// Returns the scheduler's newest state.
    fn state(&self) -> AgentState {
        self.handle.state.borrow().clone()
    }

    /// Returns the tokens of `config`. Those of a new configuration are read once; if they cannot
    /// be read, the ones before stay.
    async fn tokens(&self, config: &Arc<Config>) -> AccessTokens {
        let known = {
            let access = lock(&self.access);
            match Arc::ptr_eq(&access.config, config) {
                true => return access.tokens,
                false => access.tokens,
            }
        };
        let wanted = Arc::clone(config);
        let load = move || Ok(AccessTokens::load(&wanted.serve).ok());
        let loaded = self.disk.run(load).await.ok().flatten();
        let tokens = loaded.unwrap_or(known);
        if tokens != known {
            self.sessions.close_all();
        }
        *lock(&self.access) = LoadedAccess {
            config: Arc::clone(config),
            tokens,
        };
        tokens
    }
}

/// The HTTP part of the agent. It keeps sessions and events while listeners come and go.
#[derive(Clone)]
pub(crate) struct HttpService(Arc<HttpParts>);

impl HttpService {
    /// Begins to collect events. Call it within the runtime that serves. `tokens` are those of the
    /// configuration that `handle` holds now. Fails if the system has no random numbers.
    pub(crate) fn start(
        handle: AgentHandle,
        tokens: AccessTokens,
        facts: Arc<dyn HostFacts>,
        limits: ClientLimits,
    ) -> Result<Self, getrandom::Error> {
        let config = Arc::clone(&handle.state.borrow().config);
        let happened = handle.events.subscribe();
        let parts = Arc::new(HttpParts {
            handle,
            facts,
            limits,
            access: Mutex::new(LoadedAccess { config, tokens }),
            sessions: Sessions::new()?,
            attempts: attempts::FailedAttempts::default(),
            events: EventRing::new(),
            places: Places {
                connections: Arc::new(Semaphore::new(CONNECTIONS)),
                refusals: Arc::new(Semaphore::new(REFUSALS)),
                streams: Arc::new(Semaphore::new(STREAMS)),
            },
            disk: BlockingWork::new(DISK_READERS),
            changes: BlockingWork::new(1),
            validations: BlockingWork::new(VALIDATIONS),
        });
        tokio::spawn(follow::collect(Arc::downgrade(&parts), happened));
        Ok(Self(parts))
    }
}

/// Waits until `shutdown` is true, or its sender is gone.
async fn is_over(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|is_over| *is_over).await;
}

/// Serves on `listeners` until `shutdown` is true, and then until the open connections have ended,
/// for some seconds at most.
pub(crate) async fn serve(
    service: HttpService,
    listeners: Vec<HttpListener>,
    shutdown: watch::Receiver<bool>,
) {
    let accepting = listeners
        .into_iter()
        .map(|listener| connection::accept(Arc::clone(&service.0), listener, shutdown.clone()));
    futures::future::join_all(accepting).await;
}
