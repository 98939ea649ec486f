//! A server that backs up with the real program, its key holder, and a folder as its target.
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::files::bytes_below;

pub const SEALIFT: &str = env!("CARGO_BIN_EXE_sealift");

pub struct Host {
    pub temp: tempfile::TempDir,
    pub recipient: String,
    /// `SHA256:…`
    pub signer: String,
    /// Which machine the program takes itself to run on.
    pub machine: String,
    /// What the clock says, if not the real time.
    pub clock: Option<String>,
}

impl Host {
    /// A host named `dalidou` with an empty tree `data`, read in place, and a folder target.
    pub fn new() -> Self {
        Self::with_init(&["--tree", "data"])
    }

    pub fn with_init(arguments: &[&str]) -> Self {
        Self::prepared(|_| {}, arguments)
    }

    /// The same; `prepare` fills the host's directory first.
    pub fn prepared(prepare: impl FnOnce(&Path), arguments: &[&str]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), prepare, arguments)
    }

    /// The same in a directory of the caller's.
    pub fn within(
        temp: tempfile::TempDir,
        prepare: impl FnOnce(&Path),
        arguments: &[&str],
    ) -> Self {
        fs::create_dir(temp.path().join("data")).unwrap();
        prepare(temp.path());
        let mut host = Self {
            temp,
            recipient: String::new(),
            signer: String::new(),
            machine: "machine-1".to_owned(),
            clock: None,
        };
        host.recipient = host.generate("key.txt");
        let recipient = host.recipient.clone();
        let mut init = vec![
            "init",
            "--host",
            "dalidou",
            "--recipient",
            &recipient,
            "--target",
            "repo",
        ];
        init.extend(arguments);
        let said: serde_json::Value = host.json(&init);
        host.signer = said["signer_fingerprint"].as_str().unwrap().to_owned();
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The host's folder on the target.
    pub fn folder(&self) -> PathBuf {
        self.path("repo/dalidou")
    }

    /// A new identity in file `name`; gives its recipient.
    pub fn generate(&self, name: &str) -> String {
        let out = self.ok(&["key", "generate", "--output", name]);
        out.trim().to_owned()
    }

    /// The program with `arguments`, in the host's directory and a bare environment.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        self.command_in(self.temp.path(), arguments)
    }

    /// The program as it is started in `dir`.
    pub fn command_in<S: AsRef<OsStr>>(&self, dir: &Path, arguments: &[S]) -> Command {
        let mut command = Command::new(SEALIFT);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.temp.path())
            .env("TMPDIR", std::env::temp_dir())
            .env("SEALIFT_MACHINE_ID", &self.machine)
            .envs(self.clock.iter().map(|time| ("SEALIFT_CLOCK", time)))
            .current_dir(dir)
            .stdin(Stdio::null())
            .arg("--config")
            .arg(self.path("c.toml"))
            .args(arguments);
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, expecting exit code 0; gives its stdout.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        self.exits(arguments, 0).0
    }

    /// Runs it, expecting an exit code; gives its stdout and stderr.
    pub fn exits<S: AsRef<OsStr>>(&self, arguments: &[S], code: i32) -> (String, String) {
        self.exits_any(arguments, &[code])
    }

    /// The same where several codes will do.
    pub fn exits_any<S: AsRef<OsStr>>(&self, arguments: &[S], codes: &[i32]) -> (String, String) {
        let output = self.run(arguments);
        let shown: Vec<_> = arguments
            .iter()
            .map(|a| a.as_ref().to_string_lossy())
            .collect();
        let (out, err) = texts(&output);
        let code = output.status.code();
        let expected = code.is_some_and(|code| codes.contains(&code));
        assert!(
            expected,
            "{} ended with {code:?}
{out}
{err}",
            shown.join(" ")
        );
        (out, err)
    }

    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> serde_json::Value {
        self.json_exits(arguments, &[0])
    }

    pub fn json_exits<S: AsRef<OsStr>>(&self, arguments: &[S], codes: &[i32]) -> serde_json::Value {
        let mut all: Vec<&OsStr> = vec![OsStr::new("--json")];
        all.extend(arguments.iter().map(AsRef::as_ref));
        serde_json::from_str(&self.exits_any(&all, codes).0).unwrap()
    }

    /// A complete backup; gives its report.
    pub fn backup(&self) -> serde_json::Value {
        self.json(&["backup"])
    }

    fn restore_arguments(&self, snapshot: &str, to: &str) -> Vec<String> {
        self.restore_arguments_from(&self.path("repo"), snapshot, to)
    }

    fn restore_arguments_from(&self, folder: &Path, snapshot: &str, to: &str) -> Vec<String> {
        let repo = folder.display().to_string();
        let arguments = [
            "restore",
            snapshot,
            "--from",
            &repo,
            "--identity",
            "key.txt",
            "--signer",
            &self.signer,
            "--to",
            to,
        ];
        arguments.map(str::to_owned).to_vec()
    }

    /// The words that name the folder target, the pinned signer and the identity.
    pub fn place(&self) -> [&str; 6] {
        [
            "--from",
            "repo",
            "--signer",
            &self.signer,
            "--identity",
            "key.txt",
        ]
    }

    /// The words of a restore of these paths (none: all) from the folder target to `to`, with the pinned signer.
    pub fn restore_words<'a>(&'a self, paths: &[&'a str], to: &'a str) -> Vec<&'a str> {
        let first = ["restore", "latest"];
        [&first[..], paths, &self.place(), &["--to", to]].concat()
    }

    /// Restores as a fresh machine would; gives the new directory.
    pub fn restore(&self, snapshot: &str, to: &str) -> PathBuf {
        self.restore_exits(snapshot, to, &[0])
    }

    /// Restores the newest snapshot from the files of a target, in `folder`.
    pub fn restore_from(&self, folder: &Path, to: &str) -> PathBuf {
        self.ok(&self.restore_arguments_from(folder, "latest", to));
        self.path(to)
    }

    pub fn restore_exits(&self, snapshot: &str, to: &str, codes: &[i32]) -> PathBuf {
        self.exits_any(&self.restore_arguments(snapshot, to), codes);
        self.path(to)
    }

    /// A restore that must not succeed: what it said. Nothing must be at `to` afterwards.
    pub fn refused(&self, snapshot: &str, to: &str) -> String {
        let (_, err) = self.exits(&self.restore_arguments(snapshot, to), 1);
        assert!(!self.path(to).exists(), "{err}");
        err
    }

    /// `recover.py` on the target's folder.
    pub fn recover_command(&self, snapshot: &str, to: &str) -> Command {
        let mut command = Command::new("python3");
        command
            .current_dir(self.temp.path())
            .stdin(Stdio::null())
            .args(["-B", "recover.py", "repo/dalidou", "--identity", "key.txt"])
            .args(["--signer", &self.signer, "--snapshot", snapshot, "--to", to]);
        command
    }

    pub fn recover(&self, snapshot: &str, to: &str) -> PathBuf {
        self.recover_exits(snapshot, to, &[0])
    }

    pub fn recover_exits(&self, snapshot: &str, to: &str, codes: &[i32]) -> PathBuf {
        let output = self.recover_command(snapshot, to).output().unwrap();
        let (out, err) = texts(&output);
        let code = output.status.code();
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "{code:?}
{out}
{err}"
        );
        self.path(to)
    }

    /// The same for a recovery that must fail.
    pub fn recover_refused(&self, snapshot: &str, to: &str) -> String {
        let output = self.recover_command(snapshot, to).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
        assert!(!self.path(to).exists(), "{err}");
        err
    }

    /// What `list --from` tells, where nothing is odd.
    pub fn remote_list(&self) -> serde_json::Value {
        self.json(&["list", "--from", "repo", "--signer", &self.signer])
    }

    pub fn remote_list_any(&self) -> serde_json::Value {
        let arguments = ["list", "--from", "repo", "--signer", &self.signer];
        self.json_exits(&arguments, &[0, 3])
    }

    pub fn config(&self) -> String {
        fs::read_to_string(self.path("c.toml")).unwrap()
    }

    /// Replaces a part of the configuration.
    pub fn edit_config(&self, from: &str, to: &str) {
        let text = self.config();
        assert!(text.contains(from), "{from} is not in\n{text}");
        fs::write(self.path("c.toml"), text.replace(from, to)).unwrap();
    }

    /// Bytes below the host's folder.
    pub fn stored_bytes(&self) -> u64 {
        bytes_below(&self.folder())
    }
}

pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

pub fn joined<'a>(first: &[&'a str], second: &[&'a str]) -> Vec<&'a str> {
    [first, second].concat()
}
