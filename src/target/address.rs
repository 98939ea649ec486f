//! What a target's URL says, and the same URL fit for messages.

use std::path::PathBuf;

use url::Url;

use super::OpenError;

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Address {
    Folder(PathBuf),
    Memory,
    S3(Bucket),
    Gcs(Bucket),
    Azure(Bucket),
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

impl Address {
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let malformed = |reason: &str| OpenError::Malformed {
            url: without_secrets(url),
            reason: reason.to_owned(),
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            if looks_like_scp(url) {
                return Err(OpenError::NotYet(without_secrets(url)));
            }
            return match url {
                "" => Err(malformed("it is empty")),
                path => Ok(Self::Folder(PathBuf::from(path))),
            };
        };
        let bucket = || parse_bucket(rest).map_err(malformed);
        match scheme.to_ascii_lowercase().as_str() {
            "file" => Url::parse(url)
                .ok()
                .and_then(|url| url.to_file_path().ok())
                .map(Self::Folder)
                .ok_or_else(|| malformed("a file URL has three slashes and an absolute path")),
            "memory" => Ok(Self::Memory),
            "s3" | "s3a" => bucket().map(Self::S3),
            "gs" => bucket().map(Self::Gcs),
            "az" => bucket().map(Self::Azure),
            "http" | "https" => parse_webdav(url).map_err(malformed),
            "rsync" | "sftp" | "ssh" | "scp" => Err(OpenError::NotYet(without_secrets(url))),
            _ => Err(OpenError::Scheme(without_secrets(url))),
        }
    }
}

/// `host:path` and `user@host:path`, as ssh and rsync write them; `./a:b` is a path.
fn looks_like_scp(text: &str) -> bool {
    match text.split_once(':') {
        Some((host, _)) => !host.is_empty() && !host.contains('/'),
        None => false,
    }
}

fn parse_bucket(rest: &str) -> Result<Bucket, &'static str> {
    if rest.contains(['?', '#', '@']) {
        return Err("a bucket URL is scheme://bucket/prefix and nothing else");
    }
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    if name.is_empty() {
        return Err("it names no bucket");
    }
    if prefix.split('/').any(|part| part == "." || part == "..") || prefix.contains("//") {
        return Err("its prefix has empty, . or .. parts");
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
        let pairs = format!("x={}", text.replace('+', "%2B"));
        let first = url::form_urlencoded::parse(pairs.as_bytes()).next();
        first
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => Some((decode(user), decode(password.unwrap_or("")))),
    };
    Ok(Address::WebDav {
        origin: url.origin().ascii_serialization(),
        prefix: decode(url.path().trim_matches('/')),
        login,
    })
}

/// `url` without user, password, query and fragment.
pub(super) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
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
    fn what_is_not_a_target_says_why() {
        let error = |url: &str| Address::parse(url).err().unwrap().to_string();
        for url in ["rsync://me@laptop:/b", "sftp://laptop/b", "me@laptop:/b"] {
            assert!(error(url).contains("over ssh"), "{url}");
        }
        assert!(error("ftp://x/y").contains("sealift knows"));
        for url in ["", "s3://", "s3:///x", "s3://b/a/../b", "file://host/x"] {
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
        ] {
            assert!(!without_secrets(url).contains("hunter2"), "{url}");
            let error = Address::parse(url).err().map(|e| e.to_string());
            assert!(!error.unwrap_or_default().contains("hunter2"), "{url}");
        }
        assert_eq!(without_secrets("https://a:b@c:1/d"), "https://c:1/d");
    }
}
