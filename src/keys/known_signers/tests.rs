use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use proptest::prelude::*;

use super::file::{KnownSignersError, SignerFile, forget, read};
use super::*;
use crate::format::signature::Signer;

fn key(seed: u8) -> PublicKey {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
    PublicKey::from(pair.public)
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn signer(place: &str, name: &str, seed: u8) -> KnownSigner {
    let since = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    KnownSigner::new(
        place,
        &host(name),
        &key(seed),
        since,
        SignerOrigin::Confirmed,
    )
}

fn parse(lines: &[String]) -> KnownSigners {
    KnownSigners::parse(lines.join("\n").as_bytes())
}

#[test]
fn a_line_reads_like_one_of_known_hosts() {
    let line = signer("s3://backups/atocore", "dalidou", 1).to_string();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(
        words[..3],
        ["s3://backups/atocore", "dalidou", "ssh-ed25519"]
    );
    assert!(words[4].starts_with("SHA256:"), "{line}");
    assert_eq!(words[5..], ["2027-01-15T08:00:00Z", "confirmed"]);
}

fn any_signer() -> impl Strategy<Value = KnownSigner> {
    // Every character, blanks and controls too.
    let place = prop::collection::vec(any::<char>(), 1..20);
    let origin = prop::sample::select(ORIGINS.map(|(origin, _)| origin).to_vec());
    let seconds = 0..253_402_300_000_i64;
    (
        place,
        "[a-z][a-z0-9-]{0,20}[a-z0-9]",
        any::<u8>(),
        seconds,
        origin,
    )
        .prop_map(|(place, name, seed, seconds, origin)| {
            let place: String = place.into_iter().collect();
            let since = DateTime::from_timestamp(seconds, 0).unwrap();
            KnownSigner::new(&place, &host(&name), &key(seed), since, origin)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What is written is read back, whatever the place is called.
    #[test]
    fn lines_are_read_back_as_they_were_written(all in prop::collection::vec(any_signer(), 0..6)) {
        let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
        let read = parse(&lines);
        prop_assert_eq!(&read.damaged, &[]);
        let found: Vec<KnownSigner> = read.lines.into_iter().map(|(_, one)| one).collect();
        prop_assert_eq!(found, all);
    }

    /// Damage never makes a line trust another key: it is the same key, or the line has no effect.
    #[test]
    fn a_changed_byte_trusts_no_other_key(one in any_signer(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = one.to_string().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(byte != b'\n');
        bytes[at] = byte;
        for (_, found) in KnownSigners::parse(&bytes).lines {
            prop_assert_eq!(found.key, one.key.clone());
        }
    }
}

#[test]
fn each_kind_of_damage_is_named_and_its_line_trusts_nothing() {
    let good = signer("/repo", "dalidou", 1).to_string();
    let other = signer("/repo", "dalidou", 2);
    let words: Vec<&str> = good.split(' ').collect();
    let with = |at: usize, word: &str| {
        let mut words = words.clone();
        words[at] = word;
        words.join(" ")
    };
    let print = other.fingerprint();
    for (line, reason) in [
        (good[..40].to_owned(), "words"),
        (with(0, "/repo%"), "place"),
        (with(0, "/repo%FF"), "place"),
        (with(1, "no/host"), "host"),
        (with(3, "AAAA"), "key"),
        (with(4, &print), "fingerprint"),
        (with(5, "yesterday"), "time"),
        (with(6, "trusted"), "last word"),
        ("\0\0\0".to_owned(), "words"),
    ] {
        let read = parse(&[
            "# comment".to_owned(),
            String::new(),
            line.clone(),
            good.clone(),
        ]);
        assert_eq!(read.damaged.len(), 1, "{line}");
        assert_eq!(read.damaged[0].number, 3);
        assert!(
            read.damaged[0].reason.contains(reason),
            "{line}: {}",
            read.damaged[0].reason
        );
        assert_eq!(read.lines.len(), 1, "{line}");
        assert_eq!(read.lines[0].0, 4);
    }
    assert_eq!(KnownSigners::parse(b"\xff\xff\n").damaged.len(), 1);
}

#[test]
fn a_place_and_a_host_are_one_name() {
    let all = [
        signer("/a", "one", 1),
        signer("/a", "two", 2),
        signer("/b", "one", 3),
        signer("/a", "one", 4),
    ];
    let read = parse(&all.map(|one| one.to_string()));
    let numbers = |found: Vec<&(usize, KnownSigner)>| -> Vec<usize> {
        found.into_iter().map(|(number, _)| *number).collect()
    };
    assert_eq!(numbers(read.of("/a", &host("one"))), [1, 4]);
    assert_eq!(numbers(read.of("/a", &host("two"))), [2]);
    assert_eq!(numbers(read.of("/a", &host("three"))), [0; 0]);
    assert_eq!(numbers(read.elsewhere("/a", &host("one"))), [3]);
    assert_eq!(numbers(read.elsewhere("/c", &host("one"))), [1, 3, 4]);
    let trust = trust_in(&read.of("/a", &host("one")));
    for (seed, is_trusted) in [(1, true), (2, false), (3, false), (4, true)] {
        assert_eq!(
            trust.accepts(&host("one"), "sealift-manifest", &key(seed)),
            is_trusted
        );
        assert!(!trust.accepts(&host("two"), "sealift-manifest", &key(seed)));
    }
}

fn scene() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("config/sealift/known_signers");
    (temp, path)
}

fn add(path: &std::path::Path, signers: &[KnownSigner]) -> Vec<(usize, bool)> {
    SignerFile::open(path)
        .unwrap()
        .add(signers, &|_| false)
        .unwrap()
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_file_is_private_and_lines_are_numbered_as_an_editor_does() {
    let (_temp, path) = scene();
    assert_eq!(read(&path).unwrap(), KnownSigners::default());
    let two = [signer("/a", "one", 1), signer("/a", "two", 2)];
    assert_eq!(add(&path, &two), [(3, true), (4, true)]);
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    // Again, nothing is added.
    assert_eq!(add(&path, &two), [(3, false), (4, false)]);
    let lines: Vec<usize> = read(&path).unwrap().lines.iter().map(|(n, _)| *n).collect();
    assert_eq!(lines, [3, 4]);
    // After a line without an end, as an editor or a power cut may leave it.
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += "half a li";
    std::fs::write(&path, &text).unwrap();
    assert_eq!(add(&path, &[signer("/b", "one", 3)]), [(6, true)]);
    let read = read(&path).unwrap();
    assert_eq!(read.damaged.len(), 1);
    assert_eq!(read.of("/b", &host("one"))[0].0, 6);
}

#[test]
fn another_signer_that_came_meanwhile_is_not_joined_by_ours() {
    let (_temp, path) = scene();
    add(&path, &[signer("/a", "one", 1)]);
    let file = SignerFile::open(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    let late = [signer("/a", "one", 2)];
    let refused = file.add(&late, &|_| false);
    assert!(
        matches!(refused, Err(KnownSignersError::Changed { line: 3, .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // A rotation: the caller knew the first one.
    file.add(&late, &|one| one.key == key(1)).unwrap();
    assert_eq!(read(&path).unwrap().lines.len(), 2);
}

#[test]
fn concurrent_writers_lose_no_line() {
    let (_temp, path) = scene();
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..5 {
                    add(path, &[signer(&format!("/{seed}/{n}"), "one", seed)]);
                }
            });
        }
    });
    let read = read(&path).unwrap();
    assert_eq!((read.lines.len(), read.damaged.len()), (40, 0));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("# The signers").count(), 1);
}

#[test]
fn to_forget_a_signer_leaves_the_rest_as_it_is() {
    let (_temp, path) = scene();
    add(&path, &[signer("/a", "one", 1), signer("/a", "two", 2)]);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += "damaged\n# mine\n";
    std::fs::write(&path, &text).unwrap();
    let file = SignerFile::open(&path).unwrap();
    let gone = forget(&path, |one| one.host == host("one")).unwrap();
    assert_eq!(gone.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3]);
    let left = std::fs::read_to_string(&path).unwrap();
    let first = signer("/a", "one", 1).to_string();
    assert_eq!(left, text.replace(&format!("{first}\n"), ""));
    assert_eq!(mode(&path), 0o600);
    // A process that opened the file before does not write into the old one.
    let late = file.add(&[signer("/c", "one", 1)], &|_| false);
    assert!(
        matches!(late, Err(KnownSignersError::Io { .. })),
        "{late:?}"
    );
    assert_eq!(forget(&path, |one| one.host == host("one")).unwrap(), []);
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    let (_temp, path) = scene();
    add(&path, &[signer("/a", "one", 1)]);
    let dir = path.parent().unwrap();
    for (open, wide, closed) in [(path.as_path(), 0o620, 0o600), (dir, 0o770, 0o700)] {
        let chmod =
            |mode| std::fs::set_permissions(open, std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(wide);
        let refused = [
            read(&path).err(),
            SignerFile::open(&path).err(),
            forget(&path, |_| true).err(),
        ];
        for error in refused {
            assert!(
                matches!(error, Some(KnownSignersError::Exposed { .. })),
                "{error:?}"
            );
        }
        chmod(closed);
    }
    assert_eq!(read(&path).unwrap().lines.len(), 1);
}

#[test]
fn a_fifo_in_its_place_is_not_waited_for() {
    let (_temp, path) = scene();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    assert!(read(&path).is_err());
    assert!(SignerFile::open(&path).is_err());
}

#[test]
fn the_comment_of_a_key_does_not_count() {
    let made = Signer::generate("with a comment").unwrap();
    let now = crate::base::clock::now();
    let one = KnownSigner::new(
        "/a",
        &host("one"),
        made.public_key(),
        now,
        SignerOrigin::Accepted,
    );
    assert_eq!(parse(&[one.to_string()]).lines, [(1, one)]);
}
