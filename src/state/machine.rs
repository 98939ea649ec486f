//! An id of this machine for the manifest: it distinguishes two machines and discloses nothing
//! else.

use std::fs;
use std::io;
use std::path::Path;

use crate::base::ids::{HostName, hex};

/// Overrides the machine's id: for containers, whose `/etc/machine-id` is not their own.
pub const MACHINE_VARIABLE: &str = "SEALIFT_MACHINE_ID";

const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// Returns the machine's id as manifests carry it: a hash keyed by the host's name, from which the
/// id itself cannot be found. A machine without an id gets a random one, which is stored in the
/// state directory.
pub fn machine_id(host: &HostName, state: &Path) -> io::Result<String> {
    let raw = raw_id(state)?;
    let key = blake3::derive_key("sealift machine id v1", host.as_str().as_bytes());
    let hash = blake3::keyed_hash(&key, raw.trim().as_bytes());
    Ok(hex(&hash.as_bytes()[..16]))
}

fn raw_id(state: &Path) -> io::Result<String> {
    if let Ok(id) = std::env::var(MACHINE_VARIABLE)
        && !id.trim().is_empty()
    {
        return Ok(id);
    }
    for path in MACHINE_ID_FILES {
        if let Ok(id) = fs::read_to_string(path)
            && !id.trim().is_empty()
        {
            return Ok(id);
        }
    }
    let own = state.join("machine-id");
    match fs::read_to_string(&own) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map_err(|e| io::Error::other(e.to_string()))?;
            let id = hex(&id);
            crate::base::fs::write_atomic(&own, id.as_bytes(), 0o600)?;
            Ok(id)
        }
        other => other,
    }
}
