//! Parses a target's URL.

use std::path::PathBuf;

use url::Url;

use super::error::OpenError;
use super::foreign_url;
use super::redact::without_secrets;
use super::setting;

/// A parsed target URL.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Address {
    Folder(PathBuf),
    Memory,
    S3(Bucket),
    Gcs(Bucket),
    Azure(Bucket),
    Rsync(RsyncAddress),
    Sftp(SftpAddress),
    WebDav {
        /// Scheme, host and port only: the path is the prefix.
        origin: String,
        /// The decoded path, without slashes at its ends.
        prefix: String,
        /// User and password of the URL. `None`: it has neither.
        login: Option<(String, String)>,
    },
}

/// A place that rsync reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RsyncAddress {
    Ssh {
        /// `host` or `user@host`.
        login: String,
        port: Option<u16>,
        /// Absolute, or relative to the home directory.
        path: String,
    },
    Daemon {
        /// `host`, `host:port` or `user@host:port`.
        authority: String,
        /// The module, and the path below it.
        path: String,
    },
}

/// A place that sftp reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SftpAddress {
    /// `host` or `user@host`.
    pub login: String,
    pub port: Option<u16>,
    /// Absolute, or relative to the folder in which a login begins.
    pub path: String,
}

/// A bucket or container, and the folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    pub name: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
}

const MOST_BYTES: usize = 4 << 10;
const MOST_BUCKET_BYTES: usize = 255;

impl Address {
    /// Parses a URL, a path or `user@host:path`.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let malformed = |reason: &str| OpenError::Malformed {
            url: without_secrets(url),
            reason: reason.to_owned(),
        };
        let lengthy = url.len() > MOST_BYTES;
        if lengthy || url.chars().any(char::is_control) {
            return Err(malformed(match lengthy {
                true => "it is longer than any address",
                false => "it has a control character or a line break in it",
            }));
        }
        if let Some(instead) = foreign_url::instead(url) {
            return Err(malformed(&instead));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            if let Some((login, path)) = scp(url) {
                return ssh(login, None, path).map_err(malformed);
            }
            return match (url, crate::base::fs::unexpanded_home(url)) {
                ("", _) => Err(malformed("it is empty")),
                (_, Some(instead)) => Err(malformed(&instead)),
                (path, None) => Ok(Self::Folder(PathBuf::from(path))),
            };
        };
        let bucket = |others: &str| parse_bucket(rest, others).map_err(|what| malformed(&what));
        match scheme.to_ascii_lowercase().as_str() {
            "file" => Url::parse(url)
                .ok()
                .and_then(|url| url.to_file_path().ok())
                .ok_or_else(|| malformed("a file URL has three slashes and an absolute path"))
                .and_then(|path| {
                    let below = path.to_string_lossy();
                    match crate::base::fs::unexpanded_home(below.trim_start_matches('/')) {
                        Some(instead) => Err(malformed(&instead)),
                        None => Ok(Self::Folder(path)),
                    }
                }),
            "memory" => Ok(Self::Memory),
            "s3" | "s3a" => bucket("._-:").map(Self::S3),
            "gs" => bucket("._-").map(Self::Gcs),
            "az" => bucket("-$").map(Self::Azure),
            "http" | "https" => parse_webdav(url).map_err(malformed),
            "rsync" => parse_rsync(rest).map_err(malformed),
            "sftp" => parse_sftp(rest).map_err(malformed),
            _ => Err(OpenError::Scheme(without_secrets(url))),
        }
    }
}

/// Splits `host:path` and `user@host:path`, as ssh and rsync write them; `./a:b` is a path.
fn scp(text: &str) -> Option<(&str, &str)> {
    let (login, path) = text.split_once(':')?;
    (!login.is_empty() && !login.contains('/')).then_some((login, path))
}

fn ssh(login: &str, port: Option<u16>, path: &str) -> Result<Address, &'static str> {
    check_login(login)?;
    Ok(Address::Rsync(RsyncAddress::Ssh {
        login: login.to_owned(),
        port,
        path: checked_path(path)?,
    }))
}

/// Parses what follows `rsync://`. `user@host:port/path` is a path on that machine over ssh
/// (`/~/path`: below the home directory); `host:port/module/path` belongs to an rsync daemon.
fn parse_rsync(rest: &str) -> Result<Address, &'static str> {
    let (login, number, path) = split(rest)?;
    if login.contains('@') {
        let path = path.strip_prefix("/~/").unwrap_or(path);
        return match path {
            "" => Err("it names no path"),
            path => ssh(login, number, path),
        };
    }
    check_login(login)?;
    let path = checked_path(path.trim_matches('/'))?;
    if path.is_empty() {
        return Err("it names no module of the rsync daemon");
    }
    let port = number.map_or(String::new(), |port: u16| format!(":{port}"));
    Ok(Address::Rsync(RsyncAddress::Daemon {
        authority: format!("{login}{port}"),
        path,
    }))
}

