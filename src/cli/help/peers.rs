//! Words of other backup programs: aliases where Sealift means the same, tips where it does not.
//!
//! Help and completions show none of them.

use clap::Command;

/// Words of peers, and the command that does the same.
pub(super) const ALIASES: &[(&str, &str)] = &[("snapshots", "list"), ("check", "verify")];

/// The word that asks for the version, which every program has as an option or as a command.
pub(in crate::cli) const VERSION: &str = "version";

/// Commands of peers, and what does their work here. A line that it makes is at most 80 columns.
pub(super) const COMMANDS: &[(&str, &str)] = &[
    (
        "forget",
        "`sealift prune --forget SNAPSHOT` deletes a snapshot",
    ),
    (
        "delete",
        "`sealift prune --forget SNAPSHOT` deletes a snapshot",
    ),
    (
        "remove",
        "`sealift prune --forget SNAPSHOT` deletes a snapshot",
    ),
    ("rm", "`sealift prune --forget SNAPSHOT` deletes a snapshot"),
    ("expire", "`sealift prune` applies the retention policy"),
    ("purge", "`sealift prune` applies the retention policy"),
    ("compact", "`sealift prune` frees what no snapshot needs"),
    ("create", "`sealift backup` takes a snapshot and sends it"),
    ("archive", "`sealift backup` takes a snapshot and sends it"),
    ("extract", "`sealift restore SNAPSHOT PATH --to DIR`"),
    ("dump", "`sealift cat SNAPSHOT PATH` prints a file"),
    ("umount", "fusermount3 -u ends what `sealift mount` began"),
    ("recover", "`sealift help recovery` has the steps"),
    (
        "files",
        "`sealift ls SNAPSHOT` lists the files of a snapshot",
    ),
    (
        "info",
        "`sealift list` shows snapshots, `sealift status` targets",
    ),
    (
        "show",
        "`sealift list` shows snapshots, `sealift status` targets",
    ),
    ("unlock", "a lock ends with the run that holds it"),
    ("break-lock", "a lock ends with the run that holds it"),
    ("copy", "`sealift sync FROM TO` copies snapshots"),
    (
        "repair",
        "`sealift verify --repair` replaces what is damaged",
    ),
    (
        "rebuild-index",
        "`sealift catalog rebuild` rebuilds the index",
    ),
    (
        "tag",
        "`sealift backup --tag TAG` tags the snapshot that it takes",
    ),
    (
        "rewrite",
        "a snapshot never changes; `sealift prune` deletes some",
    ),
    (
        "keygen",
        "`sealift key generate --output FILE` makes an identity",
    ),
    ("passwd", "`sealift key generate` makes an identity"),
    ("self-update", "your package manager updates it"),
];

/// The same for commands below another.
pub(super) const SUBCOMMANDS: &[(&str, &str, &str)] = &[
    ("key", "list", "`sealift status` names the recipients"),
    ("key", "add", "list recipients in the configuration"),
    ("key", "remove", "list recipients in the configuration"),
    (
        "key",
        "passwd",
        "`sealift key generate --passphrase` makes an identity",
    ),
    ("key", "export", "an identity is a file; copy that"),
];

/// Options of peers, and what does their work here.
pub(super) const OPTIONS: &[(&str, &str)] = &[
    (
        "-r",
        "--from URL names a target, --target NAME one of the configuration",
    ),
    (
        "--repo",
        "--from URL names a target, --target NAME one of the configuration",
    ),
    (
        "--repository",
        "--from URL names a target, --target NAME one of the configuration",
    ),
    ("-p", "--identity FILE names the key; backups need none"),
    (
        "--password-file",
        "--identity FILE names the key; backups need none",
    ),
    (
        "--passphrase-file",
        "SEALIFT_PASSPHRASE_FILE names the file",
    ),
    ("-n", "--dry-run shows what a command would do"),
    ("--read-data", "--data reads the archives too"),
    (
        "--read-data-subset",
        "--data=5% reads a share of the archives",
    ),
    ("--verify-data", "--data reads the archives too"),
    ("--keep-last", "--policy \"last=3,daily=7\" keeps that many"),
    (
        "--keep-hourly",
        "--policy \"hourly=24,daily=7\" keeps that many",
    ),
    (
        "--keep-daily",
        "--policy \"daily=7,weekly=4\" keeps that many",
    ),
    (
        "--keep-weekly",
        "--policy \"daily=7,weekly=4\" keeps that many",
    ),
    (
        "--keep-monthly",
        "--policy \"daily=7,monthly=6\" keeps that many",
    ),
    (
        "--keep-yearly",
        "--policy \"daily=7,yearly=2\" keeps that many",
    ),
    (
        "--keep-within",
        "--policy \"within=2d\" keeps what is younger",
    ),
    (
        "--exclude",
        "`exclude` of a tree in the configuration: `sealift help sources`",
    ),
    (
        "--exclude-file",
        "`exclude` of a tree in the configuration: `sealift help sources`",
    ),
    ("--output", "--to DIR is where a restore goes"),
];

/// Adds the words that mean the same as `command`.
pub(super) fn with_aliases(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let same = ALIASES.iter().filter(|(_, meant)| *meant == name);
    same.fold(command, |command, (alias, _)| command.alias(*alias))
}

/// Returns what does the work of the command `word`, which Sealift does not have below `parent`.
pub(in crate::cli) fn command_tip(parent: Option<&str>, word: &str) -> Option<&'static str> {
    if let Some(parent) = parent {
        let mut all = SUBCOMMANDS.iter();
        let found = all.find(|(above, name, _)| *above == parent && *name == word);
        return found.map(|(_, _, tip)| *tip);
    }
    let found = COMMANDS.iter().find(|(name, _)| *name == word);
    found.map(|(_, tip)| *tip)
}

/// Returns what does the work of `option`, which is not known.
pub(in crate::cli) fn option_tip(option: &str) -> Option<&'static str> {
    let name = option.split('=').next().unwrap_or(option);
    let found = OPTIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, tip)| *tip)
}

/// Returns the message that there is no command `word`.
pub(in crate::cli) fn has_no(word: &str) -> String {
    format!("sealift has no `{word}`")
}
