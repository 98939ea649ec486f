//! `allowed_signers` files, read exactly as OpenSSH reads them.
//!
//! Two readers decide whose manifests count: Sealift, and `ssh-keygen -Y verify` in `recover.py` or
//! by hand. They must agree, so this module follows `sshsig.c`, byte by byte and with its quirks:
//! - a line is `principals [options] keytype base64 [comment]`, and ends at its first NUL;
//! - quotes join words, and both pattern lists may deny (`!pattern`), see [`pattern`];
//! - a line that OpenSSH cannot read has no effect, and the others keep theirs.
//!
//! A test compares the two readers on generated lines (`tests/stages/format/allowed_signers.rs`).

mod pattern;
mod time;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

use crate::base::ids::HostName;

/// One effective line of an `allowed_signers` file.
#[derive(Debug, Clone)]
pub struct AllowedSigner {
    /// A pattern list; bytes, since OpenSSH knows no encoding.
    principals: Vec<u8>,
    options: Options,
    /// `None` for a key that cannot sign a manifest, such as RSA or a certificate.
    key: Option<KeyData>,
}

#[derive(Debug, Clone, Default)]
struct Options {
    /// Whether the key signs certificates, and nothing else.
    is_authority: bool,
    /// A pattern list; `None` for every namespace.
    namespaces: Option<Vec<u8>>,
    /// Seconds since 1970, as OpenSSH keeps them.
    valid_after: Option<u64>,
    valid_before: Option<u64>,
}

impl AllowedSigner {
    /// Returns a signer that may sign everything for `host` with `key`.
    pub fn for_host(host: &HostName, key: PublicKey) -> Self {
        Self {
            principals: host.as_str().as_bytes().to_vec(),
            options: Options::default(),
            key: Some(key.key_data().clone()),
        }
    }

    /// Returns whether the line lets `key` sign for `host` in `namespace` at `now`, in seconds
    /// since 1970.
    pub fn accepts(&self, host: &HostName, namespace: &str, key: &PublicKey, now: i64) -> bool {
        self.accepts_principal(host.as_str().as_bytes(), namespace, key, now)
    }

    /// Returns whether the line lets `key` sign as `principal` in `namespace` at `now`, in seconds
    /// since 1970.
    pub fn accepts_principal(
        &self,
        principal: &[u8],
        namespace: &str,
        key: &PublicKey,
        now: i64,
    ) -> bool {
        let namespaces = self.options.namespaces.as_deref();
        // OpenSSH compares without a sign, too.
        let now = now as u64;
        self.key.as_ref() == Some(key.key_data())
            && pattern::list_matches(&self.principals, principal)
            && !self.options.is_authority
            && namespaces.is_none_or(|list| pattern::list_matches(list, namespace.as_bytes()))
            && self.options.valid_after.is_none_or(|after| now >= after)
            && self.options.valid_before.is_none_or(|before| now <= before)
    }

    /// Returns the key, if it may sign in `namespace` for someone at some time.
    pub(super) fn key_in(&self, namespace: &str) -> Option<PublicKey> {
        let namespaces = self.options.namespaces.as_deref();
        let is_allowed = !self.options.is_authority
            && namespaces.is_none_or(|list| pattern::list_matches(list, namespace.as_bytes()));
        let key = self.key.as_ref().filter(|_| is_allowed)?;
        Some(PublicKey::from(key.clone()))
    }

    /// Returns whether the line names `key` as a signer for `host`, for any use.
    pub fn names(&self, host: &HostName, key: &PublicKey) -> bool {
        self.key.as_ref() == Some(key.key_data())
            && pattern::list_matches(&self.principals, host.as_str().as_bytes())
    }
}

/// A line that has no effect because it is malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredLine {
    /// Number of the line, from 1.
    pub number: usize,
    /// What is malformed.
    pub reason: String,
}

/// An `allowed_signers` file.
#[derive(Debug, Clone, Default)]
pub struct AllowedSigners {
    /// The lines that have an effect.
    pub signers: Vec<AllowedSigner>,
    /// The malformed lines.
    pub ignored: Vec<IgnoredLine>,
}

