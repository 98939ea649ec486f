//! Checks a configuration by what it names: files, keys, patterns. No target is contacted, no
//! command runs, and nothing is written.

mod operation;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;
use url::{Host, Url};

use super::error::JobError;
use crate::base::error_chain::with_causes;
use crate::base::ownership;
use crate::base::walk::{Walked, walk};
use crate::config::{
    ChannelKind, Config, LoadedConfig, NotifyChannel, NotifyEvent, PostCheck, PostCheckKind,
    Setting, Source, SourceKind, TargetConfig,
};
use crate::format::signature::{MANIFEST_NAMESPACE, Signer, Trust};
use crate::notify;
use crate::packer::seal::Recipients;
use crate::producer::find_source;
use crate::storage;
use operation::FailureNotice;

/// Largest configuration that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// What a check found.
#[derive(Debug, Serialize)]
pub(crate) struct ConfigReport {
    /// Path of the configuration.
    #[serde(rename = "config")]
    pub(crate) config_path: String,
    pub(crate) host: String,
    pub(crate) sources: usize,
    pub(crate) targets: usize,
    /// What keeps a backup from being made.
    pub(crate) errors: Vec<ConfigFinding>,
    /// What does not keep a backup from being made, but is probably not meant.
    pub(crate) warnings: Vec<ConfigFinding>,
    /// What is sound as it is, and would be safer otherwise.
    pub(crate) advice: Vec<ConfigFinding>,
    /// The effective configuration, if it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) settings: Vec<Setting>,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub(crate) struct ConfigFinding {
    /// The object: `source photos`, `signer`.
    pub(crate) about: String,
    /// What is wrong.
    pub(crate) text: String,
}

/// Checks the configuration. `show`: the report has the effective settings.
pub(crate) fn run(loaded: &LoadedConfig, show: bool) -> Result<ConfigReport, JobError> {
    let config = &loaded.config;
    let mut checker = ConfigChecker {
        config,
        errors: Vec::new(),
        warnings: Vec::new(),
        advice: Vec::new(),
    };
    for warning in &loaded.warnings {
        checker.warn("access", warning);
    }
    checker.file();
    checker.recipients();
    checker.signer();
    checker.sources();
    checker.atocore();
    checker.restore();
    checker.targets();
    checker.owners();
    checker.second_target();
    checker.schedule();
    checker.channels();
    let settings = match show {
        true => settings(config)?,
        false => Vec::new(),
    };
    Ok(ConfigReport {
        config_path: config.file.display().to_string(),
        host: config.host.to_string(),
        sources: config.sources.len(),
        targets: config.targets.len(),
        errors: checker.errors,
        warnings: checker.warnings,
        advice: checker.advice,
        settings,
    })
}

fn settings(config: &Config) -> Result<Vec<Setting>, JobError> {
    let read = ownership::open_regular(&config.file);
    let read = read.and_then(|file| ownership::read_text(&file, MAX_BYTES));
    let text = read.map_err(|error| {
        let what = format!("cannot read {} again: {error}", config.file.display());
        JobError::request(what).with_next("--show reads the file twice: name a regular file")
    })?;
    Config::settings(&text, &config.file).map_err(JobError::request)
}

struct ConfigChecker<'a> {
    config: &'a Config,
    errors: Vec<ConfigFinding>,
    warnings: Vec<ConfigFinding>,
    advice: Vec<ConfigFinding>,
}

