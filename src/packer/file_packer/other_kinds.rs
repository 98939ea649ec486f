//! Packs items without content: directories, symlinks, FIFOs and devices.

use std::collections::BTreeMap;
use std::io;

use super::super::entry_metadata;
use super::super::error::PackError;
use super::FilePacker;
use super::read::read_reason;
use crate::base::walk::{Found, exchanged};

impl FilePacker<'_, '_> {
    /// Packs a directory as the walk saw it, since that is the directory whose items follow.
    pub(super) fn pack_dir(&mut self, path: Vec<u8>, found: &Found) -> Result<(), PackError> {
        let mut meta = found.meta;
        let attributes = match found.root.pin(found.rel()) {
            Ok(pin) => {
                let is_mounted = pin.meta().is_dir() && pin.meta().dev() != meta.dev();
                if is_mounted {
                    meta = *pin.meta();
                }
                match is_mounted || pin.meta().is_same(&meta) {
                    true => pin.xattrs().map(entry_metadata::by_bytes),
                    false => Err(exchanged()),
                }
            }
            // It keeps its entry, since its items may still be found.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        };
        let described = entry_metadata::entry(path, &meta, &self.names, attributes, None);
        let Some((entry, unread)) = described else {
            return Ok(());
        };
        self.report_unread(&entry.path, unread.as_ref());
        self.open_dirs.open(entry.path.clone());
        self.emit(&entry.to_line(), 0, 0)
    }

    /// Packs a symlink, a FIFO or a device.
    pub(super) fn pack_other(&mut self, path: Vec<u8>, found: &Found) -> Result<(), PackError> {
        let pin = match found.root.pin(found.rel()) {
            Ok(pin) if pin.meta().is_file() || pin.meta().is_dir() => {
                self.skip(&path, exchanged());
                return Ok(());
            }
            Ok(pin) => pin,
            Err(error) => {
                self.skip(&path, read_reason(&error));
                return Ok(());
            }
        };
        let target = match pin.meta().is_symlink().then(|| pin.read_link()).transpose() {
            Ok(target) => target,
            Err(error) => {
                self.skip(&path, read_reason(&error));
                return Ok(());
            }
        };
        let attributes = pin.xattrs().map(entry_metadata::by_bytes);
        let described = entry_metadata::entry(path, pin.meta(), &self.names, attributes, target);
        let Some((entry, unread)) = described else {
            return Ok(());
        };
        self.report_unread(&entry.path, unread.as_ref());
        self.tally.other(&entry.path);
        self.emit(&entry.to_line(), 0, 0)
    }
}
