//! A stand-in for AtoCore, over real SQLite: `atocore.py`, whose head says how it can misbehave.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::host::texts;

/// An AtoCore whose data is below `root`. It ends when this is dropped.
pub struct AtoCore {
    pub root: PathBuf,
}

/// The path of the stand-in's program.
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/atocore.py")
}

impl AtoCore {
    /// Makes the data below `root`; the service does not run yet.
    pub fn new(root: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        let root = root.canonicalize().unwrap();
        let made = Self { root };
        made.run("init");
        made
    }

    /// Makes the data and starts the service.
    pub fn started(root: &Path) -> Self {
        let made = Self::new(root);
        made.run("start");
        made
    }

    /// The words of the command that does `verb`, as a TOML list.
    pub fn line(&self, verb: &str) -> String {
        let words = [
            "python3",
            "-B",
            &script().display().to_string(),
            verb,
            &self.root.display().to_string(),
        ];
        format!("{words:?}")
    }

    /// The tables of a configuration that stop and start it and check it where it answers.
    pub fn restore_tables(&self) -> String {
        format!(
            "\n[restore]\nstop = {}\nstart = {}\nstopped = {}\nbase_url = \"{}\"\ncheck_timeout = \"20s\"\n",
            self.line("stop"),
            self.line("start"),
            self.line("stopped"),
            self.url()
        )
    }

    /// Does `verb`, which must succeed.
    pub fn run(&self, verb: &str) {
        let output = Command::new("python3")
            .arg("-B")
            .arg(script())
            .args([verb.as_ref(), self.root.as_os_str()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{verb}: {:?}", texts(&output));
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        let port = fs::read_to_string(self.root.join("run/port")).unwrap();
        format!("http://127.0.0.1:{}", port.trim())
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("data/db/atocore.db")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.root.join("backups/snapshots")
    }

    /// Says how it misbehaves from now on; an empty object: not at all.
    pub fn behave(&self, how: &Value) {
        fs::write(self.root.join("behaviour.json"), how.to_string()).unwrap();
    }

    /// The requests that it got, in order.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.root.join("run/requests")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for AtoCore {
    fn drop(&mut self) {
        self.behave(&serde_json::json!({}));
        let pid = fs::read_to_string(self.root.join("run/pid")).unwrap_or_default();
        if let Some(pid) = pid
            .trim()
            .parse()
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // Only if it is still the stand-in.
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
            let is_ours =
                line.is_ok_and(|line| String::from_utf8_lossy(&line).contains("atocore.py"));
            if is_ours {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
