//! Checks values before a library puts them into a header, a signature or an address.
//!
//! Most of these libraries panic on unexpected values. So every value of the configuration, the
//! environment and the credential files is checked here first. A message never contains the value,
//! which may be a secret.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use url::Url;

use super::error::OpenError;
use crate::base::ownership;

/// Maximum length of a value: no credential is longer.
const MOST_BYTES: usize = 16 << 10;
const MOST_FILE_BYTES: u64 = 1 << 20;
const MOST_ADDRESS_BYTES: usize = 2 << 10;

/// The form that a setting's value must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Any text on one line.
    Text,
    /// Visible ASCII characters, as a header or an address needs them.
    Word,
    /// A word that becomes part of a host name.
    Label,
    /// `http(s)://HOST:PORT/PATH`.
    Server,
    /// The address of a server, possibly with a query.
    Address,
    /// The path of such an address, from its first slash.
    Path,
    /// `HOST` or `HOST:PORT`.
    Host,
}

/// Checks `value`. An error follows the setting's name in a message.
pub(super) fn check(takes: Takes, value: &str) -> Result<(), String> {
    on_one_line(value)?;
    match takes {
        Takes::Text => Ok(()),
        Takes::Word => word(value),
        Takes::Label => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            match value.chars().find(|c| !fits(*c)) {
                Some(c) => Err(format!("has {} in it", shown(c))),
                None => Ok(()),
            }
        }
        Takes::Server => server(value).and_then(|_| as_it_is(value)),
        Takes::Address => address(value).and_then(|_| as_it_is(value)),
        Takes::Path if !value.starts_with('/') => Err("does not begin with a slash".to_owned()),
        Takes::Path => {
            let whole = format!("http://host{value}");
            address(&whole).and_then(|_| as_it_is(&whole))
        }
        Takes::Host if value.contains(['/', '@', '?', '#']) => {
            Err("is not HOST or HOST:PORT".to_owned())
        }
        Takes::Host => {
            let whole = format!("http://{value}");
            address(&whole).and_then(|_| as_it_is(&whole))
        }
    }
}

/// Refuses an address that would need encoding: the library takes the text itself and not a URL
/// parser's version of it.
fn as_it_is(text: &str) -> Result<(), String> {
    word(text)?;
    let parsed = text.parse::<http::Uri>();
    parsed
        .map(drop)
        .map_err(|error| format!("is not the address of a server ({error})"))
}

/// Accepts a non-empty line without control characters and without blanks at its ends.
pub(super) fn on_one_line(value: &str) -> Result<(), String> {
    let is_break = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    if value.ends_with(is_break) {
        return Err("ends in a line break".to_owned());
    }
    if value.contains(is_break) {
        return Err("has a line break in it".to_owned());
    }
    if value.starts_with(char::is_whitespace) || value.ends_with(char::is_whitespace) {
        return Err("begins or ends with a blank".to_owned());
    }
    if let Some(c) = value.chars().find(|c| c.is_control() || is_invisible(*c)) {
        return Err(format!("has {} in it", shown(c)));
    }
    match value.len() {
        0 => Err("is empty".to_owned()),
        1..=MOST_BYTES => Ok(()),
        _ => Err(format!("is longer than {MOST_BYTES} bytes")),
    }
}

/// Whether `c` is an invisible character, as text copied from a web page may contain.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{feff}')
}

/// Accepts visible ASCII characters only.
fn word(value: &str) -> Result<(), String> {
    match value.chars().find(|c| !c.is_ascii_graphic()) {
        Some(c) => Err(format!("has {} in it", shown(c))),
        None => Ok(()),
    }
}

/// Describes a character for a message.
fn shown(c: char) -> String {
    match c {
        ' ' => "a blank".to_owned(),
        '\t' => "a tab".to_owned(),
        c if c.is_ascii_graphic() => format!("the character {c}"),
        c if c.is_control() => format!("a control character (U+{:04X})", u32::from(c)),
        c => format!("a character that is not ASCII (U+{:04X})", u32::from(c)),
    }
}

