//! Checks the configuration of a machine that drills by what it names: files, places, programs,
//! room. No place is contacted, no command runs, and nothing is written.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::check_config::ConfigFinding;
use crate::base::error_chain::with_causes;
use crate::base::fs::free_bytes;
use crate::base::openat::Dir;
use crate::base::ownership;
use crate::base::units::size;
use crate::config::remotes::Remotes;
use crate::config::{CommandLine, DrillConfig, PostCheckKind};
use crate::format::signature::Signer;
use crate::storage;

/// What a check of a `[drill]` found.
#[derive(Debug, Serialize)]
pub(crate) struct DrillConfigReport {
    /// Path of the configuration.
    #[serde(rename = "config")]
    pub(crate) config_path: String,
    /// Number of places of backups.
    pub(crate) places: usize,
    /// Number of `[[check]]`s that are part of a drill.
    pub(crate) checks: usize,
    /// What keeps a drill from being done.
    pub(crate) errors: Vec<ConfigFinding>,
    /// What does not, but is probably not meant.
    pub(crate) warnings: Vec<ConfigFinding>,
}

/// Checks the configuration. `warnings` are those of its reading.
pub(crate) fn run(config: &DrillConfig, warnings: &[String]) -> DrillConfigReport {
    let mut report = DrillConfigReport {
        config_path: config.file.display().to_string(),
        places: config.from.len(),
        checks: config.checks.len(),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    for warning in warnings {
        report.warn("access", warning);
    }
    report.places(config);
    report.keys(config);
    report.commands(config);
    report.scratch(config);
    report
}

impl DrillConfigReport {
    fn error(&mut self, about: impl ToString, text: impl ToString) {
        self.errors.push(ConfigFinding {
            about: about.to_string(),
            text: text.to_string(),
        });
    }

    fn warn(&mut self, about: impl ToString, text: impl ToString) {
        self.warnings.push(ConfigFinding {
            about: about.to_string(),
            text: text.to_string(),
        });
    }

    /// Names must be remotes, and folders should exist: a disk may be in a safe.
    fn places(&mut self, config: &DrillConfig) {
        let remotes = Remotes::load();
        for from in &config.from {
            if !from.contains(['/', ':']) {
                match &remotes {
                    Ok(remotes) if remotes.get(from).is_err() && !Path::new(from).is_dir() => {
                        let text = format!(
                            "no remote and no folder is called {from:?}: `sealift remote add {from} URL`"
                        );
                        self.error("from", text);
                    }
                    Ok(_) => {}
                    Err(error) => self.error("from", with_causes(error)),
                }
                continue;
            }
            if let Some(path) = storage::folder_path(from)
                && let Err(error) = storage::check_folder(&path)
            {
                self.warn("from", with_causes(&error));
            }
        }
    }

    /// Reads what is needed to decrypt and to sign. A passphrase is not asked for.
    fn keys(&mut self, config: &DrillConfig) {
        const MOST_BYTES: u64 = 1 << 20;
        for path in &config.identities {
            let read = ownership::open_regular(path);
            let read = read.and_then(|file| ownership::read_text(&file, MOST_BYTES));
            match read {
                Err(error) => self.error("identity", format!("{}: {error}", path.display())),
                Ok(text) if text.trim().is_empty() => {
                    self.error("identity", format!("{} is empty", path.display()));
                }
                Ok(_) => {}
            }
        }
        if let Err(error) = Signer::load(&config.signer) {
            self.error("signer", with_causes(&error));
        }
    }

    /// Looks for the programs of all commands.
    fn commands(&mut self, config: &DrillConfig) {
        let lines = [("start", &config.start), ("stop", &config.stop)];
        let lines = lines
            .into_iter()
            .filter_map(|(key, line)| Some((key.to_owned(), line.as_ref()?)));
        let checks = config.checks.iter().filter_map(|check| match &check.kind {
            PostCheckKind::Command(line) => Some((format!("check {}", check.name), line)),
            _ => None,
        });
        for (about, line) in lines.chain(checks) {
            if let Some(program) = missing_program(line) {
                self.warn(about, format!("there is no program {program} here"));
            }
        }
    }

    /// A snapshot must have room, and other users must not be able to exchange decrypted files.
    fn scratch(&mut self, config: &DrillConfig) {
        let temporary = std::env::temp_dir();
        let scratch = config.scratch.as_deref().unwrap_or(&temporary);
        let name = scratch.display();
        match Dir::resolve(scratch) {
            Err(error) => return self.error("scratch", format!("{name}: {error}")),
            Ok(found) if found.other.is_some() || !found.missing.is_empty() => {
                return self.error("scratch", format!("there is no directory {name}"));
            }
            Ok(found) => {
                if let Some(exposed) = found.exposed {
                    let exposed = exposed.display();
                    let text = format!(
                        "other users can rename what is in {exposed}, and could exchange decrypted files there"
                    );
                    return self.error("scratch", text);
                }
            }
        }
        let (Ok(free), Some(most)) = (free_bytes(scratch), config.max_bytes) else {
            return;
        };
        if free < most {
            let text = format!(
                "{name} has {} free, and snapshots of up to {} are restored there (max_bytes)",
                size(free),
                size(most)
            );
            self.warn("scratch", text);
        }
    }
}

/// Returns the program that the command names, if it is not here. Of a line for a shell, only a
/// plain first word is looked for.
fn missing_program(line: &CommandLine) -> Option<String> {
    let program = match line {
        CommandLine::Words(words) => words.first()?.clone(),
        CommandLine::Shell(line) => {
            let first = line.split_whitespace().next()?;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
            first.chars().all(is_plain).then(|| first.to_owned())?
        }
    };
    let is_there = match program.contains('/') {
        true => Path::new(&program).is_file(),
        false => is_builtin(line, &program) || on_path(&program).is_some(),
    };
    (!is_there).then_some(program)
}

/// Whether the shell itself has such a command.
fn is_builtin(line: &CommandLine, program: &str) -> bool {
    const BUILTINS: &[&str] = &[
        ".", "[", "case", "cd", "command", "echo", "eval", "exec", "exit", "export", "false",
        "for", "if", "kill", "printf", "read", "set", "test", "trap", "true", "ulimit", "umask",
        "unset", "until", "wait", "while",
    ];
    matches!(line, CommandLine::Shell(_)) && BUILTINS.contains(&program)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
    places.find(|place| place.is_file())
}
