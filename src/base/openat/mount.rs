//! Recognizes mount points.

use std::ffi::OsStr;
use std::io;

use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{Dir, Meta};

impl Dir {
    /// Returns whether this directory is the root of a mount: a disk, a share or a bind mount. A
    /// btrfs subvolume that is reached through its parent's mount is not one.
    pub fn is_mount_point(&self) -> io::Result<bool> {
        let root = StatxAttributes::MOUNT_ROOT;
        match rustix::fs::statx(self, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) {
            Ok(stat) if stat.stx_attributes_mask.contains(root) => {
                Ok(stat.stx_attributes.contains(root))
            }
            // Linux before 5.8, or a system call filter blocks statx.
            Ok(_) | Err(Errno::NOSYS) => self.is_on_another_device(),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether something is mounted at `rel`, a directory or a file: then it cannot be
    /// renamed. A missing `rel` is no mount point.
    pub fn is_mounted(&self, rel: impl AsRef<OsStr>) -> io::Result<bool> {
        let place = match self.open_place(rel.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let root = StatxAttributes::MOUNT_ROOT;
        match rustix::fs::statx(&place, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) {
            Ok(stat) if stat.stx_attributes_mask.contains(root) => {
                Ok(stat.stx_attributes.contains(root))
            }
            // Linux before 5.8, or a system call filter blocks statx.
            Ok(_) | Err(Errno::NOSYS) => {
                let (above, _) = self.parent_of(rel.as_ref())?;
                Ok(Meta::of_fd(&place)?.dev() != Meta::of_fd(&above)?.dev())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the number of the mount that this directory is on, to compare two: a rename does not
    /// cross from one to another, even if both show the same file system. `None`: the kernel does
    /// not say.
    pub fn mount_id(&self) -> Option<u64> {
        let wanted = StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(self, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
        (stat.stx_mask & wanted.bits() != 0).then_some(stat.stx_mnt_id)
    }

    /// Guesses the same without the kernel's answer: the directory above is on another device, or
    /// this is the root directory. Takes a bind mount from the same device for a plain directory.
    fn is_on_another_device(&self) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::openat(self, c"..", flags, Mode::empty())?;
        let (own, above) = (Meta::of_fd(self)?, Meta::of_fd(&above)?);
        Ok(own.dev() != above.dev() || own.is_same(&above))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_the_root_of_a_mount_is_a_mount_point() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("plain")).unwrap();
        let plain = temp.path().join("plain");
        for (path, is_one) in [
            (Path::new("/"), true),
            (Path::new("/proc"), true),
            (Path::new("/proc/self"), false),
            (&plain, false),
        ] {
            let dir = Dir::open(path).unwrap();
            assert_eq!(dir.is_mount_point().unwrap(), is_one, "{}", path.display());
            let is_guessed = dir.is_on_another_device().unwrap();
            assert_eq!(is_guessed, is_one, "{}", path.display());
        }
    }
}
