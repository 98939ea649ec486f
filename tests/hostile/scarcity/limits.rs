//! Few open files, little memory.

use std::fs;

use super::restricted_program::{limited, run, wrapped};
use crate::support::checker::assert_sound;
use crate::support::host::Host;
use crate::support::is_long;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tree::{describe, noise};

/// A host of many archives and many files, one of them a database in use.
fn with_many(archives: u64) -> Host {
    let host = Host::new();
    let pack = "[pack]\narchive_size = \"1MiB\"\n\n[retention]";
    host.edit_config("[retention]", pack);
    for number in 0..archives {
        fs::write(
            host.data().join(format!("large-{number}")),
            noise(number, 1 << 20),
        )
        .unwrap();
    }
    for number in 0..150 {
        fs::write(
            host.data().join(format!("small-{number}")),
            noise(number, 200),
        )
        .unwrap();
    }
    let db = rusqlite::Connection::open(host.data().join("app.db")).unwrap();
    db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(300000))")
        .unwrap();
    host
}

fn archives() -> u64 {
    if is_long() { 120 } else { 12 }
}

#[test]
fn with_64_open_files_everything_works() {
    let host = with_many(archives());
    let repo = host.path("repo").display().to_string();
    let signer = host.signer.clone();
    let from = ["--from", &repo, "--signer", &signer];
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", "out"];
    let change = || fs::write(host.data().join("large-0"), noise(999, 1 << 20)).unwrap();
    let expect = |arguments: &[&str]| {
        let run = limited(&host, "ulimit -n 64", arguments);
        assert_eq!(run.code, Some(0), "{}: {}", arguments[0], run.said());
    };
    expect(&["backup"]);
    change();
    expect(&["backup"]);
    expect(&["list"]);
    expect(&["status"]);
    expect(&[&["ls", "latest", "--identity", "key.txt"][..], &from].concat());
    expect(&[&restore[..], &from].concat());
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
    expect(&["verify", "--data"]);
    expect(&["verify", "--identity", "key.txt"]);
    expect(&["sync", "./repo", "./copy", "--signer", &signer]);
    expect(&["prune", "--policy", "last=1", "--yes"]);
    change();
    expect(&["backup"]);
    expect(&["prune", "--policy", "last=1", "--yes"]);
    let copy = host.restore_from(&host.path("copy"), "from-copy");
    assert_eq!(
        describe(&copy.join("data")),
        describe(&host.path("out/data"))
    );
    assert_sound(&host.folder());
}

#[test]
fn with_64_open_files_an_object_store_is_served_too() {
    let server = S3Server::start();
    let host = with_many(archives());
    let target = format!(
        "[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/off\"\nendpoint = \"{}\"\n",
        server.endpoint()
    );
    let config = host.config();
    let at = config.find("[[target]]").unwrap();
    fs::write(
        host.path("c.toml"),
        [&config[..at], &target, "\n", &config[at..]].concat(),
    )
    .unwrap();
    let restore = [
        "restore",
        "--target",
        "s3",
        "--identity",
        "key.txt",
        "--to",
        "out",
    ];
    let sync = ["sync", "s3", "./copy"];
    for arguments in [&["backup"][..], &restore, &["verify", "--data"], &sync] {
        let prefix = ["bash", "-c", "ulimit -n 64 && exec \"$@\"", "bash"];
        let mut command = wrapped(&host, &prefix, arguments);
        let run = run(command.envs(server.variables()));
        assert_eq!(run.code, Some(0), "{}: {}", arguments[0], run.said());
    }
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
}

#[test]
fn with_fewer_open_files_it_says_what_to_raise() {
    let host = with_many(1);
    host.backup();
    let before = assert_sound(&host.folder());
    for arguments in [&["backup"][..], &["list"], &["verify", "--data"]] {
        for files in [4, 16, 63] {
            let run = limited(&host, &format!("ulimit -n {files}"), arguments);
            // With this number the program loader may not find its libraries.
            if files > 4 {
                assert_eq!(run.code, Some(1), "{}", run.said());
                run.assert_says(&["may be open at once", "ulimit -n", "LimitNOFILE="]);
            }
            assert_ne!(run.code, Some(0), "{}", run.said());
        }
        // A soft limit is raised without a word.
        let run = limited(&host, "ulimit -S -n 16 && ulimit -H -n 256", arguments);
        assert_eq!(run.code, Some(0), "{}", run.said());
    }
    assert!(
        assert_sound(&host.folder())
            .manifests
            .is_superset(&before.manifests)
    );
}

