//! `allowed_signers` mean to Sealift what they mean to `ssh-keygen -Y verify`, line by line.
//!
//! Generated files are shown to both. Equality is the rule; the exceptions are in
//! [`is_refused_on_purpose`]. `SEALIFT_SIGNERS_SEED` and `SEALIFT_SIGNERS_CASES` choose others.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use chrono::{DateTime, Utc};
use sealift::base::ids::HostName;
use sealift::format::allowed_signers::parse_allowed_signers;
use sealift::format::signature::{self, MANIFEST_NAMESPACE, PRUNE_NAMESPACE, Signer, Trust};

use crate::support::random::Random;

const MESSAGE: &[u8] = b"what was signed\n";
const HOSTS: &[&str] = &["h", "dalidou", "db.example.org"];
/// Files of a run; each is asked about once.
const CASES: u64 = 400;
const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Europe/Dublin",
];
const ZONE: &str = "SEALIFT_SIGNERS_ZONE";

struct Scene {
    dir: tempfile::TempDir,
    signer: Signer,
    /// Lines of keys: the signer's, a stranger's Ed25519, RSA, ECDSA, a certificate.
    keys: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::generate("the signer").unwrap();
        signer.save(&dir.path().join("signer")).unwrap();
        fs::write(dir.path().join("message"), MESSAGE).unwrap();
        for namespace in [MANIFEST_NAMESPACE, PRUNE_NAMESPACE] {
            let signature = signer.sign(namespace, MESSAGE).unwrap();
            fs::write(dir.path().join(namespace), signature).unwrap();
        }
        let mut keys = vec![signer.public_line()];
        for kind in ["ed25519", "rsa", "ecdsa"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-N", "", "-C", "a stranger", "-t", kind, "-f", kind])
                .current_dir(dir.path())
                .status();
            assert!(made.unwrap().success());
            let public = dir.path().join(format!("{kind}.pub"));
            keys.push(fs::read_to_string(public).unwrap());
        }
        let certified = Command::new("ssh-keygen")
            .args(["-q", "-s", "ed25519", "-I", "id", "-n", "h", "signer.pub"])
            .current_dir(dir.path())
            .status();
        assert!(certified.unwrap().success());
        keys.push(fs::read_to_string(dir.path().join("signer-cert.pub")).unwrap());
        for key in &mut keys {
            *key = key.trim_end().to_owned();
        }
        Self { dir, signer, keys }
    }

    fn key(&self, random: &mut Random) -> String {
        let which = match random.one_in(8) {
            true => 1 + random.below(self.keys.len() - 1),
            false => 0,
        };
        let mut words = self.keys[which].splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (mut kind, mut digits, mut comment) = (word(), word(), word());
        if random.one_in(24) {
            kind = random
                .pick(&[
                    "ssh-rsa",
                    "ssh-ed25519",
                    "rsa-sha2-512",
                    "SSH-ED25519",
                    "ssh-x",
                    "",
                ])
                .to_owned();
        }
        match random.below(40) {
            0 => digits.truncate(random.below(digits.len())),
            1 => digits.insert(
                random.below(digits.len()),
                ['\r', '\x0b', '\x0c'][random.below(3)],
            ),
            2 => digits.push_str(random.pick(&["=", "==", "A", "AAAA", "\"", ","])),
            3 => digits.insert(
                random.below(digits.len()),
                ['-', ' ', '\t', '=', '\0'][random.below(5)],
            ),
            4 => {
                // The same bits but for what the last digit has too many of.
                digits.pop();
                digits.push('B');
            }
            _ => {}
        }
        match random.below(6) {
            0 => comment.clear(),
            1 => {
                comment = random
                    .pick(&["a \"quoted", "# not a comment", "cert-authority", "ä"])
                    .to_owned()
            }
            _ => {}
        }
        let gap = random.pick(&[" ", " ", " ", "\t", "  ", " \t "]);
        let gap2 = random.pick(&[" ", " ", "\t", ""]);
        format!("{kind}{gap}{digits}{gap2}{comment}")
    }

    fn ssh_keygen_accepts(
        &self,
        file: &Path,
        host: &str,
        namespace: &str,
        options: &[&str],
    ) -> bool {
        let verified = Command::new("ssh-keygen")
            .args(["-q", "-Y", "verify"])
            .args(options)
            .args(["-I", host, "-n", namespace, "-f"])
            .arg(file)
            .arg("-s")
            .arg(self.dir.path().join(namespace))
            .stdin(fs::File::open(self.dir.path().join("message")).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        verified.unwrap().success()
    }

    fn sealift_accepts(&self, file: &Path, host: &str, namespace: &'static str) -> bool {
        let signature = fs::read(self.dir.path().join(namespace)).unwrap();
        let key = signature::verify(&signature, namespace, MESSAGE).unwrap();
        let host: HostName = host.parse().unwrap();
        let trust = Trust::parse(&file.display().to_string());
        trust.is_ok_and(|trust| trust.accepts(&host, namespace, &key))
    }

    /// What `ssh-keygen` says of a line at another time than now.
    fn theirs_at(&self, line: &str, time: DateTime<Utc>) -> bool {
        let file = self.dir.path().join("allowed_signers");
        fs::write(&file, line).unwrap();
        let option = format!("verify-time={}", time.format("%Y%m%d%H%M%SZ"));
        self.ssh_keygen_accepts(&file, "h", MANIFEST_NAMESPACE, &["-O", &option])
    }

    /// What Sealift says of it.
    fn ours_at(&self, line: &str, time: DateTime<Utc>) -> bool {
        let (key, host) = (self.signer.public_key(), "h".parse().unwrap());
        let signers = parse_allowed_signers(line.as_bytes()).signers;
        signers
            .iter()
            .any(|signer| signer.accepts(&host, MANIFEST_NAMESPACE, key, time.timestamp()))
    }

    /// Asserts that both say the same of a file.
    fn compare(&self, content: &[u8], host: &str, namespace: &'static str) -> bool {
        let file = self.dir.path().join("allowed_signers");
        fs::write(&file, content).unwrap();
        let mut verdicts = (false, false);
        // A time that passes between the two questions is asked about again.
        for _ in 0..2 {
            verdicts = (
                self.ssh_keygen_accepts(&file, host, namespace, &[]),
                self.sealift_accepts(&file, host, namespace),
            );
            let is_stricter = verdicts == (true, false) && is_refused_on_purpose(content);
            if verdicts.0 == verdicts.1 || is_stricter {
                return verdicts.1;
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        panic!(
            "ssh-keygen {} and sealift {} for {host} in {namespace}:\n{}\n{content:?}",
            verdicts.0,
            verdicts.1,
            String::from_utf8_lossy(content)
        );
    }
}

/// A word of a pattern list.
fn pattern(random: &mut Random, names: &[&str]) -> String {
    let name = random.pick(names);
    let mut pattern = match random.below(8) {
        0 => "*".to_owned(),
        1 => format!("{}*", &name[..random.below(name.len() + 1)]),
        2 => format!("*{}", &name[random.below(name.len())..]),
        3 => "?".repeat(name.len()),
        4 => name.to_uppercase(),
        5 => random.pick(&["", "nobody", "!", "*?", "**"]).to_owned(),
        _ => name.to_owned(),
    };
    if random.one_in(8) {
        pattern.insert(0, '!');
    }
    pattern
}

fn patterns(random: &mut Random, names: &[&str]) -> String {
    let count = 1 + random.below(3);
    let all: Vec<String> = (0..count).map(|_| pattern(random, names)).collect();
    all.join(",")
}

/// A time near now or anywhere, in any form.
fn time(random: &mut Random) -> String {
    if random.one_in(6) {
        let odd = [
            "19700101",
            "19700101Z",
            "00010101Z",
            "20260231Z",
            "20261301",
            "2026 1 1",
            "99991231",
            "20260101240000",
            "202601010060",
            "20260101000061",
            "2026-1-1",
            "",
            "Z",
            "20200101UTC",
            "20990101utc",
            "+2026101",
            "20260101z",
            "2026010100",
            "0000 1 1Z",
        ];
        return random.pick(&odd).to_owned();
    }
    // Away from now, whatever whole quarter of an hour a zone is away from UTC.
    let steps = [
        -40_000, -2000, -100, -9, -5, -3, -1, 0, 1, 3, 5, 9, 100, 2000, 40_000,
    ];
    let quarters = steps[random.below(steps.len())] + random.below(4) as i64;
    let time = Utc::now() + chrono::Duration::seconds(quarters * 900 + 450);
    let form = random.pick(&["%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S"]);
    format!(
        "{}{}",
        time.format(form),
        random.pick(&["", "", "Z", "z", "UTC"])
    )
}

fn option(random: &mut Random) -> String {
    let namespaces = [MANIFEST_NAMESPACE, PRUNE_NAMESPACE, "git"];
    let mut option = match random.below(9) {
        0 => random
            .pick(&[
                "cert-authority",
                "Cert-Authority",
                "cert-authorityx",
                "cert-authority=\"\"",
            ])
            .to_owned(),
        1..5 => format!("namespaces=\"{}\"", patterns(random, &namespaces)),
        5 => format!("valid-after=\"{}\"", time(random)),
        6 => format!("valid-before=\"{}\"", time(random)),
        7 => format!(
            "valid-before=\"{}Z\"",
            (Utc::now() + chrono::Duration::days(9)).format("%Y%m%d")
        ),
        _ => random
            .pick(&[
                "no-touch-required",
                "namespaces=git",
                "namespaces=\"git",
                "namespaces=\"a b\\\"c\"",
                "x=\"y\"",
                "namespaces",
                "",
            ])
            .to_owned(),
    };
    if random.one_in(6) {
        option = option
            .replace("namespaces", "NameSpaces")
            .replace("valid", "VALID");
    }
    option
}

fn line(scene: &Scene, random: &mut Random) -> Vec<u8> {
    if random.one_in(12) {
        return random
            .pick(&["", "#h", "  # x", "\t", "h", "\"h", "h,", "\"\"", "\r"])
            .into();
    }
    let mut principals = patterns(random, HOSTS);
    match random.below(10) {
        0 => principals = format!("\"{principals}\""),
        1 => principals = format!("{principals}\",{}\"", random.pick(HOSTS)),
        2 => principals = format!("\"{principals}, x\""),
        3 => principals = format!("\"{principals}"),
        _ => {}
    }
    let mut line = principals;
    let lead = random.pick(&["", "", "", " ", "\t", "\r"]);
    line.insert_str(0, lead);
    line.push_str(random.pick(&[" ", " ", " ", "\t", "  ", "\r", ""]));
    if random.one_in(2) {
        let count = 1 + random.below(5) / 3;
        let options: Vec<String> = (0..count).map(|_| option(random)).collect();
        line.push_str(&options.join(random.pick(&[",", ",", ",", ",,", ", ", " "])));
        line.push_str(random.pick(&[" ", " ", " ", "\t", "  ", ", ", ""]));
    }
    line.push_str(&scene.key(random));
    let mut line = line.into_bytes();
    if random.one_in(10) {
        let odd = b"\"\\,! =\0\xff#\t\r*";
        let (at, byte) = (random.below(line.len()), odd[random.below(odd.len())]);
        match random.below(3) {
            0 => line.insert(at, byte),
            1 => line[at] = byte,
            _ => drop(line.remove(at)),
        }
    }
    line
}

/// A file that is one public key is `--signer`'s other form, and no list of signers.
fn is_public_key(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    text.trim().lines().count() == 1 && text.trim_start().starts_with("ssh-ed25519 AAAA")
}

/// Shapes that Sealift refuses and `ssh-keygen` accepts; docs/decisions.md says why.
fn is_refused_on_purpose(content: &[u8]) -> bool {
    // Newer versions of OpenSSH accept both, older ones refuse them.
    let text = String::from_utf8_lossy(content).to_lowercase();
    let is_before_1970 = ["valid-before=\"0", "valid-before=\"1969"];
    text.lines()
        .any(|line| line.trim_start_matches([' ', '\t']).starts_with('\r'))
        || is_before_1970.iter().any(|start| text.contains(start))
}

fn cases(variable: &str, usual: u64) -> u64 {
    let chosen = std::env::var(variable);
    chosen.map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn generated_files_mean_what_they_mean_to_ssh_keygen() {
    let scene = Scene::new();
    let seed = cases("SEALIFT_SIGNERS_SEED", 17);
    let mut random = Random::new(seed);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..cases("SEALIFT_SIGNERS_CASES", CASES) {
        let ending = random.pick(&["\n", "\n", "\n", "\r\n"]).as_bytes();
        let count = 1 + random.below(5) / 3;
        let lines: Vec<Vec<u8>> = (0..count).map(|_| line(&scene, &mut random)).collect();
        let mut content = lines.join(ending);
        if !random.one_in(6) {
            content.extend(ending);
        }
        let host = random.pick(HOSTS);
        let namespace = match random.one_in(4) {
            true => PRUNE_NAMESPACE,
            false => MANIFEST_NAMESPACE,
        };
        if is_public_key(&content) {
            continue;
        }
        match scene.compare(&content, host, namespace) {
            true => accepted += 1,
            false => refused += 1,
        }
    }
    println!("seed {seed}: {accepted} accepted, {refused} refused");
    // Else the generator shows nothing.
    assert!(
        accepted * 8 > refused && refused * 8 > accepted,
        "{accepted} {refused}"
    );
}

/// Shapes that matter, each for itself.
#[test]
fn known_lines_mean_what_they_mean_to_ssh_keygen() {
    let scene = Scene::new();
    let key = scene.signer.public_line();
    let (kind_and_digits, other) = (key.rsplit_once(" the").unwrap().0, &scene.keys[1]);
    for (text, expected) in [
        (format!("h {key}"), true),
        (format!("h {kind_and_digits}"), true),
        (format!("h\t{key}"), true),
        (format!("\"h\"{key}"), true),
        (format!("\"x y,h\" {key}"), true),
        (format!("g,h*,!g {key}"), true),
        (format!("!h,* {key}"), false),
        (format!("*,!h {key}"), false),
        (format!("H {key}"), false),
        (format!("h {other}\r\nh {key}\r\n"), true),
        (format!("h nonsense {key}\nh {key}"), true),
        (format!("h nonsense {key}\n"), false),
        (
            format!("h namespaces=\"!{MANIFEST_NAMESPACE},*\" {key}"),
            false,
        ),
        (format!("h namespaces=\"\" {key}"), false),
        (format!("h NAMESPACES=\"sealift-*\" {key}"), true),
        (
            format!("h namespaces=\"{MANIFEST_NAMESPACE}\",cert-authority {key}"),
            false,
        ),
        (format!("h cert-authority {key}"), false),
        (
            format!("h namespaces=\"{MANIFEST_NAMESPACE}\"y {key}"),
            false,
        ),
        (format!("h namespaces={MANIFEST_NAMESPACE} {key}"), false),
        (format!("h namespaces=\"*\",namespaces=\"*\" {key}"), false),
        (format!("h ,,namespaces=\"*\" {key}"), true),
        (format!("h namespaces=\"*\", {key}"), false),
        (format!("h valid-before=\"20200101\" {key}"), false),
        (format!("h valid-before=\"20990101Z\" {key}"), true),
        (format!("h valid-after=\"209901010000\" {key}"), false),
        (format!("h valid-after=\"20200101000000utc\" {key}"), true),
        (
            format!("h valid-after=\"20990101\",valid-before=\"20200101\" {key}"),
            false,
        ),
        (format!("# {key}\n\n"), false),
        (format!("h,{} {key}", "x".repeat(1023)), false),
        (format!("h,{} {key}", "x".repeat(1022)), true),
    ] {
        let accepted = scene.compare(text.as_bytes(), "h", MANIFEST_NAMESPACE);
        assert_eq!(accepted, expected, "{text}");
    }
}

/// The C library reads the time zone once in a process, so each zone has a process of its own.
#[test]
fn local_times_mean_what_they_mean_to_ssh_keygen_in_each_zone() {
    let Ok(zone) = std::env::var(ZONE) else {
        for zone in ZONES {
            let this = std::env::current_exe().unwrap();
            let name = "format::allowed_signers::local_times_mean_what_they_mean_to_ssh_keygen_in_each_zone";
            let run = Command::new(this)
                .args(["--exact", name])
                .env("TZ", zone)
                .env(ZONE, zone)
                .output()
                .unwrap();
            assert!(
                run.status.success(),
                "{}",
                String::from_utf8_lossy(&run.stdout)
            );
        }
        return;
    };
    let scene = Scene::new();
    let mut random = Random::new(5);
    let key = scene.signer.public_line();
    for _ in 0..40 {
        let name = random.pick(&["valid-after", "valid-before"]);
        let text = format!("h {name}=\"{}\" {key}\n", time(&mut random));
        scene.compare(text.as_bytes(), "h", MANIFEST_NAMESPACE);
    }
    // Each half of the year, asked about on both sides of the moment.
    for local in [
        "202001151200",
        "202007151200",
        "202003290230",
        "202010250230",
    ] {
        let line = format!("h valid-before=\"{local}\" {key}\n");
        let near = chrono::NaiveDateTime::parse_from_str(local, "%Y%m%d%H%M").unwrap();
        let moment = |quarter: i64| near.and_utc() + chrono::Duration::seconds(quarter * 900 + 450);
        let accepts = |quarter: &i64| scene.ours_at(&line, moment(*quarter));
        let last = (-60..60).rfind(accepts).expect("some time is early enough");
        for (quarter, expected) in [(last, true), (last + 1, false)] {
            let theirs = scene.theirs_at(&line, moment(quarter));
            assert_eq!(theirs, expected, "{zone}: {line} at {}", moment(quarter));
        }
    }
}
