//! Puts an object: writes a file in the host's scratch folder, flushes it, then gives it its own
//! name.
//!
//! So an object that has its own name is complete. A hard link takes that name only if it is free.
//! If the server or its file system has no hard links, the name is looked up first and the file
//! then renamed; a race of two puts is harmless, because an object's name is derived from its
//! content. The file is flushed once more after that: a journaling file system then flushes the new
//! name too, and sftp cannot flush folders.
//!
//! A put that fails removes its file as soon as there is a connection. A put that is killed leaves
//! it; the first put of a later process removes files older than a day by the server's clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use openssh_sftp_client::file::File;

use super::connection::Connection;
use super::list;
use super::send;
use super::session::Machine;
use crate::storage::contract::{Body, PutMode, PutOutcome};
use crate::storage::error::ErrorKind;
use crate::storage::process_failure::ProcessFailure;

const SCRATCH: &str = ".tmp";
const PREFIX: &str = "put-";
const ABANDONED_AGE: Duration = Duration::from_secs(24 * 3600);
const REMOVALS_AT_ONCE: usize = 16;

/// An object to put.
pub(super) struct PutRequest {
    pub key: String,
    pub body: Body,
    pub mode: PutMode,
}

/// Puts an object over `connection`.
pub(super) async fn put(
    machine: &Machine,
    connection: Arc<Connection>,
    put: &PutRequest,
) -> Result<PutOutcome, ProcessFailure> {
    let path = machine.path(&put.key);
    if is_there(&connection, &path).await? && put.mode == PutMode::Create {
        return Ok(PutOutcome::Existed);
    }
    let folder = match put.key.split_once('/') {
        None => machine.path(SCRATCH),
        Some((host, _)) => machine.path(&format!("{host}/{SCRATCH}")),
    };
    let mut scratch = RemoteScratch::create(machine, &connection, &folder).await?;
    scratch.tidy(&folder).await;
    let outcome = scratch.become_object(&path, put).await;
    if connection.is_alive() {
        scratch.remove().await;
    }
    // The target of a put cannot be missing for good: a retry creates the folder again.
    outcome.map_err(|failure| match failure.kind {
        ErrorKind::NotFound => ProcessFailure::new(ErrorKind::Unavailable, "its folder vanished"),
        _ => failure,
    })
}

/// Flushes a file, if the server supports it.
async fn flush(connection: &Connection, mut file: File) -> Result<(), ProcessFailure> {
    match connection.client.support_fsync() {
        true => connection.ask(file.sync_all()).await,
        false => Ok(()),
    }
}

/// Whether a file exists at `path`; anything else there is an error.
async fn is_there(connection: &Connection, path: &str) -> Result<bool, ProcessFailure> {
    let mut fs = connection.client.fs();
    let metadata = match connection.ask(fs.symlink_metadata(path)).await {
        Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match metadata.file_type() {
        Some(kind) if !kind.is_file() => {
            let what = "its name belongs to something that is not a file";
            Err(ProcessFailure::new(ErrorKind::Permanent, what))
        }
        _ => Ok(true),
    }
}

/// Returns the folder that contains `path`.
fn above(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(slash) => &path[..slash],
        None => ".",
    }
}

/// Creates a folder and its missing parents.
async fn make_folder(connection: &Connection, folder: &str) -> Result<(), ProcessFailure> {
    let mut missing = Vec::new();
    let mut folder = folder;
    loop {
        match make_one(connection, folder).await {
            Err(failure) if failure.kind == ErrorKind::NotFound && above(folder) != folder => {
                missing.push(folder);
                folder = above(folder);
            }
            other => break other?,
        }
    }
    for folder in missing.into_iter().rev() {
        make_one(connection, folder).await?;
    }
    Ok(())
}

/// Creates a folder, unless it exists.
async fn make_one(connection: &Connection, folder: &str) -> Result<(), ProcessFailure> {
    let mut fs = connection.client.fs();
    let failure = match connection.ask(fs.create_dir(folder)).await {
        Err(failure) if failure.kind != ErrorKind::NotFound => failure,
        other => return other,
    };
    // Servers do not say why it failed.
    let is_folder = match connection.ask(fs.metadata(folder)).await {
        Ok(metadata) => metadata.file_type().is_some_and(|kind| kind.is_dir()),
        Err(_) => false,
    };
    if is_folder { Ok(()) } else { Err(failure) }
}

/// A file in a scratch folder. If it is dropped before it is removed, a later put removes it.
struct RemoteScratch<'a> {
    machine: &'a Machine,
    connection: &'a Connection,
    /// `None`: the file was renamed or removed.
    path: Option<String>,
    file: File,
}