#[test]
fn with_little_memory_it_works_or_says_so() {
    let host = with_many(archives().min(24));
    host.backup();
    let published = assert_sound(&host.folder());
    let before = describe(&host.data());
    fs::write(host.data().join("large-0"), noise(999, 1 << 20)).unwrap();
    let megabytes = match is_long() {
        true => (100..1000).step_by(25).collect(),
        false => vec![120, 300, 600],
    };
    let signer = host.signer.clone();
    let restore = [
        "restore",
        "latest",
        "--from",
        "repo",
        "--identity",
        "key.txt",
        "--signer",
        &signer,
        "--to",
        "out",
    ];
    let mut backed_up = 0;
    for megabytes in megabytes {
        for arguments in [&["backup"][..], &restore, &["verify", "--data"]] {
            let limit = format!("ulimit -v {}", megabytes * 1000);
            let run = limited(&host, &limit, arguments);
            let what = format!("{megabytes} MB, {}: {}", arguments[0], run.said());
            match run.code {
                Some(0) => backed_up += u64::from(arguments[0] == "backup"),
                Some(1) => run.assert_says(&["next: give it more memory"]),
                // glibc's own last word, before the allocator can say anything: a thread's start.
                None if run.said().contains("Fatal glibc error") => {}
                _ => panic!("{what}"),
            }
            let out = host.path("out");
            if out.exists() {
                assert_eq!(run.code, Some(0), "{what}");
                fs::remove_dir_all(out).unwrap();
            }
        }
        let now = assert_sound(&host.folder());
        assert!(now.manifests.is_superset(&published.manifests));
        if backed_up == 0 {
            let out = host.restore("latest", "meanwhile");
            assert_eq!(describe(&out.join("data")), before);
            fs::remove_dir_all(out).unwrap();
        }
    }
    host.backup();
    // To the same place: what a run that died there left is cleared.
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
    let left = fs::read_dir(host.temp.path()).unwrap();
    let left = left.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let left: Vec<String> = left.filter(|name| name.contains("partial")).collect();
    assert_eq!(left, Vec::<String>::new());
}

/// A writer of the target can plant manifests by the gigabyte: what is not believed is not kept.
#[test]
fn planted_manifests_do_not_fill_the_memory() {
    let host = with_many(1);
    host.backup();
    for number in 0..200 {
        let name = format!("manifests/00000000-20200101T000000Z-{number:016x}.json");
        let path = host.folder().join(name);
        fs::write(path.with_extension("json.sig"), "no signature").unwrap();
        let planted = fs::File::create(path).unwrap();
        planted.set_len(8 << 20).unwrap();
    }
    let signer = host.signer.clone();
    let list = ["list", "--from", "repo", "--signer", &signer];
    // Threads reserve half of that.
    let run = limited(&host, "ulimit -v 2000000", &list);
    assert_eq!(run.code, Some(3), "{}", run.said());
    run.assert_says(&["is not acceptable"]);
}

/// Threads are a resource as well, though root has as many as it likes.
#[test]
fn with_few_threads_it_works_or_says_so() {
    let Some(prefix) = super::restricted_program::ordinary_user() else {
        return;
    };
    if prefix.is_empty() {
        eprintln!(
            "SKIPPED: other programs of this user count too, so a low limit of threads proves nothing"
        );
        return;
    }
    let host = with_many(2);
    super::restricted_program::give_away(host.temp.path());
    let long: Vec<u32> = (1..40).collect();
    let threads = if is_long() {
        &long[..]
    } else {
        &[1, 3, 5, 9, 14]
    };
    for threads in threads {
        let line = format!("ulimit -u {threads} && exec \"$@\"");
        let prefix = [&prefix[..], &["bash", "-c", &line, "bash"]].concat();
        let run = run(&mut wrapped(&host, &prefix, &["backup"]));
        match run.code {
            Some(0) => {}
            Some(1) => run.assert_says(&["next: give it more memory or threads"]),
            _ => panic!("{threads} threads: {}", run.said()),
        }
    }
    host.backup();
    let out = host.restore("latest", "after");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}
