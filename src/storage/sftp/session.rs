//! The machine at the other end: paths on it, the connection that requests share, and scratch files
//! that are still to be removed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use super::connection::{CONNECTED_WITHIN, Connection};
use crate::storage::process_failure::ProcessFailure;
use crate::storage::retry::ProcessDeadlines;
use crate::storage::spec::TargetSpec;
use crate::storage::ssh::{self, CONNECT_SECONDS};
use crate::storage::throttle::Limits;
use crate::storage::url::SftpAddress;

/// Time for the greeting after ssh has given up a connection, if a person waits.
const HASTY_GREETING: Duration = Duration::from_millis(500);

/// A machine that holds a target.
#[derive(Debug)]
pub(super) struct Machine {
    address: SftpAddress,
    /// The ssh command with its options. `None`: plain `ssh`.
    ssh: Option<String>,
    pub deadlines: ProcessDeadlines,
    pub limits: Limits,
    shared: AsyncMutex<SharedConnection>,
    scratch: Mutex<ScratchFolders>,
}

#[derive(Debug, Default)]
struct SharedConnection {
    connection: Option<Arc<Connection>>,
    /// Time and failure of the last vain attempt to connect.
    failed: Option<(Instant, ProcessFailure)>,
}

/// The state of the hosts' scratch folders.
#[derive(Debug, Default)]
pub(super) struct ScratchFolders {
    /// Folders in which this process has removed the files of killed puts.
    pub tidied: HashSet<String>,
    /// Files of failed puts that are still to be removed.
    pub abandoned: Vec<String>,
}

impl Machine {
    pub(super) fn new(address: SftpAddress, spec: &TargetSpec) -> Self {
        Self {
            address,
            ssh: spec.ssh.clone(),
            deadlines: ProcessDeadlines::of(spec),
            limits: Limits::of(spec),
            shared: AsyncMutex::default(),
            scratch: Mutex::default(),
        }
    }

    /// Returns the path on the machine of `below`, a path in the target (empty: its root).
    pub(super) fn path(&self, below: &str) -> String {
        let root = &self.address.path;
        match (root.trim_end_matches('/'), below) {
            ("", "") if root.is_empty() => ".".to_owned(),
            ("", below) if root.is_empty() => below.to_owned(),
            (root, "") => format!("{root}/"),
            (root, below) => format!("{root}/{below}"),
        }
    }

    /// Locks the state of the scratch folders.
    pub(super) fn scratch(&self) -> MutexGuard<'_, ScratchFolders> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats `work` on a connection until it succeeds, fails for good, or its retries end.
    pub(super) async fn run<T, F>(
        &self,
        work: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, ProcessFailure>
    where
        F: Future<Output = Result<T, ProcessFailure>>,
    {
        let contact = &self.deadlines.contact;
        if let Some(failure) = contact.given_up() {
            return Err(failure);
        }
        let mut retries = None;
        let mut was_renewed = false;
        loop {
            let failure = match self.connection().await {
                Ok((connection, is_new)) => match work(Arc::clone(&connection)).await {
                    // The connection may have broken while it was idle.
                    Err(_) if !is_new && !was_renewed && !connection.is_alive() => {
                        was_renewed = true;
                        continue;
                    }
                    Err(failure) => failure,
                    done => return done,
                },
                Err(failure) => failure,
            };
            // Retries begin with the first failure: the work may have taken long before it.
            let retries = retries.get_or_insert_with(|| self.deadlines.retries());
            if !retries.another(&failure).await {
                return Err(retries.described(failure));
            }
        }
    }

    /// Returns the shared connection, and whether it is new.
    pub(super) async fn connection(&self) -> Result<(Arc<Connection>, bool), ProcessFailure> {
        let asked = Instant::now();
        let mut shared = self.shared.lock().await;
        if let Some(connection) = &shared.connection
            && connection.is_alive()
        {
            return Ok((Arc::clone(connection), false));
        }
        shared.connection = None;
        // A request that waited during another's vain attempt need not repeat it.
        if let Some((when, failure)) = &shared.failed
            && *when >= asked
        {
            return Err(failure.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                shared.connection = Some(Arc::clone(&connection));
                Ok((connection, true))
            }
            Err(failure) => {
                shared.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ProcessFailure> {
        let SftpAddress { login, port, .. } = &self.address;
        let seconds = self.deadlines.connect_seconds(CONNECT_SECONDS);
        let command = ssh::command(self.ssh.as_deref(), *port, login, seconds)?;
        let within = match self.deadlines.contact.is_hasty() {
            // A jump host's connection has no deadline of its own.
            true => Duration::from_secs(seconds) + HASTY_GREETING,
            false => CONNECTED_WITHIN,
        };
        let silence = Duration::from_secs(self.deadlines.request_seconds);
        let contact = &self.deadlines.contact;
        let opened = contact
            .watch(Connection::open(command, silence, within))
            .await;
        if opened.is_ok() {
            contact.reached();
        }
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_root() {
        let path = |root: &str, below: &str| {
            let address = SftpAddress {
                login: "x".to_owned(),
                port: None,
                path: root.to_owned(),
            };
            Machine::new(address, &TargetSpec::default()).path(below)
        };
        assert_eq!(path("/b/", "h/x"), "/b/h/x");
        assert_eq!(path("/b", ""), "/b/");
        assert_eq!(path("/", "h/x"), "/h/x");
        assert_eq!(path("/", ""), "/");
        assert_eq!(path("b/c", "h/x"), "b/c/h/x");
        assert_eq!(path("", "h/x"), "h/x");
        assert_eq!(path("", ""), ".");
    }
}