impl ConfigChecker<'_> {
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

    fn advise(&mut self, about: impl ToString, text: impl ToString) {
        self.advice.push(ConfigFinding {
            about: about.to_string(),
            text: text.to_string(),
        });
    }

    /// Reads the secrets of the channels, and asks for one whose silence is noticed.
    fn channels(&mut self) {
        let config = self.config;
        for channel in &config.channels {
            if let Err(error) = notify::check_secrets(channel) {
                self.warn(format!("channel {}", channel.name), error);
            }
        }
        let is_missed = |channel: &NotifyChannel| {
            let is_watched = matches!(channel.kind, ChannelKind::Healthchecks { .. });
            is_watched || channel.events.contains(&NotifyEvent::Weekly)
        };
        let notice = match config.channels.as_slice() {
            [] => FailureNotice::Missing,
            channels if channels.iter().any(is_missed) => FailureNotice::AlsoOfAgent,
            _ => FailureNotice::FromAgent,
        };
        self.notifications(notice);
    }

    /// A configuration may have passwords in its commands.
    fn file(&mut self) {
        let file = &self.config.file;
        let has_command = self.config.sources.iter().any(|source| {
            let is_command = matches!(source.kind, SourceKind::Command { .. });
            is_command || source.before.is_some() || source.after.is_some()
        });
        let restore = &self.config.restore;
        let of_restore = [&restore.stop, &restore.start, &restore.stopped];
        let is_command = |check: &PostCheck| matches!(check.kind, PostCheckKind::Command(_));
        let has_command = has_command
            || of_restore.iter().any(|line| line.is_some())
            || self.config.checks.iter().any(is_command);
        let hooks = &self.config.hooks;
        let has_hook = [&hooks.before, &hooks.after, &hooks.failed];
        let has_command = has_command
            || has_hook.iter().any(|hook| hook.is_some())
            || self
                .config
                .targets
                .iter()
                .any(|target| target.ssh.is_some());
        if has_command && is_open_to_others(file) {
            self.warn(
                "config",
                format_args!(
                    "other users can read it, and its commands may have passwords: chmod 600 {}",
                    file.display()
                ),
            );
        }
    }

    fn recipients(&mut self) {
        let all = match self.config.read_recipients() {
            Ok(all) => all,
            Err(error) => return self.error("recipients", with_causes(&error)),
        };
        let base = self.config.file.parent().unwrap_or(Path::new("/"));
        if let Err(error) = Recipients::load(&all, base) {
            self.error("recipients", with_causes(&error));
        }
    }

    fn signer(&mut self) {
        let path = &self.config.signer;
        let signer = match Signer::load(path) {
            Ok(signer) => signer,
            Err(error) => return self.error("signer", with_causes(&error)),
        };
        if is_open_to_others(path) {
            let text = format!(
                "other users can read the private key: chmod 600 {}",
                path.display()
            );
            self.warn("signer", text);
        }
        let listed = path.with_file_name("allowed_signers");
        let shown = listed.display().to_string();
        let trust = match ownership::open_regular(&listed) {
            Ok(file) => Trust::read(&shown, file, |_| {}),
            Err(error) => {
                let text = format!("cannot read {shown}, which lists this host's signers: {error}");
                return self.warn("signer", text);
            }
        };
        match trust {
            Err(error) => self.error("signer", with_causes(&error)),
            Ok(trust)
                if !trust.accepts(&self.config.host, MANIFEST_NAMESPACE, signer.public_key()) =>
            {
                let text = format!(
                    "{shown} does not list {}: after a rotation, add its line (keys/README.md, Rotation)",
                    signer.fingerprint()
                );
                self.warn("signer", text);
            }
            Ok(_) => {}
        }
        if let Some(next) = &self.config.next_signer
            && let Err(error) = Signer::read_next(next)
        {
            let text = format!("cannot read {}: {error}", next.display());
            self.error("next_signer", text);
        }
    }

    fn sources(&mut self) {
        if self.config.sources.is_empty() {
            self.error("sources", "there are none: sealift source add --tree DIR");
        }
        for source in &self.config.sources {
            let about = format!("source {}", source.name);
            match find_source(source) {
                Err(error) => {
                    let text = format!("{}; {}", with_causes(&error), error.next());
                    match source.required {
                        true => self.error(&about, text),
                        false => self.warn(&about, text),
                    }
                }
                Ok(Some(chosen)) => self.found(&about, source, &chosen),
                Ok(None) => {}
            }
            if source.is_unguarded() {
                self.warn(
                    &about,
                    "programs may write to it while it is copied: give it a `lock`, or a `before` and an `after`",
                );
            }
        }
    }

    fn found(&mut self, about: &str, source: &Source, chosen: &crate::base::openat::Chosen) {
        let SourceKind::Tree(tree) = &source.kind else {
            if chosen.is_dir() {
                self.warn(
                    about,
                    "its path is a directory, not a file: use kind = \"tree\"",
                );
            }
            return;
        };
        if !chosen.is_dir() {
            return;
        }
        match walk(chosen.dir(), &tree.filter) {
            Err(error) => self.warn(about, with_causes(&error)),
            // The notes about patterns come first.
            Ok(walk) => {
                let notes = walk.map_while(|walked| match walked {
                    Walked::Note(note) => Some(note),
                    _ => None,
                });
                notes.for_each(|note| self.warn(about, note));
            }
        }
    }

    /// A source of kind `atocore`: its token, and the directories that it names.
    fn atocore(&mut self) {
        let Some(source) = &self.config.atocore else {
            return;
        };
        let about = format!("source {}", source.name);
        self.token(&about, source.token_file.as_deref());
        let mapped = source.root_map.iter().map(|(_, here)| ("root_map", here));
        let allowed = source.allow_root.iter().map(|dir| ("allow_root", dir));
        for (key, dir) in mapped.chain(allowed) {
            if !dir.is_dir() {
                let text = format!("{key}: {} is not a directory of this host", dir.display());
                self.warn(&about, text);
            }
        }
    }

    fn token(&mut self, about: &str, file: Option<&Path>) {
        let Some(file) = file else { return };
        if let Err(error) = storage::read_token(file) {
            self.warn(about, with_causes(&error));
        } else if is_open_to_others(file) {
            let text = format!(
                "other users can read the token: chmod 600 {}",
                file.display()
            );
            self.warn(about, text);
        }
    }

    /// `[restore]` and the checks: what a restore in place would lack.
    fn restore(&mut self) {
        let restore = &self.config.restore;
        let (stop, start) = (restore.stop.is_some(), restore.start.is_some());
        if self.config.preset_root.is_some() && !(stop && start) {
            let lacks = match (stop, start) {
                (false, false) => "`stop` and `start` are",
                (false, true) => "`stop` is",
                (true, _) => "`start` is",
            };
            self.warn(
                "restore",
                format_args!(
                    "{lacks} missing in [restore]: `restore --in-place` must be able to stop AtoCore and to start it \
                     again, such as with \"docker compose -f FILE stop atocore\" (docs/configuration.md, \"Restore in place\")"
                ),
            );
        }
        for check in &self.config.checks {
            let PostCheckKind::Http(http) = &check.kind else {
                continue;
            };
            let about = format!("check {}", check.name);
            self.token(&about, http.token_file.as_deref());
            if check.in_restore && restore.base_url.is_none() {
                self.warn(
                    &about,
                    "there is no `base_url` in [restore], so it would fail",
                );
            }
        }
    }

    fn targets(&mut self) {
        if self.config.targets.is_empty() {
            self.error("targets", "there are none: sealift target add URL");
        }
        for target in &self.config.targets {
            self.target(target);
        }
    }

    fn target(&mut self, target: &TargetConfig) {
        let about = format!("target {}", target.name);
        if let Some(path) = storage::folder_path(&target.url)
            && storage::check_folder(&path).is_err()
        {
            let text = format!(
                "there is no folder {}: is its disk mounted?",
                path.display()
            );
            self.warn(&about, text);
        }
        let endpoint = target.endpoint.as_deref();
        if crosses_in_clear_text(&target.url) || endpoint.is_some_and(crosses_in_clear_text) {
            self.warn(
                &about,
                "it is reached by http without TLS: credentials and requests can be read on the way",
            );
        }
        if target.prune && self.config.retention_of(target).is_none() {
            self.warn(
                &about,
                "`prune = true` deletes nothing: there is no [retention]",
            );
        }
        if target.prune && target.write_only {
            self.warn(
                &about,
                "`prune = true` needs credentials that list and read, and `write_only = true` says they do not",
            );
        }
    }
}

/// Whether requests to `url` cross a network without TLS.
fn crosses_in_clear_text(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let is_this_machine = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_this_machine
}

/// Whether users other than the owner and the group can read the file.
fn is_open_to_others(path: &Path) -> bool {
    let meta = std::fs::metadata(path);
    meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::crosses_in_clear_text;

    #[test]
    fn http_to_another_machine_is_in_clear_text() {
        for url in [
            "http://nas/dav",
            "http://192.0.2.7:9000",
            "http://localhost.example.org/",
            "HTTP://[2001:db8::1]/",
        ] {
            assert!(crosses_in_clear_text(url), "{url}");
        }
        for url in [
            "https://nas/dav",
            "http://localhost:9000",
            "http://127.0.0.1:9000/x",
            "http://[::1]:9000",
            "s3://bucket/x",
            "/mnt/disk",
        ] {
            assert!(!crosses_in_clear_text(url), "{url}");
        }
    }
}