/// Parses the content of an `allowed_signers` file.
pub fn parse_allowed_signers(content: &[u8]) -> AllowedSigners {
    let mut file = AllowedSigners::default();
    for (index, line) in content.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match parse_line(line) {
            Ok(signer) => file.signers.extend(signer),
            Err(reason) => file.ignored.push(IgnoredLine {
                number: index + 1,
                reason,
            }),
        }
    }
    file
}

const WHITESPACE: &[u8] = b" \t\r\n";
const BLANK: &[u8] = b" \t";

/// Parses a line, with the newline that ends it. Blank lines and comments return `None`.
fn parse_line(line: &[u8]) -> Result<Option<AllowedSigner>, String> {
    // OpenSSH reads lines as C strings.
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    // Newer versions of OpenSSH skip a carriage return here, older ones read an empty principal.
    let line = without_leading(line, BLANK);
    if line.is_empty() || WHITESPACE.contains(&line[0]) || line[0] == b'#' {
        return Ok(None);
    }
    let (principals, rest) = take_principals(line).ok_or("a quote is not closed")?;
    let rest = rest.ok_or("it has no key")?;
    let (key, options) = match read_key(rest) {
        Some(key) => (key, Options::default()),
        None => {
            let (options, rest) = split_options(rest)?;
            let rest = without_leading(rest, BLANK);
            let key = read_key(rest).ok_or("its key is malformed, or of an unknown kind")?;
            (key, parse_options(options)?)
        }
    };
    Ok(Some(AllowedSigner {
        principals,
        options,
        key: key.usable(),
    }))
}

fn without_leading<'a>(text: &'a [u8], any_of: &[u8]) -> &'a [u8] {
    let skipped = text.iter().take_while(|byte| any_of.contains(byte)).count();
    &text[skipped..]
}

fn position(text: &[u8], any_of: &[u8]) -> Option<usize> {
    text.iter().position(|byte| any_of.contains(byte))
}

/// Splits the first word off, as `strdelimw` does: a quote may begin within it and ends it. Returns
/// the word, and the rest if anything delimited the word; `None` if a quote is not closed.
fn take_principals(line: &[u8]) -> Option<(Vec<u8>, Option<&[u8]>)> {
    let Some(end) = position(line, b" \t\r\n\"") else {
        return Some((line.to_vec(), None));
    };
    let (word, rest) = (&line[..end], &line[end + 1..]);
    if line[end] != b'"' {
        return Some((word.to_vec(), Some(without_leading(rest, WHITESPACE))));
    }
    let end = position(rest, b"\"")?;
    let word = [word, &rest[..end]].concat();
    Some((word, Some(without_leading(&rest[end + 1..], WHITESPACE))))
}

/// Splits the options off at the first blank outside quotes.
fn split_options(text: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let mut is_quoted = false;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if text.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => is_quoted = !is_quoted,
            byte if !is_quoted && BLANK.contains(byte) => {
                return Ok((&text[..at], &text[at + 1..]));
            }
            _ => {}
        }
        at += 1;
    }
    Err(match is_quoted {
        true => "a quote in its options is not closed",
        false => "it has no key",
    }
    .to_owned())
}

/// A key, as it is written in a line.
struct KeyText {
    kind: String,
    blob: Vec<u8>,
}

/// Kinds of keys that OpenSSH knows; a line may name any of them.
const KINDS: &[&str] = &[
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ssh-rsa",
    "rsa-sha2-256",
    "rsa-sha2-512",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-mldsa44-ed25519@openssh.com",
];
const CERTIFICATE: &str = "-cert-v01@openssh.com";

