//! The `allowed_signers` file beside the signer: readers believe a replaced signer that it lists.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

use super::super::error::JobError;
use crate::base::fs;
use crate::config::Config;
use crate::format::signature::Signer;

/// Returns the line that lists `signer`.
pub(crate) fn line(config: &Config, signer: &Signer) -> String {
    format!(
        "{} namespaces=\"sealift-manifest,sealift-prune\" {}",
        config.host,
        signer.public_line().trim()
    )
}

/// Adds `line` to the file, unless it is there.
pub(super) fn add(config: &Config, line: &str) -> Result<(), JobError> {
    let path = config.signer.with_file_name("allowed_signers");
    let failed = |error| JobError::work(format!("cannot write {}: {error}", path.display()));
    // Opened once, so that the line is added to the file that was read, with a mode that does not
    // depend on the umask.
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o644)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        let text = format!("{} is not a regular file", path.display());
        return Err(JobError::work(text).with_next("move it away, then run it again"));
    }
    if meta.mode() & 0o022 != 0 {
        let closed = Permissions::from_mode(meta.mode() & 0o7755);
        file.set_permissions(closed).map_err(failed)?;
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(failed)?;
    let mut lines = content.split(|byte| *byte == b'\n');
    if lines.any(|existing| existing == line.as_bytes()) {
        return Ok(());
    }
    let gap = match content.is_empty() || content.ends_with(b"\n") {
        true => "",
        false => "\n",
    };
    writeln!(file, "{gap}{line}").map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(fs::sync_parent(&path)?)
}
