//! Examples of what is left: upkeep of targets and snapshots, the agent, and setup.

use super::{Page, page};

pub(super) const PAGES: &[Page] = &[
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
            (
                "sealift pin latest --note 'before the migration'",
                "Keep the newest one, and write down why",
            ),
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
