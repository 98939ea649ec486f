//! An adversary who writes one of several targets plants marks and manifests there: the others do not grow by it, what was planted is
//! named, and nothing that is needed goes.

use std::fs;
use std::path::Path;
use std::process::Command;

use sealift::base::ids::Hash;
use sealift::format::manifest::{Manifest, ManifestName};
use sealift::format::signature::{PRUNE_NAMESPACE, Signer};

use crate::support::files::bytes_below;
use crate::support::files::files;
use crate::support::host::Host;
use crate::support::tree::noise;

/// A host with two folders as targets, `repo` (which others can write) and `safe`, and a backup on both.
fn two_targets() -> Host {
    let host = Host::new();
    for n in 0..4 {
        fs::write(host.data().join(format!("file-{n}")), noise(n, 60_000)).unwrap();
    }
    let safe = host.path("safe");
    fs::create_dir_all(safe.join("dalidou")).unwrap();
    let target = format!(
        "\n[[target]]\nname = \"safe\"\nurl = \"file://{}\"\n",
        safe.display()
    );
    fs::write(host.path("c.toml"), host.config() + &target).unwrap();
    host.backup();
    host
}

fn archives(folder: &Path) -> Vec<String> {
    let paths = files(&folder.join("archives")).into_iter();
    let name = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.split('.').next().unwrap().to_owned()
    };
    paths.map(name).collect()
}

/// A mark as `prune` writes it, of `archives`.
fn mark(n: u64, archives: &[String]) -> (String, Vec<u8>) {
    let nonce = format!("{n:016x}");
    let mark = serde_json::json!({
        "format": 1, "host": "dalidou", "marked_at": "2026-11-29T00:00:00Z", "nonce": nonce, "archives": archives,
    });
    let bytes = format!("{mark}\n").into_bytes();
    (Hash::sha256(&bytes).short(), bytes)
}

fn plant(folder: &Path, (name, bytes): &(String, Vec<u8>), signature: Option<&[u8]>) {
    let dir = folder.join("marks");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(format!("{name}.json")), bytes).unwrap();
    if let Some(signature) = signature {
        fs::write(dir.join(format!("{name}.json.sig")), signature).unwrap();
    }
}

fn newest(folder: &Path) -> Manifest {
    let mut manifests = files(&folder.join("manifests")).into_iter();
    let last = manifests.rfind(|path| path.extension().is_some_and(|e| e == "json"));
    Manifest::parse(&fs::read(last.unwrap()).unwrap()).unwrap()
}

fn warnings(report: &serde_json::Value) -> Vec<String> {
    let warnings = report["warnings"].as_array().unwrap().iter();
    warnings
        .map(|one| one.as_str().unwrap().to_owned())
        .collect()
}

/// Run after run, unsigned and signed by a stranger, and one that is signed for something else.
#[test]
fn a_planted_mark_makes_no_other_target_grow() {
    let host = two_targets();
    let (folder, safe) = (host.folder(), host.path("safe"));
    let stranger = Signer::generate("stranger").unwrap();
    let before = bytes_below(&safe);
    for n in 0..3 {
        let planted = mark(n, &archives(&folder));
        let signature = match n {
            0 => None,
            1 => Some(stranger.sign(PRUNE_NAMESPACE, &planted.1).unwrap()),
            _ => Some(fs::read_to_string(one_signature(&folder)).unwrap()),
        };
        plant(&folder, &planted, signature.as_deref().map(str::as_bytes));
        let report = host.json_exits(&["backup"], &[3]);
        let said = warnings(&report);
        let names = |text: &String| text.contains(&planted.0) && text.contains("ignored");
        assert!(said.iter().any(names), "{said:?}");
        assert_eq!(newest(&folder).core.marks_seen, [""; 0]);
    }
    let grown = bytes_below(&safe) - before;
    assert!(grown < 60_000, "{grown}");
    host.ok(&["verify", "--target", "safe", "--data"]);
    host.restore("latest", "out");
}

/// Some manifest's, in another namespace.
fn one_signature(folder: &Path) -> std::path::PathBuf {
    let mut manifests = files(&folder.join("manifests")).into_iter();
    let found = manifests.rfind(|path| path.extension().is_some_and(|e| e == "sig"));
    found.unwrap()
}

/// Thousands of marks: the manifest stays small, so do the messages, and the mark of a true prune is followed beside them.
#[test]
fn a_flood_of_marks_stays_where_it_is() {
    let mut host = two_targets();
    host.clock = Some("2026-12-01T06:00:00Z".to_owned());
    fs::write(host.data().join("file-0"), noise(10, 60_000)).unwrap();
    host.backup();
    host.clock = Some("2026-12-02T06:00:00Z".to_owned());
    fs::write(host.data().join("file-0"), noise(11, 60_000)).unwrap();
    host.backup();
    let prune = ["prune", "--target", "folder", "--policy", "last=1", "--yes"];
    let done = host.json(&prune);
    assert!(
        done["targets"][0]["done"]["marked_archives"].as_u64() > Some(0),
        "{done}"
    );
    let folder = host.folder();
    let (true_mark, _) = files(&folder.join("marks"))
        .into_iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .find_map(|name| Some((name.strip_suffix(".json.sig")?.to_owned(), ())))
        .expect("it is signed");
    for n in 0..2000 {
        plant(&folder, &mark(n, &[]), None);
    }
    let report = host.json_exits(&["backup"], &[3]);
    let said = warnings(&report);
    assert!(said.len() < 30, "{}", said.len());
    let all = said.join("\n");
    assert!(
        all.contains("more prune marks like these") && all.contains("were not read"),
        "{all}"
    );
    assert_eq!(newest(&folder).core.marks_seen, [true_mark]);
    // Those that were read and are of no use the next prune removes.
    let before = files(&folder.join("marks")).len();
    host.exits_any(&prune, &[0, 3]);
    assert!(files(&folder.join("marks")).len() + 200 < before);
    let (_, said) = host.exits(&["sync", "safe", "folder"], 1);
    assert!(said.contains("prune marks that were not read"), "{said}");
}

