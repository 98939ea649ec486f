//! Shows the effective configuration: each key with its value, and whether the file or the default
//! has it.

use std::path::Path;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::ConfigDocument;
use super::error::ConfigError;
use super::{CommandLine, Config, PostCheckKind, notify, preset, raw};
use crate::storage::TargetSpec;

/// One key of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The table, as its header has it, such as `target`; empty for the keys of the file itself.
    pub table: String,
    /// Which one of several tables, from 0.
    pub index: usize,
    /// The key.
    pub key: String,
    /// The value as the file would have it, or the default in words. Secrets are left out.
    pub value: String,
    /// The line that has it, from 1. `None`: it is the default.
    pub line: Option<usize>,
}

/// The kinds of channels that send messages.
const MESSAGES: &str = "ntfy webhook email command";

/// A default: table, key, value, and the kinds of the table that it is for (empty: all).
type Default = (&'static str, &'static str, &'static str, &'static str);

const DEFAULTS: &[Default] = &[
    (
        "snapshots",
        "dir",
        "\"snapshots\", in the state directory",
        "",
    ),
    ("source", "required", "false", ""),
    ("source", "optional", "false", ""),
    ("source", "on_request", "false", ""),
    ("source", "shrink_alarm", "true", ""),
    ("source", "stage", "true", "tree"),
    ("source", "one_file_system", "false", "tree"),
    ("source", "cachedir_tag", "true", "tree"),
    ("source", "nobackup", "true", "tree"),
    ("source", "mountpoint", "false", "tree"),
    ("source", "lock_timeout", "\"60s\"", "sqlite"),
    ("source", "timeout", "\"1h\"", "command"),
    ("source", "allow_empty", "false", "command"),
    ("source", "include_chroma", "false", "atocore"),
    ("source", "timeout", "\"10m\"", "atocore"),
    ("source", "fallback", "\"local\"", "atocore"),
    ("source", "insecure", "false", "atocore"),
    ("target", "timeout", "\"300s\"", ""),
    ("target", "retry", "\"180s\"", ""),
    ("target", "write_only", "false", ""),
    ("target", "prune", "false", ""),
    (
        "target",
        "max_age",
        "three times the schedule's interval",
        "",
    ),
    (
        "schedule",
        "backup",
        "none, so `status` cannot report a late backup",
        "",
    ),
    ("schedule", "zone", "\"UTC\"", ""),
    ("schedule", "jitter", "\"1m\"", ""),
    ("schedule", "catch_up", "\"once\"", ""),
    (
        "schedule",
        "grace",
        "a quarter of the interval, between 1h and 1d",
        "",
    ),
    (
        "schedule",
        "verify",
        "\"30 3 * * 0\", if backups have a schedule",
        "",
    ),
    ("schedule", "verify_share", "\"2%\"", ""),
    ("schedule", "prune", "\"off\"", ""),
    ("schedule", "catch_up_targets", "\"15m\"", ""),
    ("schedule", "max_run", "\"12h\"", ""),
    ("serve", "listen", "[\"127.0.0.1:8101\"]", ""),
    ("serve", "base_path", "\"/\"", ""),
    ("serve", "metrics_without_token", "false", ""),
    (
        "serve",
        "history",
        "{ runs = \"400d\", logs = \"90d\", max = \"200MB\" }",
        "",
    ),
    ("pack", "archive_size", "\"64MiB\"", ""),
    ("pack", "level", "3", ""),
    ("pack", "threads", "one for each processor", ""),
    ("spool", "limit", "half of the free space", ""),
    (
        "verify",
        "max_age",
        "none, so `status` does not ask for it",
        "",
    ),
    ("restore", "stop_timeout", "\"2m\"", ""),
    ("restore", "start_timeout", "\"2m\"", ""),
    ("restore", "preserve", "\"move\"", ""),
    ("restore", "keep_preserved", "\"7d\"", ""),
    ("restore", "settle", "\"0s\"", ""),
    ("restore", "check_timeout", "\"3m\"", ""),
    ("restore", "strict", "false", ""),
    ("restore", "rollback_after_boot", "false", ""),
    ("check", "when", "[\"restore\", \"drill\"]", ""),
    ("check", "timeout", "\"30s\"", ""),
    ("notify", "job", "\"backup\"", "healthchecks"),
    ("notify", "partial", "\"fail\"", "healthchecks"),
    (
        "notify",
        "events",
        "[\"red\", \"amber\", \"recovered\"]",
        MESSAGES,
    ),
    ("notify", "min_interval", "\"15m\"", MESSAGES),
    ("notify", "repeat", "\"1d\"", MESSAGES),
    (
        "notify",
        "hold",
        "none for the result of a run, 5m for all others",
        MESSAGES,
    ),
];