/// Parses what follows `sftp://`: `user@host:port/path` or `host/path`. `/~/path` is relative to
/// the folder in which a login begins.
fn parse_sftp(rest: &str) -> Result<Address, &'static str> {
    let (login, port, path) = split(rest)?;
    check_login(login)?;
    if login
        .split('@')
        .next()
        .is_some_and(|user| user != login && user.contains(':'))
    {
        return Err("ssh takes no password: use a key instead");
    }
    let path = match path {
        "" => return Err("it names no path (/~/ is where a login begins)"),
        "/~" => "",
        path => path.strip_prefix("/~/").unwrap_or(path),
    };
    Ok(Address::Sftp(SftpAddress {
        login: login.to_owned(),
        port,
        path: checked_path(path)?,
    }))
}

/// Splits `user@host:port/path` into login, port and path.
fn split(rest: &str) -> Result<(&str, Option<u16>, &str), &'static str> {
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, port) = match authority.rsplit_once(':') {
        // An IPv6 address in brackets has colons of its own.
        Some((login, port)) if !port.contains(']') => (login, port),
        _ => (authority, ""),
    };
    let port = match port {
        "" => None,
        digits => Some(digits.parse().map_err(|_| "its port is not a number")?),
    };
    Ok((login, port, path))
}

/// Refuses a login that ssh or rsync could take for an option or a command.
fn check_login(login: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@[]:%+".contains(c);
    let option = login.starts_with(['-', '@', ':']) || login.contains("@-");
    match login.is_empty() || option || !login.chars().all(allowed) {
        true => Err("its host is not a host name"),
        false => Ok(()),
    }
}

fn checked_path(path: &str) -> Result<String, &'static str> {
    if path.starts_with(':') {
        return Err("two colons mean an rsync daemon: write rsync://HOST/MODULE");
    }
    if path.split('/').any(|part| part == "..") || path.contains(['\0', '\n']) {
        return Err("its path has .. or a line break in it");
    }
    // rsync would take it for an option if it is an argument of its own.
    match path.starts_with('-') {
        true => Ok(format!("./{path}")),
        false => Ok(path.to_owned()),
    }
}