impl<'a> RemoteScratch<'a> {
    async fn create(
        machine: &'a Machine,
        connection: &'a Connection,
        folder: &str,
    ) -> Result<Self, ProcessFailure> {
        let mut random = [0; 12];
        getrandom::fill(&mut random)
            .map_err(|error| ProcessFailure::new(ErrorKind::Unavailable, error.to_string()))?;
        let path = format!("{folder}/{PREFIX}{}", crate::base::ids::hex(&random));
        let mut options = connection.client.options();
        // Read access, to read its time.
        options.read(true).write(true).create_new(true);
        let file = match connection.ask(options.open(&path)).await {
            Err(failure) if failure.kind == ErrorKind::NotFound => {
                make_folder(connection, folder).await?;
                connection.ask(options.open(&path)).await
            }
            other => other,
        };
        Ok(Self {
            machine,
            connection,
            path: Some(path),
            file: file?,
        })
    }

    fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// Writes the file durably and gives it its own name.
    async fn become_object(
        &mut self,
        path: &str,
        put: &PutRequest,
    ) -> Result<PutOutcome, ProcessFailure> {
        let connection = self.connection;
        let file = self.file.clone();
        send::send(self.machine, connection, &file, &put.body).await?;
        flush(connection, file.clone()).await?;
        let outcome = match self.name(path, put.mode).await {
            Err(failure) if failure.kind == ErrorKind::NotFound => {
                make_folder(connection, above(path)).await?;
                self.name(path, put.mode).await?
            }
            other => other?,
        };
        if outcome == PutOutcome::Written {
            flush(connection, file).await?;
        }
        Ok(outcome)
    }

    /// Gives the file its own name. The scratch name may remain.
    async fn name(&mut self, path: &str, mode: PutMode) -> Result<PutOutcome, ProcessFailure> {
        let connection = self.connection;
        let mut fs = connection.client.fs();
        if mode == PutMode::Create {
            if connection.client.support_hardlink() {
                match connection.ask(fs.hard_link(self.path(), path)).await {
                    Ok(()) => return Ok(PutOutcome::Written),
                    Err(failure) if failure.kind == ErrorKind::NotFound => return Err(failure),
                    // Servers do not say why it failed: the name is taken, or there are no links.
                    Err(_) => {}
                }
            }
            if is_there(connection, path).await? {
                return Ok(PutOutcome::Existed);
            }
        }
        let renamed = connection.ask(fs.rename(self.path(), path)).await;
        let is_in_the_way = !connection.client.support_posix_rename();
        match renamed {
            Err(failure) if failure.kind != ErrorKind::NotFound && is_in_the_way => {
                if !is_there(connection, path).await? {
                    return Err(failure);
                }
                if mode == PutMode::Create {
                    return Ok(PutOutcome::Existed);
                }
                connection.ask(fs.remove_file(path)).await?;
                connection.ask(fs.rename(self.path(), path)).await?;
            }
            other => other?,
        }
        self.path = None;
        Ok(PutOutcome::Written)
    }

    /// Removes the file, and the files of earlier puts that could not be removed.
    async fn remove(mut self) {
        let abandoned = std::mem::take(&mut self.machine.scratch().abandoned);
        remove_all(
            self.connection,
            abandoned.into_iter().chain(self.path.take()),
        )
        .await;
    }

    /// Removes the files of killed puts, the first time. A file that cannot be removed is no
    /// failure.
    async fn tidy(&mut self, folder: &str) {
        if !self.machine.scratch().tidied.insert(folder.to_owned()) {
            return;
        }
        let Ok(own) = self.connection.ask(self.file.metadata()).await else {
            return;
        };
        let Some(now) = own.modified() else { return };
        let entries = list::entries(self.connection, folder).await;
        let old = entries.unwrap_or_default().into_iter().filter_map(|entry| {
            let modified = entry.metadata().modified()?.as_duration();
            let name = entry.filename().to_str()?;
            let is_old = modified + ABANDONED_AGE < now.as_duration();
            (is_old && name.starts_with(PREFIX)).then(|| format!("{folder}/{name}"))
        });
        remove_all(self.connection, old).await;
    }
}

impl Drop for RemoteScratch<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.machine.scratch().abandoned.push(path);
        }
    }
}

async fn remove_all(connection: &Connection, paths: impl Iterator<Item = String>) {
    let remove = |path: String| async move {
        // A file that remains is removed when it is a day old.
        let _ = connection
            .ask(connection.client.fs().remove_file(Path::new(&path)))
            .await;
    };
    futures::stream::iter(paths)
        .for_each_concurrent(REMOVALS_AT_ONCE, remove)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_parent() {
        assert_eq!(above("/b/h/x"), "/b/h");
        assert_eq!(above("/b"), "/");
        assert_eq!(above("/"), "/");
        assert_eq!(above("h/x"), "h");
        assert_eq!(above("h"), ".");
        assert_eq!(above("."), ".");
    }
}