impl Config {
    /// Returns the effective settings of `text`, the content of `file`, which is valid: those of
    /// the file itself first, then those of each table with the defaults that apply to it.
    pub fn settings(text: &str, file: &Path) -> Result<Vec<Setting>, ConfigError> {
        let document = ConfigDocument { text, file };
        let parsed = DeTable::parse(text).map_err(|e| document.syntax(&e))?;
        let mut viewer = Viewer {
            document: &document,
            settings: Vec::new(),
        };
        viewer.file(parsed.get_ref());
        let raw: raw::RawConfig = toml::from_str(text).map_err(|e| document.syntax(&e))?;
        viewer.preset(&raw.validate(&document)?);
        Ok(viewer.settings)
    }
}

/// Whether the value of `key` is a command, which may have a password among its arguments.
fn is_command(key: &str) -> bool {
    matches!(
        key,
        "command" | "before" | "after" | "failed" | "ssh" | "stop" | "start" | "stopped"
    )
}

struct Viewer<'a> {
    document: &'a ConfigDocument<'a>,
    settings: Vec<Setting>,
}

impl Viewer<'_> {
    fn file(&mut self, top: &DeTable<'_>) {
        let known = raw::known_keys();
        for key in known.top {
            let is_table = known.tables.iter().any(|(table, _)| table == key);
            if let Some((_, value)) = top.iter().find(|(name, _)| name.get_ref() == *key)
                && !is_table
            {
                self.written("", 0, key, value);
            }
        }
        for (table, _) in &known.tables {
            let value = top.iter().find(|(name, _)| name.get_ref() == *table);
            match value.map(|(_, value)| value.get_ref()) {
                Some(DeValue::Table(one)) => self.table(table, 0, Some(one)),
                Some(DeValue::Array(several)) => {
                    for (index, item) in several.iter().enumerate() {
                        if let DeValue::Table(one) = item.get_ref() {
                            self.table(table, index, Some(one));
                        }
                    }
                }
                _ if matches!(*table, "source" | "target" | "check" | "notify") => {}
                _ => self.table(table, 0, None),
            }
        }
        if !top.iter().any(|(name, _)| name.get_ref() == "retention") {
            self.default("retention", 0, "", "none: everything is kept");
        }
    }

    /// Adds what the preset brings to `[restore]` and to the checks, unless the file has something
    /// else.
    fn preset(&mut self, config: &Config) {
        let Some(root) = &config.preset_root else {
            return;
        };
        let defaults = preset::restore_defaults(root, config.atocore.as_ref());
        let is_written = |settings: &[Setting], key: &str| {
            let mut all = settings.iter();
            all.any(|one| one.table == "restore" && one.key == key)
        };
        let dir = defaults.preserve_dir.map(|dir| dir.display().to_string());
        for (key, value) in [("base_url", defaults.base_url), ("preserve_dir", dir)] {
            if let Some(value) = value.filter(|_| !is_written(&self.settings, key)) {
                self.default("restore", 0, key, &format!("{value:?}"));
            }
        }
        let own = |one: &&Setting| one.table == "check" && one.key == "name";
        let own: Vec<String> = self
            .settings
            .iter()
            .filter(own)
            .map(|one| one.value.clone())
            .collect();
        let brought = preset::checks(config.atocore.as_ref());
        let brought = brought
            .iter()
            .filter(|check| !own.contains(&format!("{:?}", check.name)));
        for (index, check) in brought.enumerate() {
            let index = own.len() + index;
            self.default("check", index, "name", &format!("{:?}", check.name));
            if let PostCheckKind::Http(http) = &check.kind {
                let request = format!("{:?}", format!("{} {}", http.method, http.path));
                self.default("check", index, "http", &request);
                let json = http.json.iter().map(|(pointer, conditions)| {
                    let conditions = conditions.iter().map(|condition| {
                        format!("{} = {}", condition.operator.name(), condition.with)
                    });
                    let conditions: Vec<String> = conditions.collect();
                    format!("{pointer:?} = {{ {} }}", conditions.join(", "))
                });
                let json: Vec<String> = json.collect();
                let expect = format!("{{ json = {{ {} }} }}", json.join(", "));
                self.default("check", index, "expect", &expect);
            }
        }
        // The tables in the order of the file, each with its defaults.
        let order: Vec<&str> = raw::known_keys()
            .tables
            .iter()
            .map(|(table, _)| *table)
            .collect();
        let place = |one: &Setting| order.iter().position(|table| *table == one.table);
        self.settings.sort_by_key(|one| (place(one), one.index));
    }

    /// Adds the keys of one table that the file has, then the defaults of the others.
    fn table(&mut self, name: &str, index: usize, table: Option<&DeTable<'_>>) {
        let entries = || table.into_iter().flat_map(|table| table.iter());
        let first = self.settings.len();
        let kind = entries().find(|(key, _)| key.get_ref() == "kind");
        let kind = kind.and_then(|(_, value)| value.get_ref().as_str().map(str::to_owned));
        for (key, value) in entries() {
            self.written(name, index, key.get_ref(), value);
        }
        self.settings[first..].sort_by_key(|setting| setting.line);
        let is_written = |wanted: &str| entries().any(|(key, _)| key.get_ref() == wanted);
        for (of, key, value, of_kind) in DEFAULTS {
            let is_one = || of_kind.split(' ').any(|one| kind.as_deref() == Some(one));
            let applies = of_kind.is_empty() || is_one();
            if *of == name && applies && !is_written(key) {
                self.default(name, index, key, value);
            }
        }
    }

    fn written(&mut self, table: &str, index: usize, key: &str, value: &Spanned<DeValue<'_>>) {
        self.settings.push(Setting {
            table: table.to_owned(),
            index,
            key: key.to_owned(),
            value: match (table, value.get_ref()) {
                ("notify", DeValue::String(text)) => {
                    format!("{:?}", notify::without_secret(key, text))
                }
                _ => self.shown(key, value),
            },
            line: Some(self.document.line(&value.span())),
        });
    }

    fn default(&mut self, table: &str, index: usize, key: &str, value: &str) {
        self.settings.push(Setting {
            table: table.to_owned(),
            index,
            key: key.to_owned(),
            value: value.to_owned(),
            line: None,
        });
    }

    /// Returns the value without secrets: a command may have a password among its arguments, a URL
    /// before its host.
    fn shown(&self, key: &str, value: &Spanned<DeValue<'_>>) -> String {
        match (key, value.get_ref()) {
            (key, DeValue::String(line)) if is_command(key) => {
                format!("{:?}", CommandLine::Shell(line.to_string()).brief())
            }
            (key, DeValue::Array(words)) if is_command(key) => {
                let words = words.iter();
                let words = words.filter_map(|word| word.get_ref().as_str().map(str::to_owned));
                format!("{:?}", CommandLine::Words(words.collect()).brief())
            }
            ("url" | "endpoint", DeValue::String(url)) => {
                format!("{:?}", TargetSpec::from_url(url).label())
            }
            (_, DeValue::String(text)) => format!("{text:?}"),
            (_, DeValue::Array(items)) => {
                let items: Vec<String> = items.iter().map(|item| self.shown("", item)).collect();
                format!("[{}]", items.join(", "))
            }
            (_, DeValue::Table(table)) => {
                let inner = table.iter();
                let inner = inner.map(|(key, value)| {
                    format!("{} = {}", key.get_ref(), self.shown(key.get_ref(), value))
                });
                format!("{{ {} }}", inner.collect::<Vec<_>>().join(", "))
            }
            _ => self.document.text[value.span()].to_owned(),
        }
    }
}
