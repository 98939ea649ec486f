//! What other users of a machine can do to Sealift, or see of it: they can change no configuration
//! that it obeys, look into no state directory, and read no key in its memory.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::files::files;
use crate::support::files::mode_of;
use crate::support::host::{Host, SEALIFT, texts};
use crate::support::is_root_for;

const STRANGER: u32 = 65534;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn give_to(path: &Path, uid: u32) {
    let status = Command::new("chown")
        .arg("-R")
        .arg(uid.to_string())
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

/// A host whose configuration is `home/sealift.toml`, with a target that would run `home/program`.
struct Scene {
    host: Host,
    home: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let host = Host::new();
        let home = host.path("home");
        fs::create_dir(&home).unwrap();
        chmod(&home, 0o755);
        // So that a stranger comes through to his own directory.
        chmod(host.temp.path(), 0o711);
        let state = host.path("c.state").display().to_string();
        let text = host.config();
        let text = text.replace("\"c.state\"", &format!("{state:?}"));
        let program = home.join("program");
        let target = format!(
            "\n[[target]]\nname = \"x\"\nurl = \"rsync://me@localhost/x\"\nssh = \"{}\"\nretry = \"1s\"\n\
             timeout = \"2s\"\n",
            program.display()
        );
        fs::write(home.join("sealift.toml"), text + &target).unwrap();
        chmod(&home.join("sealift.toml"), 0o600);
        fs::rename(host.path("c.signer"), home.join("c.signer")).unwrap();
        let script = format!("#!/bin/sh\ntouch {}/ran\nexit 1\n", home.display());
        fs::write(&program, script).unwrap();
        chmod(&program, 0o755);
        Self { host, home }
    }

    /// The program in `home`, without a word about its configuration, and with `arguments`.
    fn run(&self, prefix: &[&str], arguments: &[&str]) -> Output {
        let mut line = prefix.to_vec();
        line.push(SEALIFT);
        line.extend(arguments);
        Command::new(line[0])
            .args(&line[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.host.path("nowhere"))
            .env("SEALIFT_MACHINE_ID", "machine-1")
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Asserts that the configuration is not obeyed, because of `culprit`.
    fn refuses(&self, culprit: &Path, why: &str) {
        let output = self.run(&[], &["status"]);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{err}");
        let named = format!("{} {why}", culprit.display());
        assert!(err.contains(&named), "{named}: {err}");
        assert!(err.contains("--config"), "{err}");
        assert!(!self.home.join("ran").exists(), "{err}");
        // Named, it is the caller's choice: the same words are a warning.
        let output = self.run(&[], &["--config", "sealift.toml", "list"]);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{err}");
        assert!(err.contains(&format!("warning: {named}")), "{err}");
    }

    fn obeys(&self, prefix: &[&str]) {
        let output = self.run(prefix, &["list"]);
        let (_, err) = texts(&output);
        assert_eq!(
            (output.status.code(), err.contains("warning")),
            (Some(0), false),
            "{err}"
        );
    }
}

#[test]
fn a_configuration_that_others_can_change_is_obeyed_only_if_it_is_named() {
    let scene = Scene::new();
    scene.obeys(&[]);
    let config = scene.home.join("sealift.toml");
    for (path, open, closed) in [
        (&config, 0o620, 0o600),
        (&config, 0o666, 0o600),
        (&scene.home, 0o777, 0o755),
        (&scene.home, 0o1777, 0o755),
        (&scene.home.join("c.signer"), 0o606, 0o600),
    ] {
        chmod(path, open);
        scene.refuses(path, "can be written by others");
        chmod(path, closed);
    }
    // An allowed_signers file beside the signer decides whose snapshots count.
    let listed = scene.home.join("allowed_signers");
    fs::write(&listed, "").unwrap();
    chmod(&listed, 0o622);
    scene.refuses(&listed, "can be written by others");
    fs::remove_file(&listed).unwrap();
    scene.obeys(&[]);
    // So does a list of recipients, also if it is not there yet.
    let place = scene.host.path("place");
    fs::create_dir(&place).unwrap();
    chmod(&place, 0o777);
    let recipients = place.join("recipients.txt");
    let text = fs::read_to_string(&config).unwrap();
    let listed = text.replace("recipients = [", &format!("recipients = [{recipients:?}, "));
    fs::write(&config, listed).unwrap();
    scene.refuses(&place, "can be written by others");
    chmod(&place, 0o755);
    scene.obeys(&[]);
    // `init` makes none where it would not be obeyed.
    chmod(&scene.home, 0o777);
    fs::remove_file(&config).unwrap();
    let data = scene.host.data().display().to_string();
    let recipient = scene.host.recipient.clone();
    let init = [
        "init",
        "--recipient",
        &recipient,
        "--target",
        "/nowhere",
        "--tree",
        &data,
    ];
    let output = scene.run(&[], &init);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("can be written by others"), "{err}");
    assert!(!config.exists());
}

#[test]
fn a_strangers_configuration_is_not_obeyed() {
    if !is_root_for("a stranger's directory") {
        return;
    }
    let scene = Scene::new();
    let owned = format!("is owned by uid {STRANGER}");
    let config = scene.home.join("sealift.toml");
    for path in [&config, &scene.home.join("c.signer"), &scene.home] {
        give_to(path, STRANGER);
        scene.refuses(path, &owned);
        give_to(path, 0);
    }
    scene.obeys(&[]);
    // A link in his directory leads to a file of root's: what is read with it would be his.
    let (elsewhere, real) = (scene.host.path("elsewhere"), scene.host.path("real.toml"));
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(&config, &real).unwrap();
    std::os::unix::fs::symlink(&real, elsewhere.join("second")).unwrap();
    give_to(&elsewhere, STRANGER);
    std::os::unix::fs::symlink("../elsewhere/second", &config).unwrap();
    scene.refuses(&elsewhere, &owned);
}

#[test]
fn an_ordinary_user_obeys_his_own_configuration_and_roots() {
    if !is_root_for("running as another user") {
        return;
    }
    let scene = Scene::new();
    let prefix = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    chmod(&scene.home.join("sealift.toml"), 0o644);
    // Root's `init` made a state directory that is closed to others.
    fs::remove_dir_all(scene.host.path("c.state")).unwrap();
    scene.obeys(&prefix);
    give_to(&scene.home, STRANGER);
    scene.obeys(&prefix);
    give_to(&scene.home, 1234);
    let output = scene.run(&prefix, &["list"]);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("is owned by uid 1234"), "{err}");
}

