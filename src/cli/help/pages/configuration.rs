//! Examples of the commands that edit and check the configuration, and of remotes.

use super::{Page, page};

pub(super) const PAGES: &[Page] = &[
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
];