/// Reads `keytype base64`; text after a further blank is a comment.
fn read_key(text: &[u8]) -> Option<KeyText> {
    let end = position(text, BLANK)?;
    let kind = std::str::from_utf8(&text[..end]).ok()?;
    let plain = kind.strip_suffix(CERTIFICATE);
    let is_certificate_of =
        |known: &&str| plain == Some(known.strip_suffix("@openssh.com").unwrap_or(known));
    if !KINDS.contains(&kind) && !KINDS.iter().any(is_certificate_of) {
        return None;
    }
    let rest = without_leading(&text[end..], BLANK);
    let digits = &rest[..position(rest, BLANK).unwrap_or(rest.len())];
    // `b64_pton` skips whitespace anywhere, including the end of the line.
    let digits = digits
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace() && **byte != 0x0b);
    let blob = STANDARD.decode(digits.copied().collect::<Vec<u8>>()).ok()?;
    let key = KeyText {
        kind: kind.to_owned(),
        blob,
    };
    // The kind is in the blob, too, and both must agree. RSA has several names for one kind.
    let is_ours = kind == "ssh-ed25519" || kind == "sk-ssh-ed25519@openssh.com";
    (!is_ours || key.usable().is_some()).then_some(key)
}

impl KeyText {
    /// Returns the key if it is of a kind that can sign manifests.
    fn usable(&self) -> Option<KeyData> {
        let key = PublicKey::from_bytes(&self.blob).ok()?;
        (key.algorithm().as_str() == self.kind).then(|| key.key_data().clone())
    }
}

/// Parses the options of a line, as `sshsigopt_parse` does.
fn parse_options(mut text: &[u8]) -> Result<Options, String> {
    let mut options = Options::default();
    let unknown = |text: &[u8]| {
        let name: String = String::from_utf8_lossy(text).chars().take(40).collect();
        format!("option {name:?} is unknown")
    };
    while !text.is_empty() {
        let before = text;
        if let Some(rest) = strip_name(text, "cert-authority") {
            options.is_authority = true;
            text = rest;
        } else if let Some(rest) = strip_name(text, "namespaces=") {
            let value = take_quoted(rest, &mut text)?;
            set_once(&mut options.namespaces, value, "namespaces")?;
        } else if let Some(rest) = strip_name(text, "valid-after=") {
            let value = take_quoted(rest, &mut text)?;
            set_once(&mut options.valid_after, moment(&value)?, "valid-after")?;
        } else if let Some(rest) = strip_name(text, "valid-before=") {
            let value = take_quoted(rest, &mut text)?;
            set_once(&mut options.valid_before, moment(&value)?, "valid-before")?;
        }
        if text.is_empty() {
            break;
        }
        text = text.strip_prefix(b",").ok_or_else(|| unknown(before))?;
        if text.is_empty() {
            return Err("its options end with a comma".to_owned());
        }
    }
    match (options.valid_after, options.valid_before) {
        (Some(after), Some(before)) if before <= after => {
            Err("it is valid before it is valid after".to_owned())
        }
        _ => Ok(options),
    }
}

/// Strips an option's name, in upper or lower case.
fn strip_name<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name.as_bytes()).then_some(rest)
}

/// Returns a quoted value, in which `\"` is a quote, and puts the text after it into `rest`.
fn take_quoted<'a>(text: &'a [u8], rest: &mut &'a [u8]) -> Result<Vec<u8>, String> {
    let text = text
        .strip_prefix(b"\"")
        .ok_or("the value of an option is not quoted")?;
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match text.get(at) {
            Some(b'"') => break,
            Some(b'\\') if text.get(at + 1) == Some(&b'"') => {
                value.push(b'"');
                at += 2;
            }
            Some(byte) => {
                value.push(*byte);
                at += 1;
            }
            None => return Err("a quote in its options is not closed".to_owned()),
        }
    }
    *rest = &text[at + 1..];
    Ok(value)
}

fn set_once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("it has {name} twice")),
    }
}

fn moment(value: &[u8]) -> Result<u64, String> {
    let seconds = time::parse(value).filter(|seconds| *seconds != 0);
    seconds.ok_or_else(|| {
        let shown = String::from_utf8_lossy(value);
        format!("{shown:?} is not a time like \"20260131\", \"202601312359\" or \"20260131Z\"")
    })
}