/// A user copies trees that he may not write to, however often what moves in them is copied again.
#[test]
fn an_ordinary_user_copies_a_closed_tree_that_moves() {
    if !is_root_for("running as another user") {
        return;
    }
    let host = Host::prepared(|_| {}, &["--tree", "data"]);
    let text = host.config().replace("stage = false", "stage = true");
    let text = text.replace("to = \"data\"", "to = \"data/src\"");
    fs::write(host.path("c.toml"), text).unwrap();
    fs::create_dir(host.data().join("closed")).unwrap();
    for name in ["log", "closed/log", "closed/calm"] {
        fs::write(host.data().join(name), "first").unwrap();
    }
    chmod(&host.data().join("closed"), 0o555);
    chmod(&host.data(), 0o555);
    give_to(host.temp.path(), STRANGER);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let open = |name: &str| {
                let options = OpenOptions::new().append(true).open(host.data().join(name));
                options.unwrap()
            };
            let mut logs = ["log", "closed/log"].map(open);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for log in &mut logs {
                    log.write_all(b"more").unwrap();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .args([SEALIFT, "--config", "c.toml", "backup"])
            .current_dir(host.temp.path())
            .stdin(Stdio::null())
            .output();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        output.unwrap()
    });
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert!(err.contains("in each of 3 attempts"), "{out}{err}");
    assert!(!err.contains("ermission"), "{out}{err}");
    let snapshots = host.path("c.state/snapshots");
    let made = entries(&snapshots).into_iter().find(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        !name.starts_with('.')
    });
    let copy = made.unwrap().join("data/src");
    assert_eq!(
        [mode_of(&copy), mode_of(&copy.join("closed"))],
        [0o555, 0o555]
    );
    assert_eq!(entries(&copy).len(), 2);
    assert_eq!(entries(&copy.join("closed")).len(), 2);
}

