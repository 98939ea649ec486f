//! The `[restore]` table of a new configuration with the preset.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{path, quoted};
use crate::base::shell_word::shell_word;

/// The name that AtoCore's own compose file gives its service.
const SERVICE: &str = "atocore";

/// What starts and stops AtoCore on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceControl {
    /// Docker Compose, with this file.
    Compose(PathBuf),
    /// systemd, with this unit.
    Unit(String),
}

/// The commands of `[restore]`, as TOML values.
struct ServiceLines {
    stop: String,
    start: String,
    stopped: String,
}

impl ServiceControl {
    fn lines(&self) -> ServiceLines {
        let words = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            format!("[{}]", words.join(", "))
        };
        match self {
            Self::Compose(file) => {
                let file = file.to_string_lossy();
                let compose = |rest: &[&str]| {
                    words(&[&["docker", "compose", "-f", &file][..], rest].concat())
                };
                let asks = format!(
                    "test -z \"$(docker compose -f {} ps -q {SERVICE})\"",
                    shell_word(&file)
                );
                ServiceLines {
                    stop: compose(&["stop", SERVICE]),
                    start: compose(&["up", "-d", SERVICE]),
                    stopped: quoted(&asks),
                }
            }
            Self::Unit(unit) => ServiceLines {
                stop: words(&["systemctl", "stop", unit]),
                start: words(&["systemctl", "start", unit]),
                stopped: quoted(&format!(
                    "! systemctl is-active --quiet {}",
                    shell_word(unit)
                )),
            },
        }
    }
}

/// Writes `[restore]` for AtoCore below `root`. Without a `service` its commands are comments.
pub(super) fn write_restore(text: &mut String, root: &Path, service: Option<&ServiceControl>) {
    text.push_str(
        "\n# `sealift restore --in-place` stops AtoCore, exchanges its data, starts it, and checks it: /health, /stats, /projects\n\
         # and /context/build. If a check fails, it puts the old data back.\n[restore]\n",
    );
    let example = ServiceControl::Compose(root.join("compose.yaml"));
    let mark = match service {
        Some(_) => "",
        None => {
            text.push_str("# Fill in how AtoCore is stopped and started: until then, restore in place refuses.\n");
            "# "
        }
    };
    let lines = service.unwrap_or(&example).lines();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{mark}stop = {}", lines.stop);
    let _ = writeln!(text, "{mark}start = {}", lines.start);
    let _ = writeln!(
        text,
        "# Exits 0 once AtoCore is stopped.\n{mark}stopped = {}",
        lines.stopped
    );
    let _ = writeln!(
        text,
        "# base_url = \"http://127.0.0.1:8100\"     # where the checks find AtoCore\n\
         # preserve_dir = {}     # safety copies; `sealift rollback --clean` deletes them after 7 days",
        path(&root.join("backups"))
    );
}
