//! Sources that are files, reached over symbolic links.

use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};

use super::host::Host;

const SOURCES: &str = "[[source]]\nname = \"db\"\nkind = \"sqlite\"\npath = \"@/app/x.db\"\nto = \"db/x.db\"\n\
    [[source]]\nname = \"list\"\nkind = \"json\"\npath = \"@/app/list.json\"\nto = \"list.json\"\n";

#[test]
fn a_source_behind_the_operators_links_is_taken() {
    let host = Host::new(SOURCES);
    host.database("real/x.db", "WAL");
    host.write("real/list.json", b"[]");
    symlink("real", host.path("app")).unwrap();
    let made = host.produce();
    assert!(made.dir.join("db/x.db").exists());
    assert_eq!(fs::read(made.dir.join("list.json")).unwrap(), b"[]");
}

/// Needs root, to have a user's link and a file that is not that user's.
#[test]
fn a_users_link_redirects_no_source_to_a_file_that_is_not_that_users() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new(SOURCES);
    host.database("secret/x.db", "DELETE");
    host.write("secret/list.json", b"[\"secret\"]");
    host.database("app/x.db", "DELETE");
    host.write("app/list.json", b"[]");
    chown(host.path("app"), Some(65534), Some(65534)).unwrap();
    host.produce();
    for name in ["x.db", "list.json"] {
        let (theirs, aside) = (host.path("app").join(name), host.path("app").join("aside"));
        fs::rename(&theirs, &aside).unwrap();
        symlink(host.path("secret").join(name), &theirs).unwrap();
        lchown(&theirs, Some(65534), Some(65534)).unwrap();
        let error = host.left_out();
        assert!(
            error.contains("is a symbolic link of user 65534"),
            "{name}: {error}"
        );
        // The same link, once it is root's.
        lchown(&theirs, Some(0), Some(0)).unwrap();
        host.produce();
        fs::remove_file(&theirs).unwrap();
        fs::rename(&aside, &theirs).unwrap();
    }
    // The directory of it: the same.
    fs::rename(host.path("app"), host.path("moved")).unwrap();
    symlink("secret", host.path("app")).unwrap();
    lchown(host.path("app"), Some(65534), Some(65534)).unwrap();
    assert!(host.failure().contains("is a symbolic link of user 65534"));
}
