//! The garbage itself, by a seed.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::random::Random;

/// Of each kind some: controls, blanks, letters that are not ASCII, numbers, addresses, what a shell or a parser acts
/// upon. No address leads off this machine.
const SAMPLES: &[&str] = &[
    "",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "x\n",
    "\nx",
    "x\ny",
    "x\r\n",
    " x",
    "x ",
    "a b",
    "\x1b[2J",
    "\x7f",
    "a\0b",
    "\u{85}",
    "\u{a0}",
    "\u{200b}x",
    "\u{feff}x",
    "\u{202e}x",
    "ü",
    "日本語",
    "🦀",
    "e\u{301}",
    "\u{fffd}",
    "0",
    "-1",
    "1",
    "7",
    "18446744073709551615",
    "99999999999999999999",
    "1e309",
    "NaN",
    "true",
    "0x10",
    "1.5",
    "http://",
    "https://",
    "://",
    "//",
    "http:",
    "http://[",
    "http://[::1",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:-1",
    "http://a b",
    "http://127.0.0.1:1/a|b{}^`\"<>",
    "http://127.0.0.1:1/?x=y#z",
    "http://u:p@127.0.0.1:1",
    "http://127.0.0.1:1/../..",
    "https://127.0.0.1:1",
    "127.0.0.1:1",
    "socks5://127.0.0.1:1",
    "ftp://127.0.0.1:1",
    "file:///etc/passwd",
    "file:x",
    "data:,x",
    "mailto:x",
    "s3://x",
    "s3:x",
    "memory://",
    "'",
    "\"",
    "'\"'",
    "`",
    "$(x)",
    "%",
    "%zz",
    "%00",
    "%0a",
    "{}",
    "{old}",
    "[",
    "]",
    "\\",
    "=",
    "==",
    "/",
    ".",
    "..",
    "../x",
    "a/../b",
    "~",
    "~x/y",
    "*",
    "**",
    "?",
    "-",
    "--",
    "-oProxyCommand=x",
    ":",
    "@",
    "a@b",
    "a:b",
    ",",
    ";",
    "#",
    "&",
    "+",
    "|",
    "<x>",
    "null",
    "{\"a\":1}",
    "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
    "ssh-ed25519 AAAA",
    "age1",
    "0 6 * * *",
    "* * * * * *",
    "1000:1000",
    "99999999999999d",
    "1h",
    "5%",
    "\u{10ffff}",
    "/dev/null",
    "/dev/full",
    "/proc/self/mem",
];
/// What random values are made of.
const LETTERS: &[char] = &[
    'a', 'Z', '0', '9', ' ', '\t', '\n', '\r', '/', '\\', ':', '@', '.', '-', '_', '%', '?', '#',
    '&', '=', '+', '*', '[', ']', '{', '}', '(', ')', '<', '>', '"', '\'', '`', '$', '|', ';', ',',
    '!', '^', '~', '\x01', '\x1b', '\x7f', 'é', '漢', '\u{200b}', '\u{2028}', '🦀',
];

/// Values by a seed.
pub struct Source(Random);

impl Source {
    /// By `SEALIFT_TEST_SEED`, else another one each time; it is printed.
    pub fn new() -> Self {
        let asked_for = std::env::var("SEALIFT_TEST_SEED").ok();
        let seed = asked_for
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                u64::from(now.subsec_nanos())
            });
        println!("SEALIFT_TEST_SEED={seed}");
        Self(Random::new(seed))
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.below(end)
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A sample, one within other letters, one that is very long, or letters at random.
    pub fn garbage(&mut self) -> String {
        match self.below(8) {
            0..=3 => (*self.of(SAMPLES)).to_owned(),
            4 => format!("x{}y", self.of(SAMPLES)),
            5 => format!("{}{}", self.of(SAMPLES), self.of(SAMPLES)),
            6 => {
                let length = *self.of(&[70, 300, 5_000, 70_000]);
                let one = self.of(&["x", "é", "/", "a.", "%20", "1"]).repeat(length);
                one.chars().take(length).collect()
            }
            _ => {
                let length = 1 + self.below(30);
                (0..length).map(|_| *self.of(LETTERS)).collect()
            }
        }
    }

    /// What a variable or an argument can hold: no NUL.
    pub fn garbage_of_processes(&mut self) -> String {
        self.garbage().replace('\0', "\x01")
    }
}

/// Asserts that `said` reports no panic.
pub fn assert_no_panic(said: &str, what: &str) {
    for word in ["panicked", "internal error", "RUST_BACKTRACE"] {
        assert!(!said.contains(word), "{what}: {said}");
    }
}
