//! Examples and exit codes of each command.

mod configuration;
mod keys;
mod more;

use super::reference::EXIT_CODES;

/// What clap does not know of a command.
#[derive(Debug)]
pub(in crate::cli) struct Page {
    /// The command's words, such as `key generate`.
    pub(in crate::cli) command: &'static str,
    /// Commands and their purposes.
    pub(in crate::cli) examples: &'static [(&'static str, &'static str)],
    /// When the exit code is 3. Empty: never.
    pub(in crate::cli) partial: &'static str,
}

impl Page {
    /// Returns the exit codes that the command has, each with its meaning.
    pub(in crate::cli) fn exit_codes(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let meaning = |(code, general): &(&'static str, &'static str)| match *code {
            "3" if self.partial.is_empty() => None,
            "3" => Some((*code, self.partial)),
            _ => Some((*code, *general)),
        };
        EXIT_CODES.iter().filter_map(meaning)
    }
}

/// Returns the page of the command with these words, such as `key generate`.
pub(in crate::cli) fn of(command: &str) -> Option<&'static Page> {
    all().find(|page| page.command == command)
}

const fn page(
    command: &'static str,
    examples: &'static [(&'static str, &'static str)],
    partial: &'static str,
) -> Page {
    Page {
        command,
        examples,
        partial,
    }
}

/// Returns the pages of all commands.
pub(in crate::cli) fn all() -> impl Iterator<Item = &'static Page> {
    let parts = [PAGES, configuration::PAGES, keys::PAGES, more::PAGES];
    parts.into_iter().flatten()
}

