//! Where a mount can be: FUSE, the mount point, and how it is taken away.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;
use rustix::mount::UnmountFlags;

/// The device by which FUSE speaks to this process.
const DEVICE: &str = "/dev/fuse";
/// Programs by which a user other than root mounts.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];
/// Where they are looked for after `$PATH`.
const HELPER_DIRS: [&str; 2] = ["/usr/bin", "/bin"];

/// Why nothing can be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// This system has no FUSE.
    #[error("there is no FUSE here (/dev/fuse)")]
    NoFuse,
    /// This user may not open the device of FUSE.
    #[error("this user cannot open /dev/fuse")]
    NoAccess,
    /// A user other than root has no program that mounts.
    #[error("only root can mount without fusermount3, and it is not installed")]
    NoHelper,
    /// The directory is missing, or cannot be looked at.
    #[error("cannot mount on {}", dir.display())]
    NoDirectory {
        /// The mount point.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory belongs to a mount whose process ended.
    #[error("{} is a mount whose process ended", .0.display())]
    Dead(PathBuf),
    /// The mount point is no directory.
    #[error("{} is no directory", .0.display())]
    NotADirectory(PathBuf),
    /// The directory has content, which the mount would hide.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The user may not write to the directory.
    #[error("{} is not writable for this user, so nothing can be mounted on it", .0.display())]
    NotMine(PathBuf),
    /// The kernel or fusermount3 refused.
    #[error("cannot mount on {}", dir.display())]
    Refused {
        /// The mount point.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// Returns the next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoFuse => {
                "load the module (modprobe fuse), or use restore, cat or browse; a container needs \
                 --device /dev/fuse --cap-add SYS_ADMIN"
            }
            Self::NoAccess => "every user may where its mode is the usual one: chmod 666 /dev/fuse",
            Self::NoHelper => "apt install fuse3",
            Self::NoDirectory { .. } | Self::NotADirectory(_) => {
                "name an empty directory: mkdir it first"
            }
            Self::Dead(_) => "take it away first: fusermount3 -u DIR, or umount DIR",
            Self::NotEmpty(_) => "name an empty directory",
            Self::NotMine(_) => "name an empty directory of your own",
            Self::Refused { source, .. } if source.to_string().contains("user_allow_other") => {
                "--allow-other and --allow-root need the line user_allow_other in /etc/fuse.conf"
            }
            Self::Refused { .. } => {
                "a container needs --device /dev/fuse --cap-add SYS_ADMIN; where FUSE cannot be used, \
                 restore or cat do without"
            }
        }
    }
}

/// Whether this process mounts without help.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks that this system has FUSE, and that `dir` can be a mount point. Returns its real path.
pub fn check_mount_point(dir: &Path) -> Result<PathBuf, MountError> {
    let device = std::fs::metadata(DEVICE);
    if !device.is_ok_and(|device| device.file_type().is_char_device()) {
        return Err(MountError::NoFuse);
    }
    if rustix::fs::access(DEVICE, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Err(MountError::NoAccess);
    }
    if !is_root() && helper().is_none() {
        return Err(MountError::NoHelper);
    }
    let unusable = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOTCONN | libc::ECONNABORTED) => MountError::Dead(dir.to_owned()),
        _ => MountError::NoDirectory {
            dir: dir.to_owned(),
            source,
        },
    };
    let meta = std::fs::metadata(dir).map_err(unusable)?;
    if !meta.is_dir() {
        return Err(MountError::NotADirectory(dir.to_owned()));
    }
    if !is_root() && rustix::fs::access(dir, Access::WRITE_OK).is_err() {
        return Err(MountError::NotMine(dir.to_owned()));
    }
    let real = dir.canonicalize().map_err(unusable)?;
    if std::fs::read_dir(&real).map_err(unusable)?.next().is_some() {
        return Err(MountError::NotEmpty(dir.to_owned()));
    }
    Ok(real)
}

/// Takes a mount away. Unless `lazily`, that fails while anything uses it; else it leaves the
/// directory at once, and ends when nothing uses it any more.
pub fn unmount(dir: &Path, lazily: bool) -> io::Result<()> {
    if is_root() {
        let flags = match lazily {
            true => UnmountFlags::DETACH,
            false => UnmountFlags::empty(),
        };
        return Ok(rustix::mount::unmount(dir, flags)?);
    }
    let helper = helper().ok_or_else(|| io::Error::other(MountError::NoHelper))?;
    let mut command = Command::new(helper);
    command.args(["-u", "-q"]);
    if lazily {
        command.arg("-z");
    }
    let command = command.arg("--").arg(dir);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    match command.stderr(Stdio::null()).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("fusermount3 could not unmount it")),
    }
}

fn helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(HELPER_DIRS.map(PathBuf::from));
    let programs = HELPERS
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    programs.into_iter().find(|program| program.is_file())
}

/// Lets the kernel read ahead as much as the mount wants, which only root can set. Without it reads
/// are smaller.
pub(super) fn raise_read_ahead(dir: &Path, bytes: u32) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    if let Some(device) = device_of(&mounts, dir) {
        let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
        let _ = std::fs::write(file, (bytes >> 10).to_string());
    }
}

/// Returns `major:minor` of the FUSE mount on `dir`, as `/proc/self/mountinfo` lists it.
fn device_of<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    let dir = dir.to_str()?;
    let mut lines = mounts.lines().rev();
    lines.find_map(|line| {
        let mut words = line.split(' ').skip(2);
        let (device, _, on) = (words.next()?, words.next()?, words.next()?);
        (on == dir && line.contains(" fuse")).then_some(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_is_found() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/root rw\n\
                      40 22 0:50 / /mnt/a ro,nosuid - fuse.sealift sealift:web ro\n\
                      41 22 0:51 / /mnt/a ro,nosuid - fuse.sealift sealift:web ro\n";
        assert_eq!(device_of(mounts, Path::new("/mnt/a")), Some("0:51"));
        assert_eq!(device_of(mounts, Path::new("/")), None);
        assert_eq!(device_of(mounts, Path::new("/mnt")), None);
    }
}
