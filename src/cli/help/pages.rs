//! Examples and exit codes of each command.

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
    PAGES.iter().find(|page| page.command == command)
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

/// Two examples or more for each command.
pub(in crate::cli) const PAGES: &[Page] = &[
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
        "target add",
        &[
            (
                "sealift target add laptop=rsync://me@laptop/backups",
                "Add a machine that ssh reaches",
            ),
            ("sealift target add /mnt/usb/backups", "Add a disk"),
        ],
        "the target is added, but does not work",
    ),
    page(
        "target remove",
        &[
            (
                "sealift target remove laptop",
                "Send nothing to it any more",
            ),
            (
                "sealift --config c.toml target remove usb",
                "Do so in another configuration",
            ),
        ],
        "",
    ),
    page(
        "target test",
        &[
            (
                "sealift target test",
                "Try all targets of the configuration",
            ),
            ("sealift target test s3", "Try one target"),
        ],
        "a target does not work",
    ),
    page(
        "target list",
        &[
            (
                "sealift target list",
                "Show the targets of the configuration",
            ),
            ("sealift --json target list", "Show them as JSON"),
        ],
        "",
    ),
    page(
        "source add",
        &[
            (
                "sealift source add --tree /srv/photos",
                "Back up a directory too",
            ),
            (
                "sealift source add --sqlite /srv/app/app.db",
                "Back up a database too",
            ),
        ],
        "",
    ),
    page(
        "source remove",
        &[
            (
                "sealift source remove photos",
                "Back it up no more; earlier snapshots keep it",
            ),
            (
                "sealift --config c.toml source remove photos",
                "Do so in another configuration",
            ),
        ],
        "",
    ),
    page(
        "source list",
        &[
            ("sealift source list", "Show what is backed up"),
            ("sealift --json source list", "Show it as JSON"),
        ],
        "",
    ),
    page(
        "config check",
        &[
            (
                "sealift config check",
                "Check the configuration and the files that it names",
            ),
            (
                "sealift config check --show",
                "Show every key that is in effect",
            ),
        ],
        "there are warnings",
    ),
    page(
        "remote add",
        &[
            (
                "sealift remote add dalidou s3://backups/atocore",
                "Give a place of backups a name",
            ),
            (
                "sealift remote add usb /mnt/usb/backups --signer allowed_signers",
                "Name the signer too",
            ),
        ],
        "",
    ),
    page(
        "remote list",
        &[
            (
                "sealift remote list",
                "Show the named places and their signers",
            ),
            ("sealift --json remote list", "Show them as JSON"),
        ],
        "",
    ),
    page(
        "remote remove",
        &[
            (
                "sealift remote remove usb",
                "Remove a name; the backups stay",
            ),
            ("sealift --quiet remote remove usb", "Do so without a word"),
        ],
        "",
    ),
    page(
        "remote trust",
        &[
            (
                "sealift remote trust dalidou --signer SHA256:...",
                "Remember a signer of a named place",
            ),
            (
                "sealift remote trust /mnt/usb/backups --host h --signer allowed_signers",
                "Remember one of a host at a place without a name",
            ),
        ],
        "",
    ),
    page(
        "remote forget",
        &[
            (
                "sealift remote forget dalidou",
                "Forget the signers of a named place",
            ),
            (
                "sealift remote forget /mnt/usb/backups --host h",
                "Forget those of one host",
            ),
        ],
        "",
    ),
    page(
        "remote test",
        &[
            (
                "sealift remote test dalidou",
                "Check a named place and its signer",
            ),
            (
                "sealift remote test /mnt/usb/backups",
                "Check a place without a name",
            ),
        ],
        "a snapshot there is missing or not trusted",
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
    page(
        "key generate",
        &[
            ("sealift key generate --output key.txt", "Make an identity"),
            (
                "sealift key generate --output key.txt --passphrase",
                "Make one that is encrypted with a passphrase",
            ),
        ],
        "",
    ),
    page(
        "key show",
        &[
            (
                "sealift key show key.txt",
                "Print the recipient, for the host's configuration",
            ),
            ("sealift --json key show key.txt", "Print it as JSON"),
        ],
        "",
    ),
    page(
        "key check",
        &[
            (
                "sealift key check --identity key.txt recipients.txt",
                "Check the copy from the paper page before you need it",
            ),
            (
                "sealift --config sealift.toml key check --identity key.txt",
                "Check it against the recipients of a configuration",
            ),
        ],
        "",
    ),
    page(
        "key paper",
        &[
            (
                "sealift key paper --identity key.txt --signer SHA256:... --target s3://bucket/prefix --output page.html",
                "Write the page for the safe: the identity as letters and as a QR code",
            ),
            (
                "sealift key paper --identity key.txt --public --output wall.html",
                "Write it without the identity",
            ),
        ],
        "With --decrypted, the page of an identity that a passphrase protects has the identity itself, so that the paper alone \
         is enough.",
    ),
    page(
        "key recipients",
        &[
            (
                "sealift key recipients",
                "Show what each recipient decrypts on the first target",
            ),
            (
                "sealift key recipients --from s3://bucket/prefix --host dalidou",
                "Show it on a machine without a configuration",
            ),
        ],
        "Former recipients go on decrypting what was encrypted for them. `sealift backup --reseal` closes new snapshots to them, and \
         `sealift prune --sealed-to RECIPIENT --yes` deletes the older ones.",
    ),
    page(
        "key prove",
        &[
            (
                "sealift key prove --from s3://bucket/backups --identity key.txt --signer-key drill",
                "Open the newest snapshot's index, and leave a signed receipt",
            ),
            (
                "sealift key prove --archive stick/ --output receipt.json --identity key.txt --signer-key drill",
                "Do it without a network, with what --collect put on a stick",
            ),
        ],
        "the identity opened the snapshots of some hosts, and not of all",
    ),
    page(
        "drill",
        &[
            (
                "sealift drill --from s3://bucket/backups --identity key.txt --signer-key drill",
                "Restore the newest snapshot, check it, remove it, and leave a signed receipt",
            ),
            (
                "sealift --config drill.toml drill",
                "Do it as [drill] says, with a service and its checks (docs/proof.md)",
            ),
        ],
        "the snapshot failed and its receipt says so, a service did not stop, or a place could not be read",
    ),
    page(
        "prune",
        &[
            (
                "sealift prune --dry-run",
                "Show each snapshot, whether it stays, and why",
            ),
            (
                "sealift prune --policy daily=7,weekly=4 --keep-tag release --dry-run",
                "Show what another policy would keep, and what a tag keeps",
            ),
            (
                "sealift prune --forget 20260407T060000Z",
                "Delete one snapshot and no other",
            ),
        ],
        "a target could not be pruned, or an object could not be deleted",
    ),
    page(
        "pin",
        &[
            ("sealift pin 20260407T060000Z", "Keep a snapshot"),
            ("sealift pin --list", "Show what is pinned"),
        ],
        "",
    ),
    page(
        "ack",
        &[
            (
                "sealift ack shrunk --note 'old logs deleted'",
                "Accept that sources shrank",
            ),
            (
                "sealift ack shrunk --source photos",
                "Accept it for one source",
            ),
            (
                "sealift ack target_behind --target laptop --note holiday",
                "Silence a finding about a target until it ends",
            ),
        ],
        "",
    ),
    page(
        "serve",
        &[
            (
                "sealift serve",
                "Run what [schedule] says, until it is stopped",
            ),
            (
                "sealift serve --once",
                "Run what is due now, such as from cron",
            ),
        ],
        "with --once: a run finished, but something was skipped or a target is behind",
    ),
    page(
        "notify test",
        &[
            (
                "sealift notify test",
                "Send a message to each channel of the configuration",
            ),
            ("sealift notify test phone", "Send one to this channel"),
        ],
        "",
    ),
    page(
        "sync",
        &[
            (
                "sealift sync s3 laptop",
                "Copy everything from one target to another",
            ),
            (
                "sealift sync s3://backups/atocore /mnt/usb/backups --dry-run",
                "Show what would be copied, between targets that no configuration names",
            ),
        ],
        "a snapshot or a host could not be copied; the others were",
    ),
    page(
        "snapshot",
        &[
            ("sealift snapshot", "Take the sources, and send nothing"),
            (
                "sealift snapshot --include chroma",
                "Also take a source that is taken on request",
            ),
        ],
        "a source was left out, or a file was skipped",
    ),
    page(
        "validate",
        &[
            ("sealift validate", "Check the newest snapshot on this host"),
            (
                "sealift validate --dir /tmp/restore",
                "Check a directory that was restored",
            ),
        ],
        "a part could not be checked, or a source is missing",
    ),
    page(
        "push",
        &[
            ("sealift push", "Send the newest snapshot on this host"),
            (
                "sealift push --dir /srv/backups/20260407T060000Z",
                "Send a directory that another tool made",
            ),
            (
                "sealift push --spooled",
                "Send what waits to targets that were away",
            ),
        ],
        "a file was skipped, or a target is behind",
    ),
    page(
        "catalog rebuild",
        &[
            (
                "sealift catalog rebuild",
                "Rebuild a lost or damaged catalog",
            ),
            (
                "sealift catalog rebuild --identity key.txt",
                "Also learn what is stored, so that the next push need not send it again",
            ),
        ],
        "a target could not be read, or only in part",
    ),
    page(
        "adopt",
        &[
            (
                "sealift adopt",
                "Continue the history of a machine that is gone",
            ),
            (
                "sealift adopt --after 0",
                "Say that this host never pushed, where no target can be read",
            ),
        ],
        "",
    ),
    page(
        "demo",
        &[
            ("sealift demo", "See everything work, in a temporary folder"),
            (
                "sealift demo --keep",
                "Keep the folder, to look around in it",
            ),
        ],
        "",
    ),
    page(
        "init",
        &[
            (
                "sealift init --recipient age1... --target /mnt/usb/backups --tree /srv/photos",
                "Back up a directory to a disk",
            ),
            (
                "sealift init --recipient keys.txt --target s3://backups/h --preset atocore --root /srv",
                "Back up AtoCore to S3",
            ),
        ],
        "the configuration is written, but a target does not work",
    ),
    page(
        "completions",
        &[
            (
                "sealift completions bash > /etc/bash_completion.d/sealift",
                "Install completions for bash",
            ),
            (
                "sealift completions fish > ~/.config/fish/completions/sealift.fish",
                "Install completions for fish",
            ),
        ],
        "",
    ),
    page(
        "man",
        &[
            (
                "sealift man restore | man -l -",
                "Read the page of a command",
            ),
            (
                "sealift man --dir /usr/local/share/man/man1",
                "Install all pages",
            ),
        ],
        "",
    ),
    page(
        "help",
        &[
            ("sealift help restore", "Show what a command does"),
            ("sealift help retention", "Read about a topic"),
        ],
        "",
    ),
];
