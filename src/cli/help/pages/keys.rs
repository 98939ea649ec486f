//! Examples of the commands of key holders: identities and drills.

use super::{Page, page};

pub(super) const PAGES: &[Page] = &[
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
];
