//! What a target's URL says, and the same URL fit for messages.

use std::path::PathBuf;

use url::Url;

use super::OpenError;
use super::foreign_url;
use super::rsync::Remote;
use super::setting;
use super::sftp::Place;

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Address {
    Folder(PathBuf),
    Memory,
    S3(Bucket),
    Gcs(Bucket),
    Azure(Bucket),
    Rsync(Remote),
    Sftp(Place),
    WebDav {
        /// Scheme, host and port only: the path is the prefix.
        origin: String,
        prefix: String,
        login: Option<(String, String)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    pub name: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
}

const MOST_BYTES: usize = 4 << 10;
const MOST_BUCKET_BYTES: usize = 255;

impl Address {
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let malformed = |reason: &str| OpenError::Malformed {
            url: without_secrets(url),
            reason: reason.to_owned(),
        };
        let lengthy = url.len() > MOST_BYTES;
        if lengthy || url.chars().any(char::is_control) {
            return Err(malformed(match lengthy {
                true => "it is longer than any place's address",
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

/// `host:path` and `user@host:path`, as ssh and rsync write them; `./a:b` is a path.
fn scp(text: &str) -> Option<(&str, &str)> {
    let (login, path) = text.split_once(':')?;
    (!login.is_empty() && !login.contains('/')).then_some((login, path))
}

fn ssh(login: &str, port: Option<u16>, path: &str) -> Result<Address, &'static str> {
    check_login(login)?;
    Ok(Address::Rsync(Remote::Ssh {
        login: login.to_owned(),
        port,
        path: checked_path(path)?,
    }))
}

/// `user@host:port/path` is a path on that machine, over ssh (`/~/path`: below the home directory);
/// `host:port/module/path` is an rsync daemon's.
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
    Ok(Address::Rsync(Remote::Daemon {
        authority: format!("{login}{port}"),
        path,
    }))
}

/// `user@host:port/path` and `host/path`; `/~/path` is below the folder that a login begins in.
fn parse_sftp(rest: &str) -> Result<Address, &'static str> {
    let (login, port, path) = split(rest)?;
    check_login(login)?;
    if login
        .split('@')
        .next()
        .is_some_and(|user| user != login && user.contains(':'))
    {
        return Err("ssh takes no password: make a key for it");
    }
    let path = match path {
        "" => return Err("it names no path (/~/ is where a login begins)"),
        "/~" => "",
        path => path.strip_prefix("/~/").unwrap_or(path),
    };
    Ok(Address::Sftp(Place {
        login: login.to_owned(),
        port,
        path: checked_path(path)?,
    }))
}

/// The login, the port and the path of `user@host:port/path`.
fn split(rest: &str) -> Result<(&str, Option<u16>, &str), &'static str> {
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, port) = match authority.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((login, port)) if !port.contains(']') => (login, port),
        _ => (authority, ""),
    };
    let port = match port {
        "" => None,
        digits => Some(digits.parse().map_err(|_| "its port is no number")?),
    };
    Ok((login, port, path))
}

/// Nothing that ssh or rsync could take for an option or a command.
fn check_login(login: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@[]:%+".contains(c);
    let option = login.starts_with(['-', '@', ':']) || login.contains("@-");
    match login.is_empty() || option || !login.chars().all(allowed) {
        true => Err("its host is not one"),
        false => Ok(()),
    }
}

fn checked_path(path: &str) -> Result<String, &'static str> {
    if path.starts_with(':') {
        return Err("with two colons it is an rsync daemon's: write rsync://HOST/MODULE");
    }
    if path.split('/').any(|part| part == "..") || path.contains(['\0', '\n']) {
        return Err("its path has .. or a line break in it");
    }
    // rsync would take it for an option where it stands alone.
    match path.starts_with('-') {
        true => Ok(format!("./{path}")),
        false => Ok(path.to_owned()),
    }
}

/// Besides letters and digits a bucket's name has only `others`.
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
            first => format!("it names no bucket; with two slashes, {first} is one"),
        });
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    let is_name = name.len() <= MOST_BUCKET_BYTES && name.chars().all(fits);
    if !is_name || name.chars().all(|c| c == '.') {
        return Err(
            "its bucket's name is none: it has letters, digits, dots and dashes".to_owned(),
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

/// `url` without user, password, query and fragment.
pub(super) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return match url.rsplit_once('@') {
            // Before the @ of `user:password@host:path` and the like.
            Some((before, after)) if before.contains(':') && !before.starts_with(['/', '.']) => {
                let first = before.split(':').next().unwrap_or_default();
                format!("{first}:…@{after}")
            }
            _ => url.to_owned(),
        };
    };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    // The last @: a password may hold one that should have been escaped.
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
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
    fn urls_name_what_they_name() {
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
    fn ssh_is_told_from_a_daemon() {
        let parse = |url: &str| Address::parse(url).ok().unwrap();
        let ssh = |login: &str, port, path: &str| {
            Address::Rsync(Remote::Ssh {
                login: login.to_owned(),
                port,
                path: path.to_owned(),
            })
        };
        let daemon = |authority: &str, path: &str| {
            Address::Rsync(Remote::Daemon {
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
    fn sftp_names_a_place() {
        let is = |url: &str, login: &str, port, path: &str| {
            let place = Place {
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
    fn what_is_not_a_target_says_why() {
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

    #[test]
    fn no_secret_reaches_a_message() {
        for url in [
            "https://me:hunter2@dav.example/x",
            "https://me:hunt@hunter2@dav.example/x",
            "https://dav.example/x?sig=hunter2",
            "s3://key:hunter2@bucket/x",
            "az://c/p?sv=1&sig=hunter2",
            "foo://me:hunter2@x",
            "sftp://me:hunter2@nas/b",
            "sftp:me:hunter2@nas:/b",
            "me:hunter2@nas:/b",
        ] {
            assert!(!without_secrets(url).contains("hunter2"), "{url}");
            let error = Address::parse(url).err().map(|e| e.to_string());
            assert!(!error.unwrap_or_default().contains("hunter2"), "{url}");
        }
        assert_eq!(without_secrets("https://a:b@c:1/d"), "https://c:1/d");
    }
}
