//! Lists folder by folder, several concurrently. Follows no links, and omits names that are not
//! keys.

use std::sync::Arc;

use chrono::DateTime;
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use openssh_sftp_client::fs::DirEntry;
use openssh_sftp_client::metadata::MetaData;

use super::connection::Connection;
use super::session::Machine;
use crate::storage::contract::Listed;
use crate::storage::error::ErrorKind;
use crate::storage::key::is_key;
use crate::storage::process_failure::ProcessFailure;

const FOLDERS_AT_ONCE: usize = 16;

/// Returns the entries of the folder `path`; none if it does not exist.
pub(super) async fn entries(
    connection: &Connection,
    path: &str,
) -> Result<Vec<DirEntry>, ProcessFailure> {
    let read = async {
        let folder = connection.client.fs().open_dir(path).await?;
        folder.read_dir().try_collect().await
    };
    match connection.ask(read).await {
        Err(failure) if failure.kind == ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// Returns the key of an entry of `folder`, if its name is valid in a key.
fn key(folder: &str, entry: &DirEntry) -> Option<String> {
    let name = entry.filename().to_str()?;
    let key = match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    };
    is_key(&key).then_some(key)
}

fn object(key: String, metadata: &MetaData) -> Result<Listed, ProcessFailure> {
    let bytes = metadata.len().ok_or_else(|| lacks_attributes(&key))?;
    let modified = metadata.modified();
    let modified = modified.and_then(|time| DateTime::from_timestamp(time.into_raw().into(), 0));
    Ok(Listed {
        key,
        bytes,
        modified,
    })
}

fn lacks_attributes(key: &str) -> ProcessFailure {
    let what = format!("the server does not report whether {key} is a file, and its size");
    ProcessFailure::new(ErrorKind::Permanent, what)
}

/// Returns all objects below `folder`, in no order.
pub(super) async fn objects(
    machine: &Machine,
    connection: Arc<Connection>,
    folder: String,
) -> Result<Vec<Listed>, ProcessFailure> {
    let read = |folder: String| {
        let connection = &connection;
        async move {
            let entries = entries(connection, &machine.path(&folder)).await?;
            Ok::<_, ProcessFailure>((folder, entries))
        }
    };
    let mut found = Vec::new();
    let mut waiting = vec![folder];
    let mut reading = FuturesUnordered::new();
    loop {
        while reading.len() < FOLDERS_AT_ONCE
            && let Some(folder) = waiting.pop()
        {
            reading.push(read(folder));
        }
        let Some(done) = reading.next().await else {
            return Ok(found);
        };
        let (folder, entries) = done?;
        for entry in entries {
            let Some(key) = key(&folder, &entry) else {
                continue;
            };
            let kind = entry.file_type().ok_or_else(|| lacks_attributes(&key))?;
            if kind.is_dir() {
                waiting.push(key);
            } else if kind.is_file() {
                found.push(object(key, &entry.metadata())?);
            }
        }
    }
}

/// Returns the names of the folders right below the root, sorted.
pub(super) async fn folders(
    machine: &Machine,
    connection: Arc<Connection>,
) -> Result<Vec<String>, ProcessFailure> {
    let entries = entries(&connection, &machine.path("")).await?;
    let is_folder = |entry: &&DirEntry| entry.file_type().is_some_and(|kind| kind.is_dir());
    let folders = entries.iter().filter(is_folder);
    let mut names: Vec<String> = folders.filter_map(|entry| key("", entry)).collect();
    names.sort();
    Ok(names)
}