/// Parses `bucket/prefix`. The bucket's name has letters, digits and `others` only.
fn parse_bucket(rest: &str, others: &str) -> Result<Bucket, String> {
    if rest.contains(['?', '#', '@']) {
        return Err("a bucket URL is scheme://bucket/prefix and nothing else".to_owned());
    }
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    if name.is_empty() {
        let first = prefix.split('/').next().unwrap_or_default();
        return Err(match first {
            "" => "it names no bucket".to_owned(),
            first => format!("it names no bucket; with two slashes, {first} would be the bucket"),
        });
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    let is_name = name.len() <= MOST_BUCKET_BYTES && name.chars().all(fits);
    if !is_name || name.chars().all(|c| c == '.') {
        return Err(
            "its bucket's name is invalid: use letters, digits, dots and dashes".to_owned(),
        );
    }
    let is_odd = object_store::path::Path::parse(prefix).is_err();
    if prefix.split('/').any(|part| part == "." || part == "..") || prefix.contains("//") || is_odd
    {
        return Err("its prefix has empty, . or .. parts".to_owned());
    }
    Ok(Bucket {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
    })
}

fn parse_webdav(url: &str) -> Result<Address, &'static str> {
    let url = Url::parse(url).map_err(|_| "it is not a URL")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a WebDAV URL has neither ? nor #");
    }
    let decode = |text: &str| {
        let pairs = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
        let first = url::form_urlencoded::parse(pairs.as_bytes()).next();
        first
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let origin = url.origin().ascii_serialization();
    setting::server(&origin).map_err(|_| "it names no host")?;
    let prefix = decode(url.path().trim_matches('/'));
    if object_store::path::Path::parse(&prefix).is_err() || prefix.contains('\u{fffd}') {
        return Err("its path has empty, . or .. parts, or is not UTF-8");
    }
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => Some((decode(user), decode(password.unwrap_or("")))),
    };
    Ok(Address::WebDav {
        origin,
        prefix,
        login,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str, prefix: &str) -> Bucket {
        Bucket {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn every_scheme_is_parsed() {
        let parse = |url: &str| Address::parse(url).ok().unwrap();
        assert!(parse("/repo") == Address::Folder("/repo".into()));
        assert!(parse("repo/x") == Address::Folder("repo/x".into()));
        assert!(parse("./a:b") == Address::Folder("./a:b".into()));
        assert!(parse("file:///my%20repo") == Address::Folder("/my repo".into()));
        assert!(parse("s3://b") == Address::S3(bucket("b", "")));
        assert!(parse("s3://b/p/q/") == Address::S3(bucket("b", "p/q")));
        assert!(parse("gs://b/p") == Address::Gcs(bucket("b", "p")));
        assert!(parse("s3://tenant:b/p") == Address::S3(bucket("tenant:b", "p")));
        let dav = |url: &str| match parse(url) {
            Address::WebDav { prefix, .. } => prefix,
            _ => String::new(),
        };
        assert_eq!(dav("https://dav.example/R&D/a+b"), "R&D/a+b");
        assert!(parse("az://c/p") == Address::Azure(bucket("c", "p")));
        assert!(
            parse("https://me:p%40ss@dav.example:8443/remote/dav%20x/")
                == Address::WebDav {
                    origin: "https://dav.example:8443".to_owned(),
                    prefix: "remote/dav x".to_owned(),
                    login: Some(("me".to_owned(), "p@ss".to_owned())),
                }
        );
    }

    #[test]
    fn rsync_over_ssh_is_distinguished_from_a_daemon() {
        let parse = |url: &str| Address::parse(url).ok().unwrap();
        let ssh = |login: &str, port, path: &str| {
            Address::Rsync(RsyncAddress::Ssh {
                login: login.to_owned(),
                port,
                path: path.to_owned(),
            })
        };
        let daemon = |authority: &str, path: &str| {
            Address::Rsync(RsyncAddress::Daemon {
                authority: authority.to_owned(),
                path: path.to_owned(),
            })
        };
        assert!(parse("rsync://me@laptop:/backups") == ssh("me@laptop", None, "/backups"));
        assert!(parse("rsync://me@laptop:2222/b/c") == ssh("me@laptop", Some(2222), "/b/c"));
        assert!(parse("rsync://me@laptop/~/b") == ssh("me@laptop", None, "b"));
        assert!(parse("rsync://me@[::1]:22/b") == ssh("me@[::1]", Some(22), "/b"));
        assert!(parse("me@laptop:/b") == ssh("me@laptop", None, "/b"));
        assert!(parse("laptop:b") == ssh("laptop", None, "b"));
        assert!(parse("laptop:") == ssh("laptop", None, ""));
        assert!(parse("rsync://nas/module/b/") == daemon("nas", "module/b"));
        assert!(parse("rsync://nas:8730/module") == daemon("nas:8730", "module"));
    }

    #[test]
    fn sftp_urls_are_parsed() {
        let is = |url: &str, login: &str, port, path: &str| {
            let place = SftpAddress {
                login: login.to_owned(),
                port,
                path: path.to_owned(),
            };
            Address::parse(url).is_ok_and(|address| address == Address::Sftp(place))
        };
        assert!(is("sftp://me@nas/backups", "me@nas", None, "/backups"));
        assert!(is("sftp://nas:2222/b/c", "nas", Some(2222), "/b/c"));
        assert!(is("sftp://me@nas/~/b", "me@nas", None, "b"));
        assert!(is("sftp://me@nas/~/", "me@nas", None, ""));
        assert!(is("sftp://me@nas/", "me@nas", None, "/"));
        assert!(is("sftp://me@[::1]:22/b", "me@[::1]", Some(22), "/b"));
    }

    #[test]
    fn an_invalid_url_says_why() {
        let error = |url: &str| Address::parse(url).err().unwrap().to_string();
        for url in ["scp://laptop/b", "ssh://laptop/b"] {
            assert!(error(url).contains("sftp://laptop/b"), "{url}");
        }
        assert!(error("gopher://x/y").contains("sealift knows"));
        for url in ["~", "~/backups", "~user/backups", "file:///~/backups"] {
            assert!(error(url).contains("no shell replaced its ~"), "{url}");
        }
        assert!(Address::parse("./~/backups").is_ok());
        for url in [
            "",
            "s3://",
            "s3:///x",
            "s3://b/a/../b",
            "s3://..",
            "s3://a b/x",
            "s3://b\n/x",
            "s3://b/x\x07y",
            "gs://tenant:bucket/x",
            "https://a\"b/x",
            "https://h/a%0Ab",
            "https://h/%FF",
            "file://host/x",
            "rsync://nas",
            "rsync://nas:x/m",
            "rsync://me@nas",
            "rsync://me@nas/a/../b",
            "rsync://-oProxyCommand=x/m",
            "-oProxyCommand=x:/b",
            "me@a b:/c",
            "me@-Ffile:/b",
            "nas::module",
            "sftp://nas",
            "sftp://me@nas:x/b",
            "sftp://me@nas/a/../b",
            "sftp://-oProxyCommand=x/b",
            "sftp://me:hunter2@nas:22/b",
        ] {
            assert!(error(url).contains("is not a target"), "{url}");
        }
    }
}
