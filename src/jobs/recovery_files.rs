//! The documents that a host puts on each target for a recovery without Sealift (docs/format.md).

use bytes::Bytes;

use crate::base::ids::ObjectKey;

/// The script that restores with `age`, `zstd` and Python.
pub(crate) const RECOVER_PY: &[u8] = include_bytes!("../../deploy/recover.py");
const RECOVER_MD: &[u8] = include_bytes!("../../deploy/RECOVER.md");

/// Returns the guide and the script with their names in the host's folder.
pub(crate) fn recovery_files() -> Vec<(ObjectKey, Bytes)> {
    vec![
        (
            ObjectKey::fixed("RECOVER.md"),
            Bytes::from_static(RECOVER_MD),
        ),
        (
            ObjectKey::fixed("recover-v4.py"),
            Bytes::from_static(RECOVER_PY),
        ),
    ]
}
