//! The machine at the other end: where objects lie on it, and the connection that requests share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Mutex as AsyncMutex;

use super::super::TargetSpec;
use super::super::process_failure::Failure;
use super::super::retry::Patience;
use super::super::ssh;
use super::connection::Connection;
use super::pace::Pace;
use super::{Place, put};

#[derive(Debug)]
pub(super) struct Machine {
    place: Place,
    ssh: Option<String>,
    pub patience: Patience,
    pub upload: Arc<Pace>,
    pub download: Arc<Pace>,
    line: AsyncMutex<Line>,
    pub scratch: Mutex<put::ScratchFolders>,
}

#[derive(Debug, Default)]
struct Line {
    connection: Option<Arc<Connection>>,
    /// The last attempt to connect.
    failed: Option<(Instant, Failure)>,
}

impl Machine {
    pub fn new(place: Place, spec: &TargetSpec) -> Self {
        Self {
            place,
            ssh: spec.ssh.clone(),
            patience: Patience::of(spec),
            upload: Arc::new(Pace::new(spec.upload.clone())),
            download: Arc::new(Pace::new(spec.download.clone())),
            line: AsyncMutex::default(),
            scratch: Mutex::default(),
        }
    }

    /// The path there of what lies at `below` (empty: everything).
    pub fn path(&self, below: &str) -> String {
        let root = &self.place.path;
        match (root.trim_end_matches('/'), below) {
            ("", "") if root.is_empty() => ".".to_owned(),
            ("", below) if root.is_empty() => below.to_owned(),
            (root, "") => format!("{root}/"),
            (root, below) => format!("{root}/{below}"),
        }
    }

    pub fn scratch(&self) -> std::sync::MutexGuard<'_, put::ScratchFolders> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` on a connection until it is done, fails for good, or patience ends.
    pub async fn run<T, F>(&self, work: impl Fn(Arc<Connection>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut retries = None;
        let mut was_renewed = false;
        loop {
            let failure = match self.connection().await {
                Ok((connection, is_new)) => match work(Arc::clone(&connection)).await {
                    // It may have broken long ago, with nobody to notice.
                    Err(_) if !is_new && !was_renewed && !connection.is_alive() => {
                        was_renewed = true;
                        continue;
                    }
                    Err(failure) => failure,
                    done => return done,
                },
                Err(failure) => failure,
            };
            // Patience begins with the first failure: the work may have taken its time before.
            let retries = retries.get_or_insert_with(|| self.patience.retries());
            if !retries.another(&failure).await {
                return Err(retries.told(failure));
            }
        }
    }

    /// The one connection, and whether it is new.
    pub async fn connection(&self) -> Result<(Arc<Connection>, bool), Failure> {
        let asked = Instant::now();
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection
            && connection.is_alive()
        {
            return Ok((Arc::clone(connection), false));
        }
        line.connection = None;
        // Whoever waited while another tried in vain need not try too.
        if let Some((when, failure)) = &line.failed
            && *when >= asked
        {
            return Err(failure.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                line.connection = Some(Arc::clone(&connection));
                Ok((connection, true))
            }
            Err(failure) => {
                line.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let Place { login, port, .. } = &self.place;
        let command = ssh::command(self.ssh.as_deref(), *port, login)?;
        let silence = std::time::Duration::from_secs(self.patience.request_seconds);
        Connection::open(command, silence).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_place() {
        let path = |root: &str, below: &str| {
            let place = Place {
                login: "x".to_owned(),
                port: None,
                path: root.to_owned(),
            };
            Machine::new(place, &TargetSpec::default()).path(below)
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