/// A mark by an older prune is followed as it was, if it names little; and the next prune would replace it.
#[test]
fn an_unsigned_mark_is_followed_if_it_names_little() {
    let mut host = two_targets();
    let old: Vec<String> = archives(&host.folder());
    for n in 0..14 {
        host.clock = Some(format!("2026-12-{:02}T06:00:00Z", n + 1));
        fs::write(host.data().join("today"), noise(100 + n, 60_000)).unwrap();
        host.backup();
    }
    // What one day needed and no later one.
    let folder = host.folder();
    let days: Vec<String> = archives(&folder)
        .into_iter()
        .filter(|one| !old.contains(one))
        .collect();
    let needed = needed_by_newest(&host);
    let free: Vec<String> = days
        .into_iter()
        .filter(|one| !needed.contains(one))
        .collect();
    host.clock = Some("2026-12-20T06:00:00Z".to_owned());
    plant(&folder, &mark(1, &free[..1]), None);
    let report = host.backup();
    assert_eq!(warnings(&report), [""; 0]);
    assert_eq!(newest(&folder).core.marks_seen, [mark(1, &free[..1]).0]);
    // Many of them, or one that names much, are not.
    plant(&folder, &mark(2, &free), None);
    let report = host.json_exits(&["backup"], &[3]);
    assert!(warnings(&report)[0].contains("not signed"), "{report}");
    assert_eq!(newest(&folder).core.marks_seen, [""; 0]);
}

/// The archives that the newest manifest names, by their BLAKE3.
fn needed_by_newest(host: &Host) -> Vec<String> {
    let pages = newest(&host.folder()).pages.into_iter().flat_map(|page| {
        let bytes = fs::read(host.folder().join(format!("tables/{page}.json"))).unwrap();
        sealift::format::manifest::TablePage::parse(&bytes)
            .unwrap()
            .rows
    });
    pages.map(|row| row.blake3.to_string()).collect()
}

/// A prune that was shown a part of the manifests marks what the others need. The host knows better.
#[test]
fn a_true_mark_that_was_made_of_half_the_truth_is_ignored() {
    let mut host = two_targets();
    for n in 1..4 {
        host.clock = Some(format!("2026-12-{n:02}T06:00:00Z"));
        fs::write(host.data().join("file-0"), noise(20 + n, 60_000)).unwrap();
        host.backup();
    }
    host.clock = Some("2027-01-20T06:00:00Z".to_owned());
    let hidden: Vec<_> = files(&host.folder().join("manifests"))
        .into_iter()
        .filter(|path| !path.to_string_lossy().contains("/00000001-"))
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    hidden
        .iter()
        .for_each(|(_, path)| fs::remove_file(path).unwrap());
    for path in files(&host.folder().join("archives")) {
        let old = Command::new("touch")
            .args(["-d", "2026-12-25"])
            .arg(path)
            .status()
            .unwrap();
        assert!(old.success());
    }
    let done = host.json(&["prune", "--target", "folder", "--policy", "last=1", "--yes"]);
    assert!(
        done["targets"][0]["done"]["marked_archives"].as_u64() > Some(0),
        "{done}"
    );
    hidden
        .iter()
        .for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    let before = bytes_below(&host.path("safe"));
    let report = host.json_exits(&["backup"], &[3]);
    let said = warnings(&report).join("\n");
    assert!(
        said.contains("names archives that the newest snapshot needs"),
        "{said}"
    );
    assert!(bytes_below(&host.path("safe")) - before < 60_000);
    // The next prune sees all, and puts it right.
    host.ok(&["prune", "--target", "folder", "--policy", "last=9"]);
    let report = host.backup();
    assert_eq!(warnings(&report), [""; 0]);
    host.ok(&["verify", "--data"]);
}

/// Junk manifests: some are named, and how many more there are.
#[test]
fn a_flood_of_manifests_fills_no_message() {
    let host = two_targets();
    for n in 0..100u64 {
        let name: ManifestName = format!("{:08}-20260407T060000Z-{n:016x}", n + 10)
            .parse()
            .unwrap();
        fs::write(host.folder().join(name.key().as_str()), b"planted").unwrap();
    }
    let report = host.json_exits(&["backup"], &[3]);
    let said = warnings(&report);
    assert!(said.len() <= 22, "{}", said.len());
    assert!(said.iter().any(|text| text.contains("80 more")), "{said:?}");
}
