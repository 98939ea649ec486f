//! `recover.py` alone: pages of earlier snapshots, features that it does not know, and files that are none.

use std::fs;
use std::path::{Path, PathBuf};

use sealift::base::ids::Hash;
use sealift::format::manifest::{ArchiveKind, Manifest};
use serde_json::{Value, json};

use crate::support::cage::{Cage, republish};
use crate::support::handmade_repo::Repo;

/// A cage with two snapshots, and their manifests.
fn two() -> (Cage, Manifest, Manifest) {
    let mut cage = Cage::new();
    let tree = cage.tree.clone();
    let first = cage.repo.push(&tree);
    let second = cage.repo.push(&tree);
    (cage, first, second)
}

#[test]
fn a_feature_that_the_script_does_not_know_is_named() {
    let (cage, _, second) = two();
    republish(&cage.repo, &second, |core, _| {
        core["requires"]
            .as_array_mut()
            .unwrap()
            .push(json!("from-the-future"));
    });
    let ran = cage.recover(&[]);
    ran.ended("a new feature", &[1]);
    let said = "it requires from-the-future, which this recover.py does not know";
    assert!(ran.err.contains(said), "{}", ran.said());
    cage.recover(&["--snapshot", "1"])
        .ended("the older one", &[0]);
}

/// Stores an object in `tables/`; returns its name.
fn store(repo: &Repo, object: &Value) -> String {
    let bytes = format!("{object}\n").into_bytes();
    let name = Hash::sha256(&bytes).to_string();
    repo.write(&format!("tables/{name}.json"), &bytes);
    name
}

fn page(repo: &Repo, rows: &[Value]) -> String {
    store(
        repo,
        &json!({"made": ["0123456789abcdef", 2], "known": rows}),
    )
}

/// The second manifest again, with its `known` in pages.
fn in_pages(cage: &Cage, second: &Manifest, directories: &[String], pages: &[String]) {
    republish(&cage.repo, second, |core, _| {
        core["requires"] = json!(["known-pages"]);
        core["known"] = json!({"directories": directories, "pages": pages});
    });
}

#[test]
fn earlier_snapshots_are_read_from_pages() {
    // The page itself, and below a directory.
    for is_nested in [false, true] {
        let (cage, first, second) = two();
        let row = json!([
            1,
            first.name().stamp.to_string(),
            first.core_hash.to_string()
        ]);
        let gone = json!([0, "20260101T000000Z", "0".repeat(64)]);
        let old = page(&cage.repo, &[gone]);
        let new = page(&cage.repo, &[row]);
        match is_nested {
            false => in_pages(&cage, &second, &[], &[old, new]),
            true => {
                let directory = store(&cage.repo, &json!({"directory": [old]}));
                in_pages(&cage, &second, &[directory], &[new]);
            }
        }
        let ran = cage.recover(&[]);
        ran.ended("pages", &[0]);
        let missing = "snapshot 20260101T000000Z (sequence 0) is known";
        assert!(ran.err.contains(missing), "{}", ran.said());
        assert!(!ran.err.contains("could not be checked"), "{}", ran.said());
    }
    // Another first snapshot than the one that is here.
    let (cage, first, second) = two();
    let row = json!([1, first.name().stamp.to_string(), "1".repeat(64)]);
    let other = page(&cage.repo, &[row]);
    in_pages(&cage, &second, &[], &[other]);
    let ran = cage.recover(&[]);
    ran.ended("another history", &[1]);
    assert!(ran.err.contains("does not follow from"), "{}", ran.said());
}

