//! The agent as a process: its lock, its queue, and the loop around the scheduler.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use super::after_change::Aftermath;
use super::calendar;
use super::handle::{AgentHandle, AgentState};
use super::http::access::TokenError;
use super::http::listeners::{self, ListenError};
use super::http::{self, AccessTokens, ClientLimits, HttpListener, HttpService};
use super::log::AgentLog;
use super::own_facts::OwnFacts;
use super::scheduler::{Scheduler, SchedulerLinks};
use super::signals;
use super::timers::{self, WakeTimer};
use super::wake::{Wake, Waker};
use crate::config::{Config, ListenAddress};
use crate::state::history::{History, OperatorMark};
use crate::state::serve_lock::{ServeLock, ServeLockError};

pub(crate) use super::scheduler::ServeMode;

/// Wakes that wait for the scheduler.
const MOST_WAKES: usize = 256;
/// Commands that wait for the scheduler.
const MOST_COMMANDS: usize = 16;
/// Events that a slow follower may be behind.
const MOST_EVENTS: usize = 256;
/// How long open connections are waited for at the end.
const HTTP_END: Duration = Duration::from_secs(5);
/// Stack of a thread: it waits for the most part.
const STACK: usize = 1 << 20;

/// How to serve.
#[derive(Debug)]
pub(crate) struct ServeRequest {
    /// The configuration file as the operator named it. `None`: it is looked for.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) mode: ServeMode,
    /// Addresses to listen on, instead of those of the configuration.
    pub(crate) listen: Vec<String>,
}

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// Another agent does.
    #[error(transparent)]
    Lock(#[from] ServeLockError),
    /// A timer, a signal or a thread cannot be used.
    #[error("the agent cannot wait for what it has to do")]
    System(#[source] io::Error),
    /// An address of `--listen` is none.
    #[error("--listen: {0}")]
    Address(String),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The system has no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// Serves until the agent is stopped, or until nothing is due any more. Returns the exit code that
/// stands for the worst run.
pub(crate) fn serve(
    config: Config,
    request: ServeRequest,
    log: Arc<dyn AgentLog>,
) -> Result<u8, ServeError> {
    let lock = ServeLock::take(&config.state)?;
    forget_refused_config(&config);
    let runtime = runtime().map_err(ServeError::System)?;
    let worst = runtime.block_on(run(Arc::new(config), request, log));
    // Nothing that still waits keeps the process.
    runtime.shutdown_background();
    drop(lock);
    worst
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
}

/// The configuration was read just now, so an earlier failure to read it is over.
fn forget_refused_config(config: &Config) {
    let history = History::open_existing(&config.state);
    if let Ok(Some(history)) = history
        && let Err(error) = history.remove_mark(OperatorMark::CONFIG)
    {
        tracing::warn!(%error, "a mark cannot be removed");
    }
}

async fn run(
    config: Arc<Config>,
    request: ServeRequest,
    log: Arc<dyn AgentLog>,
) -> Result<u8, ServeError> {
    let (waker, mut wakes) = mpsc::channel(MOST_WAKES);
    let timer = WakeTimer::start(waker.clone()).map_err(ServeError::System)?;
    timers::watch_clock(waker.clone()).map_err(ServeError::System)?;
    signals::watch(&waker).map_err(ServeError::System)?;
    let (state, _) = watch::channel(AgentState {
        config: Arc::clone(&config),
        running: None,
        schedule: Vec::new(),
        paused_until: None,
        beat: Instant::now(),
        reload_error: None,
    });
    let (events, _) = broadcast::channel(MOST_EVENTS);
    let handle = AgentHandle {
        commands: take_commands(waker.clone()),
        state: state.subscribe(),
        events: events.clone(),
    };
    let (end_http, shutdown) = watch::channel(false);
    let http = match request.mode {
        ServeMode::Serve => Some(listen(&request, &config, handle, shutdown, &log)?),
        ServeMode::Once => None,
    };
    log.info("started", format!("the agent serves {}", config.host));
    if let Some(lack) = calendar::lack(&config.schedule) {
        log.warn("not_scheduled", lack);
    }
    let links = SchedulerLinks {
        aftermath: Aftermath::start(events.clone(), Arc::clone(&log)),
        state,
        events,
        waker,
        log: Arc::clone(&log),
    };
    let mut scheduler = Scheduler::new(config, request.config_file, request.mode, links);
    let mut pause = scheduler.pass();
    scheduler.ready();
    while let Some(time) = pause {
        timer.set(time).map_err(ServeError::System)?;
        let Some(wake) = wakes.recv().await else {
            break;
        };
        scheduler.take(wake);
        while let Ok(wake) = wakes.try_recv() {
            scheduler.take(wake);
        }
        pause = scheduler.pass();
    }
    // Those who follow learn of the end.
    let _ = end_http.send(true);
    if let Some(http) = http {
        let _ = tokio::time::timeout(HTTP_END, http).await;
    }
    log.info("stopped", "the agent has ended");
    Ok(scheduler.worst())
}

/// Returns the channel through which front ends ask the scheduler.
fn take_commands(waker: Waker) -> mpsc::Sender<super::handle::AgentCommand> {
    let (commands, mut asked) = mpsc::channel(MOST_COMMANDS);
    tokio::spawn(async move {
        while let Some(command) = asked.recv().await {
            if waker.send(Wake::Command(command)).await.is_err() {
                return;
            }
        }
    });
    commands
}

/// Begins to answer over HTTP, with what `handle` shows, until `shutdown` is true. Sockets that
/// systemd passes come before `--listen`, and that before the configuration.
fn listen(
    request: &ServeRequest,
    config: &Config,
    handle: AgentHandle,
    shutdown: watch::Receiver<bool>,
    log: &Arc<dyn AgentLog>,
) -> Result<JoinHandle<()>, ServeError> {
    let tokens = AccessTokens::load(&config.serve)?;
    let mut listeners = listeners::from_systemd(&tokens)?;
    if listeners.is_empty() {
        let given = request.listen.iter().map(|text| text.parse());
        let given: Vec<ListenAddress> = given
            .collect::<Result<_, _>>()
            .map_err(ServeError::Address)?;
        let addresses = match given.is_empty() {
            true => &config.serve.listen,
            false => &given,
        };
        listeners = listeners::bind(addresses, &tokens)?;
    }
    for address in listeners.iter().filter_map(HttpListener::local_addr) {
        log.info("listening", format!("http://{address}/ shows the status"));
    }
    let limits = ClientLimits::default();
    let service = HttpService::start(handle, tokens, Arc::new(OwnFacts), limits)
        .map_err(ServeError::Random)?;
    Ok(tokio::spawn(http::serve(service, listeners, shutdown)))
}
