//! The file systems that a walk does not enter, and the notes that name them.
//!
//! `/proc`, `/sys` and others are interfaces of the kernel. Their files have no content that could
//! be restored, some never end, and most have another size than `stat` says. They are recognized by
//! the type of the file system, wherever they are mounted.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// How many paths a note names; the others are counted.
const MOST_NAMED: usize = 5;

/// Pseudo file systems: the type that `statfs` reports, and the name.
#[cfg(target_os = "linux")]
const PSEUDO: &[(u32, &str)] = &[
    (0x0000_9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x0000_1cd1, "devpts"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4341_5d53, "smackfs"),
    (0x5a3c_69f0, "apparmorfs"),
    (0xcafe_4a11, "bpf"),
    (0x6265_6570, "configfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6573_5543, "fusectl"),
    (0x6e73_6673, "nsfs"),
    (0x1980_0202, "mqueue"),
    (0x9584_58f6, "hugetlbfs"),
    (0x6759_6969, "rpc_pipefs"),
    (0x6e66_7364, "nfsd"),
    (0xde5e_81e4, "efivarfs"),
    (0x6165_676c, "pstore"),
    (0x0765_5821, "resctrl"),
    (0x6c6f_6f70, "binder"),
    (0xabba_1974, "xenfs"),
    (0x0000_9fa2, "usbdevfs"),
    (0x0000_9fa1, "openpromfs"),
    (0x5345_434d, "secretmem"),
    (0x6462_671f, "dmabuf"),
];

/// Returns the name of the pseudo file system that `fd` is on; `None` if it is on a real one.
#[cfg(target_os = "linux")]
pub(crate) fn pseudo(fd: impl AsFd) -> io::Result<Option<&'static str>> {
    // The field's type differs from one architecture to the next.
    #[allow(clippy::unnecessary_cast)]
    let found = rustix::fs::fstatfs(fd)?.f_type as u32;
    let known = PSEUDO.iter().find(|(magic, _)| *magic == found);
    Ok(known.map(|(_, name)| *name))
}

/// Returns `None`: only Linux has such file systems.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pseudo(_: impl AsFd) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// The mounts that a walk did not enter.
#[derive(Debug, Default)]
pub(crate) struct NotEntered {
    pseudo: PathSample,
    mounts: PathSample,
}

/// Some paths, and the number of all of them.
#[derive(Debug, Default)]
struct PathSample {
    some: Vec<String>,
    count: usize,
}

impl PathSample {
    fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.some.len() < MOST_NAMED {
            self.some.push(text());
        }
    }

    fn take(&mut self) -> Option<String> {
        let Self { some, count } = std::mem::take(self);
        let more = count - some.len();
        match (count, more) {
            (0, _) => None,
            (_, 0) => Some(some.join(", ")),
            (_, more) => Some(format!("{} and {more} more", some.join(", "))),
        }
    }
}

impl NotEntered {
    /// Adds `rel`, which is on the pseudo file system `name`.
    pub(crate) fn pseudo(&mut self, rel: &[u8], name: &str) {
        let text = || format!("{} ({name})", String::from_utf8_lossy(rel));
        self.pseudo.add(text);
    }

    /// Adds `rel`, which is on another device while the filter keeps to one.
    pub(crate) fn mount(&mut self, rel: &[u8]) {
        self.mounts
            .add(|| String::from_utf8_lossy(rel).into_owned());
    }

    /// Returns the notes about the tree `root`, and forgets them.
    pub(crate) fn take_notes(&mut self, root: &Path) -> Vec<String> {
        let root = root.display();
        let pseudo = self.pseudo.take().map(|paths| {
            format!("{root}: left out, since the kernel makes up what is there: {paths}")
        });
        let mounts = self.mounts.take().map(|paths| {
            format!(
                "{root}: one_file_system leaves out other file systems and btrfs subvolumes: {paths}"
            )
        });
        pseudo.into_iter().chain(mounts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_many_mounts() {
        let mut left_out = NotEntered::default();
        for n in 0..7 {
            left_out.mount(format!("m{n}").as_bytes());
        }
        left_out.pseudo(b"proc", "proc");
        let notes = left_out.take_notes(Path::new("/"));
        assert_eq!(notes.len(), 2);
        assert!(notes[0].ends_with(": proc (proc)"), "{notes:?}");
        assert!(
            notes[1].ends_with(": m0, m1, m2, m3, m4 and 2 more"),
            "{notes:?}"
        );
        assert!(left_out.take_notes(Path::new("/")).is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn proc_is_recognized_and_a_disk_is_not() {
        let open = |path: &str| std::fs::File::open(path).unwrap();
        assert_eq!(pseudo(open("/proc")).unwrap(), Some("proc"));
        assert_eq!(pseudo(open("/proc/self")).unwrap(), Some("proc"));
        let temp = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(temp.path()).unwrap();
        assert_eq!(pseudo(dir).unwrap(), None);
    }
}
