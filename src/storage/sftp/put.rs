//! Putting an object: written under a name in its host's scratch folder, flushed, and then given its own.
//!
//! So whatever has its own name is complete. A hard link takes that name only if nobody has it; a server that
//! makes none (or whose file system has none) is asked first and then told to rename, which is no harm: names are
//! content. The file is flushed once more after that: with it a journaling file system flushes its new name,
//! and folders cannot be flushed through sftp.
//!
//! A put that fails removes its file as soon as there is a connection to do so; one that is killed leaves it, and a
//! later process's first put there removes what is older than a day by the server's clock.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use openssh_sftp_client::file::File;

use super::super::process_failure::Failure;
use super::super::{Body, ErrorKind, PutMode, PutOutcome};
use super::connection::Connection;
use super::list;
use super::send;
use super::session::Machine;

const SCRATCH: &str = ".tmp";
const PREFIX: &str = "put-";
const ABANDONED_AGE: Duration = Duration::from_secs(24 * 3600);
const REMOVALS_AT_ONCE: usize = 16;

/// What is known of scratch folders.
#[derive(Debug, Default)]
pub(super) struct ScratchFolders {
    /// Looked for what killed puts left.
    tidied: HashSet<String>,
    /// Files of puts that failed, still to be removed.
    abandoned: Vec<String>,
}

/// What to put, and where.
pub(super) struct Put {
    pub key: String,
    pub body: Body,
    pub mode: PutMode,
}

pub(super) async fn put(
    machine: &Machine,
    connection: Arc<Connection>,
    put: &Put,
) -> Result<PutOutcome, Failure> {
    let path = machine.path(&put.key);
    if is_there(&connection, &path).await? && put.mode == PutMode::Create {
        return Ok(PutOutcome::Existed);
    }
    let folder = match put.key.split_once('/') {
        None => machine.path(SCRATCH),
        Some((host, _)) => machine.path(&format!("{host}/{SCRATCH}")),
    };
    let mut scratch = Scratch::create(machine, &connection, &folder).await?;
    scratch.tidy(&folder).await;
    let outcome = scratch.become_object(&path, put).await;
    if connection.is_alive() {
        scratch.remove().await;
    }
    // Of a put nothing is missing: it can be tried again.
    outcome.map_err(|failure| match failure.kind {
        ErrorKind::NotFound => Failure::new(ErrorKind::Unavailable, "its folder vanished"),
        _ => failure,
    })
}

async fn flush(connection: &Connection, mut file: File) -> Result<(), Failure> {
    match connection.client.support_fsync() {
        true => connection.ask(file.sync_all()).await,
        false => Ok(()),
    }
}

/// Whether an object is there; what is something else is an error.
async fn is_there(connection: &Connection, path: &str) -> Result<bool, Failure> {
    let mut fs = connection.client.fs();
    let metadata = match connection.ask(fs.symlink_metadata(path)).await {
        Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match metadata.file_type() {
        Some(kind) if !kind.is_file() => {
            let what = "something that is no file has its name";
            Err(Failure::new(ErrorKind::Permanent, what))
        }
        _ => Ok(true),
    }
}

/// The folder that `path` is in.
fn above(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(slash) => &path[..slash],
        None => ".",
    }
}

/// Makes a folder, and those that lead there.
async fn make_folder(connection: &Connection, folder: &str) -> Result<(), Failure> {
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

/// Makes a folder; one that is there already will do.
async fn make_one(connection: &Connection, folder: &str) -> Result<(), Failure> {
    let mut fs = connection.client.fs();
    let failure = match connection.ask(fs.create_dir(folder)).await {
        Err(failure) if failure.kind != ErrorKind::NotFound => failure,
        other => return other,
    };
    // Servers say no more than that it failed.
    let is_folder = match connection.ask(fs.metadata(folder)).await {
        Ok(metadata) => metadata.file_type().is_some_and(|kind| kind.is_dir()),
        Err(_) => false,
    };
    if is_folder { Ok(()) } else { Err(failure) }
}

/// A file in a scratch folder. Dropped before it is removed, it is still to be.
struct Scratch<'a> {
    machine: &'a Machine,
    connection: &'a Connection,
    path: Option<String>,
    file: File,
}

impl<'a> Scratch<'a> {
    async fn create(
        machine: &'a Machine,
        connection: &'a Connection,
        folder: &str,
    ) -> Result<Self, Failure> {
        let mut random = [0; 12];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::new(ErrorKind::Unavailable, error.to_string()))?;
        let path = format!("{folder}/{PREFIX}{}", crate::base::ids::hex(&random));
        let mut options = connection.client.options();
        // Reading, to be told its time.
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

    /// Writes the file, durably, and gives it its own name.
    async fn become_object(&mut self, path: &str, put: &Put) -> Result<PutOutcome, Failure> {
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

    /// Gives the file its own name. The scratch name may stay.
    async fn name(&mut self, path: &str, mode: PutMode) -> Result<PutOutcome, Failure> {
        let connection = self.connection;
        let mut fs = connection.client.fs();
        if mode == PutMode::Create {
            if connection.client.support_hardlink() {
                match connection.ask(fs.hard_link(self.path(), path)).await {
                    Ok(()) => return Ok(PutOutcome::Written),
                    Err(failure) if failure.kind == ErrorKind::NotFound => return Err(failure),
                    // It says no more than that it failed: because it is there, or there are no links.
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

    /// Removes the file, and those of puts that could not.
    async fn remove(mut self) {
        let abandoned = std::mem::take(&mut self.machine.scratch().abandoned);
        remove_all(
            self.connection,
            abandoned.into_iter().chain(self.path.take()),
        )
        .await;
    }

    /// The first time, removes what killed puts left. What cannot be removed is no reason to fail.
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

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.machine.scratch().abandoned.push(path);
        }
    }
}

async fn remove_all(connection: &Connection, paths: impl Iterator<Item = String>) {
    let remove = |path: String| async move {
        // What is left is old one day.
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
    fn every_path_is_in_a_folder() {
        assert_eq!(above("/b/h/x"), "/b/h");
        assert_eq!(above("/b"), "/");
        assert_eq!(above("/"), "/");
        assert_eq!(above("h/x"), "h");
        assert_eq!(above("h"), ".");
        assert_eq!(above("."), ".");
    }
}