/// The snapshot's own archives are named by other pages: it comes back, and what could not be checked is said.
#[test]
fn pages_of_earlier_snapshots_that_are_no_use_are_named() {
    let rows = |numbers: &[u64]| -> Vec<Value> {
        let row = |n: &u64| json!([n, "20260101T000000Z", "0".repeat(64)]);
        numbers.iter().map(row).collect()
    };
    type Craft = fn(&Repo, &dyn Fn(&[u64]) -> Vec<Value>) -> (Vec<String>, Vec<String>);
    let cases: [(&str, Craft); 7] = [
        ("missing", |_, _| (vec![], vec!["ab".repeat(32)])),
        ("no hash", |_, _| (vec![], vec!["../../recover".to_owned()])),
        ("swapped", |repo, rows| {
            let name = page(repo, &rows(&[1]));
            repo.write(&format!("tables/{name}.json"), b"{\"known\":[]}\n");
            (vec![], vec![name])
        }),
        ("out of order", |repo, rows| {
            (vec![], vec![page(repo, &rows(&[1, 0]))])
        }),
        ("too large", |repo, rows| {
            (
                vec![],
                vec![page(repo, &rows(&(0..1000).collect::<Vec<_>>()))],
            )
        }),
        ("a page for a directory", |repo, rows| {
            (vec![page(repo, &rows(&[0]))], vec![])
        }),
        ("too many", |repo, _| {
            (vec![store(repo, &json!({"directory": []})); 1025], vec![])
        }),
    ];
    for (what, craft) in cases {
        let (cage, _, second) = two();
        let (directories, pages) = craft(&cage.repo, &rows);
        in_pages(&cage, &second, &directories, &pages);
        let ran = cage.recover(&[]);
        ran.ended(what, &[0]);
        assert!(
            ran.err.contains("could not be checked"),
            "{what}: {}",
            ran.said()
        );
    }
    // `known` and `requires` must agree.
    let (cage, _, second) = two();
    republish(&cage.repo, &second, |core, _| {
        core["requires"] = json!([]);
        core["known"] = json!({"directories": [], "pages": []});
    });
    let ran = cage.recover(&[]);
    ran.ended("malformed", &[1]);
    assert!(ran.err.contains("`known` is malformed"), "{}", ran.said());
}

/// A FIFO has another end that never comes.
#[test]
fn a_fifo_in_a_files_place_is_not_waited_for() {
    let replaced = |path: &Path| {
        fs::remove_file(path).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    };
    type Pick = fn(&Repo) -> PathBuf;
    let cases: [(&str, Pick); 6] = [
        ("an archive", |repo| repo.newest_archive(ArchiveKind::Data)),
        ("an index archive", |repo| {
            repo.newest_archive(ArchiveKind::Index)
        }),
        ("a page", |repo| repo.objects("tables").remove(0)),
        ("a manifest", |repo| repo.objects("manifests").remove(0)),
        ("a signature", |repo| repo.objects("manifests").remove(1)),
        ("the identity", |repo| repo.key_file.clone()),
    ];
    for (what, pick) in cases {
        let cage = Cage::lying(|_| {});
        replaced(&pick(&cage.repo));
        let ran = cage.recover(&[]);
        ran.ended(what, &[1]);
        assert!(ran.err.contains("FAILED"), "{what}: {}", ran.said());
    }
    let cage = Cage::lying(|_| {});
    fs::write(cage.repo.path("signers"), "").unwrap();
    replaced(&cage.repo.path("signers"));
    let ran = cage.recover(&["--signer", "signers"]);
    ran.ended("allowed_signers", &[1]);
    assert!(ran.err.contains("is no file"), "{}", ran.said());
}

/// A target can hold any number of planted manifests: the script names some of them and counts the rest.
#[test]
fn many_planted_manifests_are_named_and_counted() {
    let cage = Cage::lying(|_| {});
    for n in 0..60 {
        let name = format!("manifests/00000000-20260101T000000Z-{n:016x}.json");
        cage.repo.write(&name, b"{}\n{}\n");
    }
    let ran = cage.recover(&[]);
    ran.ended("planted manifests", &[0]);
    assert_eq!(ran.err.matches("warning: ").count(), 21, "{}", ran.said());
    assert!(ran.err.contains("and 40 more of these"), "{}", ran.said());
}