/// Two examples or more for each command: of those that back up, look and restore.
const PAGES: &[Page] = &[
    page(
        "backup",
        &[
            (
                "sealift backup",
                "Take a snapshot and send it to all targets",
            ),
            (
                "sealift backup --tag before-upgrade --note 'kernel 6.12'",
                "Mark a snapshot, to find it again",
            ),
            (
                "sealift backup --wait 30m",
                "Wait for the backup that is under way",
            ),
        ],
        "a source was left out, a file was skipped, a source shrank, or a target is behind",
    ),
    page(
        "status",
        &[
            ("sealift status", "Ask every target of the configuration"),
            (
                "sealift status --from s3://backups/atocore --signer allowed_signers",
                "Show all hosts on one target, from any machine",
            ),
            (
                "sealift --quiet status --from s3://backups/h --max-age 26h",
                "Watch them from cron on a third machine",
            ),
        ],
        "the verdict is amber or red: something needs attention (docs/verdict.md)",
    ),
    page(
        "runs",
        &[
            ("sealift runs", "Show the newest runs of this host"),
            (
                "sealift runs --kind backup --outcome failed",
                "Show the backups that failed",
            ),
            (
                "sealift runs 01KNJ",
                "Show one run with its report and its log",
            ),
        ],
        "",
    ),
    page(
        "incident",
        &[
            (
                "sealift incident --note 'the RAID controller was changed'",
                "Let the next backup check every database in full",
            ),
            ("sealift --json incident", "Do so in a script"),
        ],
        "",
    ),
    page(
        "pause",
        &[
            (
                "sealift pause --for 4h",
                "Let scheduled jobs wait for 4 hours",
            ),
            (
                "sealift pause --until '2026-12-01 18:00'",
                "Let them wait until then, also for days",
            ),
        ],
        "",
    ),
    page(
        "resume",
        &[
            ("sealift resume", "Let scheduled jobs go on"),
            ("sealift --json resume", "Do so in a script"),
        ],
        "",
    ),
    page(
        "unit",
        &[
            (
                "sealift unit --print",
                "Show the agent's unit, and its sandbox for this configuration",
            ),
            (
                "sealift unit --print --name backup --part drop-in",
                "Show the sandbox of a backup by a timer",
            ),
            (
                "sealift --config drill.toml unit --print --name drill",
                "Show the unit of a drill each quarter, on the key holder's machine",
            ),
        ],
        "",
    ),
    page(
        "list",
        &[
            (
                "sealift list",
                "Show the snapshots of this host, here and on each target",
            ),
            (
                "sealift list --from /mnt/usb/backups --signer allowed_signers",
                "Show those on a target, without a configuration",
            ),
        ],
        "a target cannot be read, or a snapshot on it is missing or not trusted",
    ),
    page(
        "ls",
        &[
            (
                "sealift ls latest",
                "Show the newest snapshot that is on this host",
            ),
            (
                "sealift ls latest config --target s3 --identity key.txt",
                "Show one directory of a snapshot on a target",
            ),
        ],
        "",
    ),
    page(
        "cat",
        &[
            (
                "sealift cat latest config/app.toml --from NAME --identity key.txt",
                "Print one file of a snapshot on a target",
            ),
            (
                "sealift cat 41 db/app.db --from NAME --identity key.txt > app.db",
                "Get it as it was; the exit code says whether it is right",
            ),
        ],
        "",
    ),
    page(
        "find",
        &[
            (
                "sealift find report.ods --from usb --identity key.txt",
                "Show every version of a file, and the snapshots that have it",
            ),
            (
                "sealift find '*.jpg' --size +10M --last 30 --from usb -i key.txt",
                "Search for large pictures in the last 30 snapshots",
            ),
            (
                "sealift find --rows 'documents>1000' --from usb -i key.txt",
                "Show the snapshots in which a table has more rows than this",
            ),
        ],
        "a snapshot could not be searched, which is named",
    ),
    page(
        "versions",
        &[
            (
                "sealift versions data/report.ods --from usb --identity key.txt",
                "Show each content of a file, and how to get it",
            ),
            (
                "sealift versions data/report.ods --in 2026-04-01.. --from usb -i key.txt",
                "Show only those since a day",
            ),
        ],
        "a snapshot could not be searched, which is named",
    ),
    page(
        "diff",
        &[
            (
                "sealift diff 41 latest --from usb --identity key.txt",
                "Show what changed from one snapshot to another",
            ),
            (
                "sealift diff latest..now data --live /srv/data --from usb -i key.txt",
                "Compare a directory with its newest backup",
            ),
            (
                "sealift diff yesterday latest",
                "Compare snapshots that are on this host",
            ),
        ],
        "something could not be compared; with --exit-code also: something differs",
    ),
    page(
        "mount",
        &[
            (
                "sealift mount /mnt/backups --from s3://bucket/backups --identity key.txt",
                "Show every snapshot as a directory, until Ctrl-C",
            ),
            (
                "sealift mount /mnt/backups --from usb --identity key.txt --snapshot latest",
                "Show one snapshot of a named remote",
            ),
        ],
        "",
    ),
    page(
        "stats",
        &[
            (
                "sealift stats",
                "Show sizes, growth and deduplication, as this host knows them",
            ),
            ("sealift stats --target s3", "Measure what is on a target"),
        ],
        "a snapshot on a target is missing or not trusted",
    ),
    page(
        "verify",
        &[
            (
                "sealift verify --data=5%",
                "Compare all targets with the manifests, and read a share of the archives",
            ),
            (
                "sealift verify --identity key.txt --from /mnt/usb/backups --signer allowed_signers",
                "Try a restore of the newest snapshot",
            ),
        ],
        "an object is missing, damaged or not trusted, or a target could not be read",
    ),
    page(
        "restore",
        &[
            (
                "sealift restore latest --target s3 --identity key.txt --to /tmp/restore",
                "Restore the newest snapshot from a target of the configuration",
            ),
            (
                "sealift restore 42 config --from /backups --identity key.txt --to out",
                "Restore one directory of snapshot 42, without a configuration",
            ),
            (
                "sealift restore --from usb --identity key.txt --in-place --via 'ssh root@h'",
                "Put the newest snapshot in place on another host; the identity stays here",
            ),
            (
                "sealift restore --in-place",
                "Put the newest snapshot of this host where its sources are, as one change",
            ),
            (
                "sealift restore --resume",
                "Finish or undo a restore in place that was interrupted",
            ),
        ],
        "everything that the snapshot has is restored, but it lacks something itself, or an attribute could not be kept; or a check fails that failed before",
    ),
    page(
        "sql",
        &[
            (
                "sealift sql latest app.db 'SELECT count(*) FROM users' --from usb -i key.txt",
                "Count rows of a database on a target, without restoring it",
            ),
            (
                "sealift sql yesterday db/app.db 'PRAGMA integrity_check' --csv",
                "Query a database in a snapshot on this host",
            ),
        ],
        "",
    ),
    page(
        "rollback",
        &[
            (
                "sealift rollback",
                "Bring back the content that the last restore in place replaced",
            ),
            (
                "sealift rollback --list",
                "Show each restore in place and its safety copy",
            ),
            (
                "sealift rollback --clean",
                "Delete the safety copies that are old enough",
            ),
        ],
        "",
    ),
    page(
        "open",
        &[
            (
                "sealift open repo/h/archives/*/*.age --identity key.txt | tar tv",
                "List what archives contain",
            ),
            (
                "sealift open one.tar.zst.age --identity key.txt | tar x -C out",
                "Unpack a single archive",
            ),
            (
                "sealift open *.age -i key.txt | tar x --wildcards 'files/photos/*.jpg'",
                "Unpack what matches, with tar's own patterns",
            ),
        ],
        "",
    ),
];
