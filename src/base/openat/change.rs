//! Creates, renames and removes entries below an open directory.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::{Dir, Kind};

impl Dir {
    /// Creates the directory `rel` and opens it. The process's umask applies to `mode`.
    pub fn make_dir(&self, rel: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let rel = rel.as_ref();
        let (dir, name) = self.parent(rel)?;
        rustix::fs::mkdirat(dir.as_fd(), name, Mode::from_raw_mode(mode))?;
        self.sub(rel)
    }

    /// Opens the directory `rel`, after it created the missing directories of that path.
    pub fn make_dirs(&self, rel: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let mut dir = self.clone();
        for part in rel.as_ref().as_bytes().split(|byte| *byte == b'/') {
            let part = OsStr::from_bytes(part);
            if part.is_empty() {
                continue;
            }
            dir = match dir.sub(part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match dir.make_dir(part, mode) {
                        // Another process has just created it.
                        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => dir.sub(part)?,
                        other => other?,
                    }
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// Creates the symbolic link `rel` with this text.
    pub fn symlink(&self, text: &[u8], rel: impl AsRef<OsStr>) -> io::Result<()> {
        let (dir, name) = self.parent(rel.as_ref())?;
        Ok(rustix::fs::symlinkat(
            OsStr::from_bytes(text),
            dir.as_fd(),
            name,
        )?)
    }

    /// Creates a FIFO or a device, for its owner only. `device`: major and minor number, `None` for
    /// a FIFO.
    pub fn make_node(
        &self,
        rel: impl AsRef<OsStr>,
        kind: Kind,
        device: Option<(u32, u32)>,
    ) -> io::Result<()> {
        let kind = match kind {
            Kind::Fifo => FileType::Fifo,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let device = device.map_or(0, |(major, minor)| rustix::fs::makedev(major, minor));
        let (dir, name) = self.parent(rel.as_ref())?;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::mknodat(dir.as_fd(), name, kind, mode, device)?)
    }

    /// Gives the file `rel` the further name `to_rel` below `to` (a hard link). A symbolic link is
    /// not followed.
    pub fn link(
        &self,
        rel: impl AsRef<OsStr>,
        to: &Self,
        to_rel: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(rel.as_ref())?;
        let (to_dir, to_name) = to.parent(to_rel.as_ref())?;
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(
            from_dir.as_fd(),
            from_name,
            to_dir.as_fd(),
            to_name,
            flags,
        )?)
    }

    /// Renames `rel` to `to_rel` below `to`, and replaces what is there as `rename` does.
    pub fn rename(
        &self,
        rel: impl AsRef<OsStr>,
        to: &Self,
        to_rel: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        self.rename_with(rel.as_ref(), to, to_rel.as_ref(), RenameFlags::empty())
    }

    /// Renames `rel` to `to_rel` below `to` in one step; anything there is an error. Fails with
    /// `Unsupported` if the file system cannot do it in one step.
    pub fn rename_new(
        &self,
        rel: impl AsRef<OsStr>,
        to: &Self,
        to_rel: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        self.rename_with(rel.as_ref(), to, to_rel.as_ref(), RenameFlags::NOREPLACE)
    }

    /// Exchanges `rel` and `to_rel` below `to` in one step. Fails with `Unsupported` if the file
    /// system cannot do it in one step.
    pub fn exchange(
        &self,
        rel: impl AsRef<OsStr>,
        to: &Self,
        to_rel: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        self.rename_with(rel.as_ref(), to, to_rel.as_ref(), RenameFlags::EXCHANGE)
    }

    fn rename_with(
        &self,
        rel: &OsStr,
        to: &Self,
        to_rel: &OsStr,
        flags: RenameFlags,
    ) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(rel)?;
        let (to_dir, to_name) = to.parent(to_rel)?;
        let (from, to) = (from_dir.as_fd(), to_dir.as_fd());
        if flags.is_empty() {
            return Ok(rustix::fs::renameat(from, from_name, to, to_name)?);
        }
        match rustix::fs::renameat_with(from, from_name, to, to_name, flags) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => Ok(other?),
        }
    }

    /// Removes `rel`, which must not be a directory.
    pub fn remove_file(&self, rel: impl AsRef<OsStr>) -> io::Result<()> {
        let (dir, name) = self.parent(rel.as_ref())?;
        Ok(rustix::fs::unlinkat(dir.as_fd(), name, AtFlags::empty())?)
    }

    /// Removes the empty directory `rel`.
    pub fn remove_dir(&self, rel: impl AsRef<OsStr>) -> io::Result<()> {
        let (dir, name) = self.parent(rel.as_ref())?;
        Ok(rustix::fs::unlinkat(dir.as_fd(), name, AtFlags::REMOVEDIR)?)
    }

    /// Flushes the directory's entries to disk, so that a rename or a new entry in it survives a
    /// power loss.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(self) {
            // Some network file systems cannot flush directories; they have nothing to flush.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            // The directory was opened only to reach entries of it.
            Err(Errno::BADF) => {
                let own = self.sub("")?;
                Ok(rustix::fs::fsync(&own)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Flushes the whole file system of this directory to disk.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self)?)
    }
}