/// Whatever is in `dir` and directly below it, with its mode, if others have any right to it.
fn open_to_others(dir: &Path) -> Vec<String> {
    let mut open = Vec::new();
    for path in [vec![dir.to_owned()], entries(dir)].concat() {
        if mode_of(&path) & 0o077 != 0 {
            open.push(format!("{} {:o}", path.display(), mode_of(&path)));
        }
    }
    open
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_state_directory_that_was_made_open_is_closed_with_all_that_is_in_it() {
    let host = Host::prepared(
        |dir| {
            fs::create_dir(dir.join("c.state")).unwrap();
            chmod(&dir.join("c.state"), 0o755);
        },
        &["--tree", "data"],
    );
    fs::write(host.data().join("file"), "content").unwrap();
    let state = host.path("c.state");
    host.backup();
    assert_eq!(open_to_others(&state), Vec::<String>::new());
    let listed = host.remote_list();
    host.ok(&["pin", listed["snapshots"][0]["stamp"].as_str().unwrap()]);
    // As an older version left it.
    chmod(&state, 0o755);
    for path in entries(&state) {
        let open = if path.is_dir() { 0o755 } else { 0o644 };
        chmod(&path, open);
    }
    fs::write(state.join("not-ours"), "").unwrap();
    chmod(&state.join("not-ours"), 0o644);
    host.backup();
    chmod(&state.join("not-ours"), 0o600);
    assert_eq!(open_to_others(&state), Vec::<String>::new());
}

#[test]
fn a_state_directory_of_another_user_is_warned_of() {
    if !is_root_for("a directory of another user") {
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("file"), "content").unwrap();
    host.backup();
    give_to(&host.path("c.state"), STRANGER);
    let (_, err) = host.exits(&["backup"], 0);
    assert!(err.contains("c.state belongs to uid 65534"), "{err}");
}

/// Modes are the program's choice where they decide who is trusted or what is seen.
#[test]
fn no_mode_is_left_to_the_umask() {
    let temp = tempfile::tempdir().unwrap();
    let line = format!(
        "umask 000; mkdir data; echo x >data/file; R=$({SEALIFT} key generate --output key.txt) && \
         {SEALIFT} --config new/c.toml init --host h --recipient $R --target repo --tree data && \
         {SEALIFT} --config new/c.toml backup"
    );
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(temp.path())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    let new = temp.path().join("new");
    for path in [vec![new.clone()], entries(&new)].concat() {
        assert_eq!(mode_of(&path) & 0o022, 0, "{}", path.display());
    }
    for name in ["c.toml", "c.signer", "c.state"] {
        assert_eq!(mode_of(&new.join(name)) & 0o077, 0, "{name}");
    }
    assert_eq!(open_to_others(&new.join("c.state")), Vec::<String>::new());
    assert_eq!(mode_of(&temp.path().join("key.txt")), 0o600);
    // One that others may write already is closed when a line is added.
    let listed = new.join("allowed_signers");
    chmod(&listed, 0o666);
    fs::remove_file(new.join("c.toml")).unwrap();
    let again = line
        .split_once("&&")
        .unwrap()
        .1
        .replace("$R", &recipient_of(temp.path()));
    let output = Command::new("sh")
        .args(["-c", &again])
        .current_dir(temp.path())
        .output();
    let (out, err) = texts(&output.unwrap());
    assert_eq!(mode_of(&listed), 0o644, "{out}{err}");
}

fn recipient_of(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("key.txt")).unwrap();
    let at = text.find("age1").unwrap();
    text[at..].split_whitespace().next().unwrap().to_owned()
}

/// A file's name reaches a terminal, a table or JSON in letters only.
#[test]
fn a_name_cannot_reverse_what_a_terminal_shows() {
    let host = Host::new();
    let name = "invoice\u{202e}fdp.exe\u{2028}\u{9b}2J\u{200b}";
    fs::write(host.data().join(name), "content").unwrap();
    host.ok(&["backup", "--tag", name, "--note", name]);
    let steers = |text: &str| {
        text.chars().any(|c| {
            matches!(
                c,
                '\u{202e}' | '\u{2028}' | '\u{200b}' | '\u{80}'..='\u{9f}' | '\x1b'
            )
        })
    };
    let remote = ["--from", "repo", "--accept-signer", "--identity", "key.txt"];
    let to = ["--to", "out"];
    let path = format!("data/{name}");
    let missing = format!("data/{name}x");
    for (arguments, codes) in [
        (vec!["list"], [0, 0]),
        (vec!["--json", "list"], [0, 0]),
        ([&["ls", "latest"], &remote[..]].concat(), [0, 0]),
        ([&["--json", "ls", "latest"], &remote[..]].concat(), [0, 0]),
        (
            [&["restore", "latest", &missing], &remote[..], &to].concat(),
            [1, 2],
        ),
        (
            [&["restore", "latest", &path, "--dry-run"], &remote[..], &to].concat(),
            [0, 0],
        ),
        (
            [&["restore", "latest", "--to", name], &remote[..]].concat(),
            [0, 0],
        ),
        (vec!["ls", name], [1, 2]),
        (vec!["--config", name, "list"], [2, 2]),
    ] {
        let (out, err) = host.exits_any(&arguments, &codes);
        assert!(
            !steers(&out) && !steers(&err),
            "{arguments:?} {out:?} {err:?}"
        );
    }
    let rows = host.json(&[&["ls", "latest"], &remote[..]].concat());
    let rows = rows.as_array().unwrap();
    assert!(
        rows.iter().any(|row| row["path"] == path.as_str()),
        "{rows:?}"
    );
}

