//! Tampering: each kind of object, flipped, cut short, swapped, deleted, replayed, forged. Restore and
//! `recover.py` refuse each, name what is wrong, and leave nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift::base::ids::{Hash, ObjectKey};
use sealift::format::manifest::{ArchiveKind, ArchiveRow, Manifest, ManifestName, TablePage};
use sealift::format::signature::{MANIFEST_NAMESPACE, Signer};

use crate::support::files::files;
use crate::support::host::{Host, joined};
use crate::support::tree::noise;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    DataArchive,
    IndexArchive,
    Table,
    Manifest,
    Signature,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    Flip,
    Truncate,
    Empty,
    Swap,
    Delete,
    Replay,
}

pub const KINDS: [Kind; 5] = [
    Kind::DataArchive,
    Kind::IndexArchive,
    Kind::Table,
    Kind::Manifest,
    Kind::Signature,
];
pub const ACTIONS: [Action; 6] = [
    Action::Flip,
    Action::Truncate,
    Action::Empty,
    Action::Swap,
    Action::Delete,
    Action::Replay,
];

/// Three snapshots, each with new content.
pub fn prepared() -> Host {
    let host = Host::new();
    for n in 0..3 {
        fs::write(host.data().join(format!("file-{n}")), noise(n, 30_000)).unwrap();
        host.backup();
    }
    fs::rename(host.path("repo"), host.path("good")).unwrap();
    host
}

pub fn reset(host: &Host) {
    let _ = fs::remove_dir_all(host.path("repo"));
    let done = Command::new("cp")
        .arg("-a")
        .arg(host.path("good"))
        .arg(host.path("repo"))
        .status()
        .unwrap();
    assert!(done.success());
}

/// The manifests, oldest first.
fn manifests(host: &Host) -> Vec<Manifest> {
    let files = files(&host.folder().join("manifests")).into_iter();
    let manifests = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    manifests
        .map(|path| Manifest::parse(&fs::read(path).unwrap()).unwrap())
        .collect()
}

/// The manifest of the newest snapshot.
fn newest(host: &Host) -> (ManifestName, Manifest) {
    let newest = manifests(host).pop().unwrap();
    (newest.name(), newest)
}

/// The objects of a kind; the last one is needed by the newest snapshot.
pub fn objects(host: &Host, kind: Kind) -> Vec<PathBuf> {
    let mut found: Vec<ObjectKey> = Vec::new();
    for manifest in manifests(host) {
        let name = manifest.name();
        match kind {
            Kind::Manifest => found.push(name.key()),
            Kind::Signature => found.push(name.signature_key()),
            Kind::Table => found.extend(manifest.pages.iter().map(ObjectKey::table)),
            Kind::DataArchive | Kind::IndexArchive => {
                for page in &manifest.pages {
                    let page =
                        fs::read(host.folder().join(ObjectKey::table(page).as_str())).unwrap();
                    let rows = TablePage::parse(&page).unwrap().rows;
                    let data = |row: &&ArchiveRow| {
                        (row.kind == ArchiveKind::Data) == (kind == Kind::DataArchive)
                    };
                    found.extend(rows.iter().filter(data).map(ArchiveRow::key));
                }
            }
        }
    }
    found
        .iter()
        .map(|key| host.folder().join(key.as_str()))
        .collect()
}

/// Does it to the newest of a kind; gives what was touched.
pub fn tamper(host: &Host, kind: Kind, action: Action) -> Vec<PathBuf> {
    let other = |objects: &[PathBuf]| {
        let newest = objects.last().unwrap();
        objects
            .iter()
            .rfind(|object| *object != newest)
            .unwrap()
            .clone()
    };
    let objects = objects(host, kind);
    let object = objects.last().unwrap().clone();
    let mut bytes = fs::read(&object).unwrap();
    let mut touched = vec![object.clone()];
    match action {
        Action::Flip => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        // A signature without its last newline is a whole one.
        Action::Truncate if kind == Kind::Signature => bytes.truncate(bytes.len() / 2),
        Action::Truncate => bytes.truncate(bytes.len() - 1),
        Action::Empty => bytes.clear(),
        // Another genuine object of that kind, under this one's name.
        Action::Swap => {
            let other = other(&objects);
            let theirs = fs::read(&other).unwrap();
            fs::write(&other, &bytes).unwrap();
            touched.push(other);
            bytes = theirs;
        }
        Action::Replay => bytes = fs::read(other(&objects)).unwrap(),
        Action::Delete => {
            fs::remove_file(&object).unwrap();
            return touched;
        }
    }
    fs::write(&object, bytes).unwrap();
    touched
}

/// What a message must hold to name the object: some digits of its hash, or its manifest's stamp.
pub fn names(text: &str, object: &Path) -> bool {
    let file = object.file_name().unwrap().to_string_lossy().into_owned();
    let stem = file.split('.').next().unwrap();
    text.contains(stem) || text.contains(&stem[..12])
}

#[test]
fn every_tampering_is_refused_by_name() {
    let host = prepared();
    let mut refused = 0;
    for kind in KINDS {
        for action in ACTIONS {
            reset(&host);
            let case = format!("{kind:?}-{action:?}");
            let touched = tamper(&host, kind, action);
            if (kind, action) == (Kind::Manifest, Action::Delete) {
                // The newest is hidden: only who remembers it can know.
                continue;
            }
            let said = host.refused("latest", &format!("out-{case}"));
            assert!(
                touched.iter().any(|object| names(&said, object)),
                "{case}: {touched:?}
{said}"
            );
            let said = host.recover_refused("latest", &format!("by-hand-{case}"));
            assert!(
                touched.iter().any(|object| names(&said, object)),
                "{case} by hand: {touched:?}
{said}"
            );
            refused += 1;
        }
    }
    assert!(refused == 29, "{refused}");
}

