//! Exit codes, files and environment variables, for `sealift --help`, its topics and the manual.

/// Each exit code and its meaning.
pub(in crate::cli) const EXIT_CODES: &[(&str, &str)] = &[
    (
        "0",
        "complete: everything was done, and nothing needs attention",
    ),
    (
        "1",
        "failed: the message says what failed, why, and what to do next",
    ),
    ("2", "the command line or the configuration is wrong"),
    (
        "3",
        "finished, but something was skipped, is missing or is out of date",
    ),
];

/// Each file or directory of a host or a key holder, and its content.
pub(in crate::cli) const FILES: &[(&str, &str)] = &[
    (
        "sealift.toml",
        "the configuration. Sealift looks for --config, $SEALIFT_CONFIG, ./sealift.toml, ~/.config/sealift/sealift.toml and /etc/sealift/sealift.toml, in this order",
    ),
    (
        "signer",
        "the SSH key that signs manifests; allowed_signers is beside it",
    ),
    (
        "state directory",
        "catalog, spool, pins, local snapshots, and the history of runs; `state` in the configuration, /var/lib/sealift beside one in /etc",
    ),
    ("recover.py", "beside an identity: restores without Sealift"),
];

/// Each environment variable and its meaning.
pub(in crate::cli) const ENVIRONMENT: &[(&str, &str)] = &[
    ("SEALIFT_CONFIG", "the configuration file"),
    (
        "SEALIFT_PASSPHRASE_FILE",
        "a file with an identity's passphrase, for use without a terminal",
    ),
    (
        "SEALIFT_TOKEN",
        "the agent's token, if no file of [serve] has it",
    ),
    (
        "SEALIFT_WEBDAV_USER, SEALIFT_WEBDAV_PASSWORD",
        "credentials of WebDAV targets",
    ),
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION, ...",
        "credentials of S3 targets, as for Amazon's own tools",
    ),
    ("USER, RSYNC_PASSWORD", "credentials of an rsync daemon"),
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "HTTP proxies for S3, Google, Azure and WebDAV",
    ),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "certificates that replace the system's",
    ),
    ("TMPDIR", "where temporary files go, if not to /tmp"),
    ("NO_COLOR", "if set and not empty: no colours on a terminal"),
    (
        "SEALIFT_CLOCK",
        "for tests and drills: the time to use, in RFC 3339; TIME@168 runs 168 times as fast",
    ),
    (
        "SEALIFT_MACHINE_ID",
        "the machine's id, for containers whose id changes",
    ),
];