/// Starts `sealift` with an identity that comes through a pipe, so that it waits for it.
fn waiting(host: &Host, prefix: &[&str], arguments: &[&str]) -> std::process::Child {
    let mut line = prefix.to_vec();
    line.push(SEALIFT);
    line.extend(arguments);
    Command::new(line[0])
        .args(&line[1..])
        .current_dir(host.temp.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn no_other_process_of_the_user_reads_the_memory_that_holds_an_identity() {
    let host = Host::new();
    fs::write(host.data().join("file"), "content").unwrap();
    // Restoring these goes through /proc/self/fd, which belongs to root then.
    if let Err(error) = xattr::set(host.data().join("file"), "user.x", b"y") {
        eprintln!("SKIPPED: attributes: {error}");
    }
    let db = rusqlite::Connection::open(host.data().join("x.db")).unwrap();
    db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        .unwrap();
    drop(db);
    host.backup();
    let identity = fs::read(host.path("key.txt")).unwrap();
    let as_root = rustix::process::geteuid().is_root();
    let prefix: &[&str] = match as_root {
        true => &[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--",
        ],
        false => &[],
    };
    if as_root {
        give_to(host.temp.path(), STRANGER);
    }
    let repo = ["--from", "repo", "--accept-signer"];
    let archive = files(&host.folder().join("archives"))
        .remove(0)
        .display()
        .to_string();
    for arguments in [
        [
            &["restore", "latest", "--to", "out", "--identity", "pipe"],
            &repo[..],
        ]
        .concat(),
        [&["ls", "latest", "--identity", "pipe"], &repo[..]].concat(),
        [&["verify", "--identity", "pipe"], &repo[..]].concat(),
        vec!["open", "--identity", "pipe", &archive],
        vec!["key", "show", "pipe"],
    ] {
        let pipe = host.path("pipe");
        let _ = fs::remove_file(&pipe);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o666.into()).unwrap();
        chmod(&pipe, 0o666);
        let mut child = waiting(&host, prefix, &arguments);
        // Opening waits for the reader, which by then is hidden.
        let mut writer = open_for(&mut child, &pipe);
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        let limits = fs::read_to_string(proc.join("limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let core: Vec<&str> = core.split_whitespace().skip(4).collect();
        assert_eq!(core[..2], ["0", "0"], "{arguments:?}");
        // What belongs to root there is not the user's to read.
        assert_eq!(
            fs::metadata(proc.join("mem")).unwrap().uid(),
            0,
            "{arguments:?}"
        );
        writer.write_all(&identity).unwrap();
        drop(writer);
        let (out, err) = texts(&child.wait_with_output().unwrap());
        assert!(!err.contains("sealift: "), "{arguments:?} {out}{err}");
    }
    assert_eq!(fs::read(host.path("out/data/file")).unwrap(), b"content");
    let attribute = |path: PathBuf| xattr::get(path, "user.x").ok().flatten();
    let restored = attribute(host.path("out/data/file"));
    assert_eq!(restored, attribute(host.data().join("file")));
}

/// Opens a pipe for writing once a reader has it open; a reader that ends before fails the test.
fn open_for(child: &mut std::process::Child, pipe: &Path) -> fs::File {
    use std::os::unix::fs::OpenOptionsExt as _;
    let began = Instant::now();
    loop {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        match options.open(pipe) {
            Ok(file) => return file,
            Err(error) => {
                assert!(child.try_wait().unwrap().is_none(), "it ended: {error}");
                assert!(began.elapsed() < Duration::from_secs(30), "{error}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Kind: what cannot be read counts as what is not there. The next edit then replaced it.
#[test]
fn remotes_that_cannot_be_read_are_not_replaced_and_no_folder_takes_their_place() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".config/sealift");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("remotes.toml");
    let text = "[off]\nurl = \"s3://backups/x\"\nsigner = \"SHA256:x\"\n";
    fs::write(&file, text).unwrap();
    fs::create_dir(home.path().join("off")).unwrap();
    give_to(home.path(), STRANGER);
    std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for arguments in [
        &["remote", "list"][..],
        &["remote", "add", "new", "/tmp"],
        &["list", "--from", "off", "--accept-signer"],
    ] {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(SEALIFT)
            .args(arguments)
            .env_remove("XDG_CONFIG_HOME")
            .env("HOME", home.path())
            .current_dir(home.path())
            .output()
            .unwrap();
        let (out, err) = texts(&output);
        assert!(!output.status.success(), "{arguments:?} {out}{err}");
        assert!(err.contains("remotes.toml"), "{arguments:?} {out}{err}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}