#[test]
fn a_hidden_newest_snapshot_shows_to_who_remembers_it() {
    let host = prepared();
    reset(&host);
    let (name, _) = newest(&host);
    for ending in ["json", "json.sig"] {
        fs::remove_file(host.folder().join(format!("manifests/{name}.{ending}"))).unwrap();
    }
    let repo = host.path("repo").display().to_string();
    let mut arguments = vec![
        "restore",
        "latest",
        "--from",
        &repo,
        "--identity",
        "key.txt",
        "--signer",
        &host.signer,
        "--to",
        "out",
    ];
    arguments.extend(["--at-least", "3"]);
    let (_, err) = host.exits(&arguments, 1);
    assert!(err.contains("at least 3"), "{err}");
    // The host remembers, too.
    let status = host.json_exits(&["status"], &[3]);
    assert!(status.to_string().contains("is gone"), "{status}");
}

#[test]
fn a_deleted_older_manifest_is_a_finding() {
    let host = prepared();
    reset(&host);
    let oldest = files(&host.folder().join("manifests"));
    for file in &oldest[..2] {
        fs::remove_file(file).unwrap();
    }
    let list = host.json_exits(&["list", "--from", "repo", "--signer", &host.signer], &[3]);
    assert!(
        list["findings"].to_string().contains("is missing"),
        "{list}"
    );
    host.restore("latest", "out");
}

/// A manifest of the highest sequence, perfect but for its signer.
#[test]
fn a_forged_manifest_is_refused() {
    let host = prepared();
    reset(&host);
    let (_, manifest) = newest(&host);
    let forger = Signer::generate("forger").unwrap();
    let mut core = manifest.core.clone();
    core.sequence += 1;
    core.parents = vec![manifest.core_hash];
    let forged = Manifest::new(core, manifest.pages.clone());
    let signature = forger.sign(MANIFEST_NAMESPACE, &forged.bytes).unwrap();
    let name = forged.name();
    fs::write(host.folder().join(name.key().as_str()), &forged.bytes).unwrap();
    fs::write(host.folder().join(name.signature_key().as_str()), signature).unwrap();
    for said in [
        host.refused("latest", "out"),
        host.recover_refused("latest", "by-hand"),
    ] {
        assert!(said.contains(&name.hash16), "{said}");
    }
    // Without a pinned signer two unrelated signers are refused as well.
    let (_, err) = host.exits(
        &[
            "restore",
            "latest",
            "--from",
            "repo",
            "--identity",
            "key.txt",
            "--accept-signer",
            "--to",
            "out",
        ],
        1,
    );
    assert!(err.contains("unrelated signers"), "{err}");
    // A genuine one can still be named.
    host.restore("3", "genuine");
}

/// Anyone who knows the recipients can seal: only the manifest's hashes tell who did.
#[test]
fn an_archive_sealed_by_someone_else_to_the_same_recipients_is_refused() {
    let host = prepared();
    for kind in [Kind::DataArchive, Kind::IndexArchive] {
        reset(&host);
        let object = objects(&host, kind).pop().unwrap();
        let line = "age -d -i key.txt \"$1\" | age -r \"$2\" -o resealed && mv resealed \"$1\"";
        let done = Command::new("bash")
            .current_dir(host.temp.path())
            .args(["-o", "pipefail", "-c", line, "bash"])
            .arg(&object)
            .arg(&host.recipient)
            .status()
            .unwrap();
        assert!(done.success());
        for said in [
            host.refused("latest", "out"),
            host.recover_refused("latest", "by-hand"),
        ] {
            assert!(names(&said, &object), "{said}");
        }
    }
}

#[test]
fn a_manifest_of_another_host_is_refused() {
    let host = prepared();
    reset(&host);
    fs::rename(host.folder(), host.path("repo/other")).unwrap();
    let repo = host.path("repo").display().to_string();
    let (_, err) = host.exits(
        &[
            "restore",
            "--from",
            &repo,
            "--identity",
            "key.txt",
            "--signer",
            &host.signer,
            "--to",
            "out",
        ],
        1,
    );
    assert!(err.contains("it belongs to host dalidou"), "{err}");
}

#[test]
fn the_wrong_signer_is_refused_and_an_unknown_one_asked_about() {
    let host = prepared();
    reset(&host);
    let wrong = Signer::generate("wrong").unwrap().fingerprint();
    let common = [
        "restore",
        "--from",
        "repo",
        "--identity",
        "key.txt",
        "--to",
        "out",
    ];
    let with = |more: &[&'static str]| joined(&common, more);
    let (_, err) = host.exits(&joined(&common, &["--signer", &wrong]), 1);
    assert!(err.contains("not a trusted signer"), "{err}");
    let (_, err) = host.exits(&with(&[]), 1);
    assert!(
        err.contains(&host.signer) && err.contains("--accept-signer"),
        "{err}"
    );
    assert!(!host.path("out").exists());
    host.ok(&with(&["--signer", "allowed_signers"]));
    assert_eq!(
        Hash::blake3(&fs::read(host.path("out/data/file-1")).unwrap()),
        Hash::blake3(&noise(1, 30_000))
    );
}