/// Returns the address of a server in the form that libraries take: ASCII, without a final slash.
pub(super) fn server(text: &str) -> Result<String, String> {
    let url = address(text)?;
    if url.query().is_some() {
        return Err("has ? in it: write the server's address only".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn address(text: &str) -> Result<Url, String> {
    on_one_line(text)?;
    if text.len() > MOST_ADDRESS_BYTES {
        return Err(format!("is longer than {MOST_ADDRESS_BYTES} bytes"));
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme.map(str::to_ascii_lowercase).as_deref() {
        Some("http" | "https") => {}
        Some(_) => return Err("begins with neither https:// nor http://".to_owned()),
        None => {
            let host = text.trim_start_matches('/');
            let host = host.rsplit('@').next().unwrap_or(host);
            let what = "has no scheme: write https:// (or http://) before it";
            let is_one = !host.is_empty() && address(&format!("https://{host}")).is_ok();
            return Err(match is_one {
                true => format!("{what}, as in https://{host}"),
                false => what.to_owned(),
            });
        }
    }
    let url =
        Url::parse(text).map_err(|error| format!("is not the address of a server ({error})"))?;
    let host = url.host_str().unwrap_or_default();
    let in_host = |c: char| c.is_ascii_alphanumeric() || "._-[]:".contains(c);
    if host.is_empty() || !host.chars().all(in_host) {
        return Err("names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user name or a password in it, which do not belong there".to_owned());
    }
    if url.fragment().is_some() {
        return Err("has # in it".to_owned());
    }
    let in_path = |c: char| c.is_ascii_alphanumeric() || "-._~/%+:@!$&'()*,;=".contains(c);
    if let Some(c) = url.path().chars().find(|c| !in_path(*c)) {
        return Err(format!("has {} in it", shown(c)));
    }
    Ok(url)
}

/// Checks the token in a file that a library reads without a bound, and puts into a header or an
/// address. A token that replaces it later is not checked.
pub(super) fn check_token_file(target: &str, name: &str, file: &str) -> Result<(), OpenError> {
    let wrong = |what: String| OpenError::setting(target, name, format!("names {file}, {what}"));
    let text = read_regular_file(Path::new(file));
    let text = text.map_err(|error| wrong(format!("which cannot be read: {error}")))?;
    check(Takes::Text, &text).map_err(|what| wrong(format!("whose token {what}")))
}

/// Reads a file of credentials that a library opens again, which would wait for the writer of a
/// FIFO.
pub(super) fn read_regular_file(path: &Path) -> io::Result<String> {
    ownership::open_regular(path)?;
    read_file(path)
}

/// Reads a file of credentials, which must be small: a device has no end. A FIFO is not waited for.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    file.take(MOST_FILE_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MOST_FILE_BYTES {
        true => Err(io::Error::other("the file is too large for credentials")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(takes: Takes, value: &str) -> String {
        check(takes, value).unwrap_err()
    }

    #[test]
    fn a_line_break_is_named() {
        for takes in [Takes::Text, Takes::Word, Takes::Label, Takes::Server] {
            assert_eq!(wrong(takes, "x\n"), "ends in a line break");
            assert_eq!(wrong(takes, "x\r\n"), "ends in a line break");
            assert_eq!(wrong(takes, "x\ny"), "has a line break in it");
            assert_eq!(wrong(takes, " x"), "begins or ends with a blank");
            assert_eq!(
                wrong(takes, "x\u{feff}y"),
                "has a character that is not ASCII (U+FEFF) in it"
            );
            assert!(wrong(takes, "x\x07y").contains("U+0007"));
            assert!(wrong(takes, &"x".repeat(20_000)).contains("longer"));
        }
        assert!(check(Takes::Text, "pass phrase ü").is_ok());
        assert!(check(Takes::Word, "AK/+=").is_ok());
        assert!(wrong(Takes::Word, "a b").contains("a blank"));
        assert!(wrong(Takes::Label, "eu/west").contains("the character /"));
    }

    #[test]
    fn only_addresses_that_libraries_take_are_accepted() {
        for (text, is) in [
            ("https://s3.example.org/", "https://s3.example.org"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            (
                "HTTPS://S3.Example.org:443/a%20b/",
                "https://s3.example.org/a%20b",
            ),
            ("http://[::1]:1", "http://[::1]:1"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(server(text).as_deref(), Ok(is));
        }
        for (text, why) in [
            ("s3.example.org", "as in https://s3.example.org"),
            ("127.0.0.1:1", "as in https://127.0.0.1:1"),
            ("//127.0.0.1", "as in https://127.0.0.1"),
            ("me:secret@host", "as in https://host"),
            ("https://", "empty host"),
            ("http://a b", "not the address of a server"),
            ("http://a\"b", "names no host"),
            ("ftp://x", "neither https:// nor http://"),
            ("https://me:secret@x", "user name or a password"),
            ("https://x?y", "has ? in it"),
            ("https://x/a|b", "the character |"),
            ("http://x:99999", "invalid port"),
        ] {
            let wrong = server(text).unwrap_err();
            assert!(
                wrong.contains(why) && !wrong.contains("secret"),
                "{text}: {wrong}"
            );
        }
        assert!(check(Takes::Path, "/v2/x?y=z").is_ok());
        assert!(check(Takes::Host, "169.254.169.254:80").is_ok());
        // What goes to a library as it is must not need to be encoded.
        assert!(wrong(Takes::Address, "http://127.0.0.1:1/xa b?y=z").contains("a blank"));
        assert!(wrong(Takes::Address, "http://127.0.0.1:1/x?y=\"z").contains("not the address"));
        assert!(wrong(Takes::Server, "https://bücher.example").contains("not ASCII"));
        assert!(wrong(Takes::Path, "/ü").contains("not ASCII"));
        assert!(check(Takes::Host, "http://x").is_err());
    }
}
