//! Recognises the URLs of other tools and says how to write them here.
//!
//! Operators bring the URLs of their previous tool: restic's `s3:https://host/bucket`, rclone's
//! `remote:path`, borg's `ssh://`, `file:/path`. With a colon and no `//`, most of them look like
//! ssh's `host:path`, and would fail after minutes with a message about a host that does not exist.
//! So they are recognised by their first word.

/// Words before a colon that are another tool's spelling even though a machine could have that
/// name: `s3:bucket`.
const SURE: [&str; 13] = [
    "file", "s3", "s3a", "b2", "gs", "gcs", "azure", "sftp", "ssh", "scp", "rsync", "http", "https",
];

/// Returns how to write `url` here, if it is certainly another tool's spelling. The answer never
/// contains a password.
///
/// `box:/backups` is not certain, because a machine may have that name: see [`perhaps`].
pub(super) fn instead(url: &str) -> Option<String> {
    let (word, rest) = url.split_once(':')?;
    let is_url = rest.starts_with("//") || rest.contains([':', '@']);
    let is_sure = is_url || SURE.contains(&word.to_ascii_lowercase().as_str());
    perhaps(url).filter(|_| is_sure)
}

/// Returns the same as [`instead`], also for words that may be the name of a machine.
pub(super) fn perhaps(url: &str) -> Option<String> {
    let (word, rest) = url.split_once(':')?;
    let word = word.to_ascii_lowercase();
    let is_own = rest.starts_with("//") && OWN.contains(&word.as_str());
    if is_own {
        return None;
    }
    spelling(&word, rest).or_else(|| unsupported(&word, rest))
}

/// Returns how to write a place that is supported here.
fn spelling(word: &str, rest: &str) -> Option<String> {
    let place = rest.trim_start_matches('/');
    let write = |instead: String| Some(format!("that is another tool's spelling; write {instead}"));
    match word {
        "file" | "local" | "filesystem" | "folder" | "dir" => write(match rest.starts_with('/') {
            true => format!("file:///{place}, or /{place}"),
            false => format!("./{place} for a folder in the current one, or file:///PATH"),
        }),
        "s3" | "s3a" | "s3n" | "s3c" | "s3http" | "s3https" | "minio" | "minios" | "boto3+s3" => {
            write(s3(rest))
        }
        "b2" | "backblaze" => write(format!(
            "url = \"s3://{}\" with endpoint = \"https://s3.REGION.backblazeb2.com\", as the bucket's page shows it",
            bucket(place)
        )),
        "gs" | "gcs" | "google" | "googlecloudstorage" => write(format!("gs://{}", bucket(place))),
        "az" | "azure" | "azblob" | "azureblob" | "abs" | "wasb" | "wasbs" | "abfs" | "abfss" => {
            write(format!("az://{}", bucket(place)))
        }
        "sftp" | "pexpect+sftp" | "paramiko+sftp" => write(remote("sftp", rest)),
        "ssh" | "scp" | "borg" | "ssh+rsync" | "rsync+ssh" => {
            let over_rsync = remote("rsync", rest);
            let over_sftp = remote("sftp", rest);
            write(format!("{over_rsync}, or {over_sftp} if it has no rsync"))
        }
        "rsync" if !rest.starts_with("//") => write(remote("rsync", rest)),
        "http" | "https" if !rest.starts_with("//") => {
            write(format!("{word}://HOST/PATH (WebDAV)"))
        }
        "webdav" | "dav" | "webdavs" | "davs" => write("https://HOST/PATH".to_owned()),
        _ => None,
    }
}

/// Returns what to use instead of a place that is not supported here.
fn unsupported(word: &str, rest: &str) -> Option<String> {
    match word {
        "rest" => elsewhere(
            "restic's REST server",
            "use its folder as sftp://USER@HOST/PATH, or an S3 or WebDAV server",
        ),
        "rclone" => elsewhere(
            "rclone's remotes",
            "use the storage itself, or run `rclone serve s3` or `rclone serve webdav` and use its address",
        ),
        "swift" => elsewhere(
            "Swift",
            "most of its providers also offer S3: s3://BUCKET/PREFIX with their endpoint",
        ),
        "opendal" => elsewhere("OpenDAL's services", "use the storage itself"),
        "ftp" | "ftps" => elsewhere(
            "FTP",
            "many of its servers also offer sftp: sftp://USER@HOST/PATH",
        ),
        "smb" | "cifs" | "nfs" | "afp" => elsewhere(
            "network shares",
            "mount it and use the folder: file:///PATH",
        ),
        "gdrive" | "drive" | "dropbox" | "onedrive" | "mega" | "box" | "pcloud" => elsewhere(
            "that service",
            "run `rclone serve webdav` or `rclone mount` and use its address or folder",
        ),
        "tape" | "usb" | "disk" | "hdd" | "mnt" | "volume" if rest.starts_with("//") => {
            elsewhere("devices", "mount it and use the folder: file:///PATH")
        }
        _ => None,
    }
}

/// Schemes of our own, which are spelled with `//`.
const OWN: [&str; 10] = [
    "file", "memory", "s3", "s3a", "gs", "az", "http", "https", "rsync", "sftp",
];

fn elsewhere(what: &str, how: &str) -> Option<String> {
    Some(format!("sealift does not support {what}; {how}"))
}

/// Returns `bucket/prefix` for `bucket:/prefix`, `bucket:prefix`, `key@bucket/prefix` and
/// `container@account.host/prefix`.
fn bucket(place: &str) -> String {
    let (first, path) = match place.find([':', '/']) {
        Some(at) => (&place[..at], place[at..].trim_start_matches([':', '/'])),
        None => (place, ""),
    };
    // The part before an @ is Azure's container, or another tool's access key.
    let name = match first.split_once('@') {
        Some((before, host)) if host.contains('.') => before,
        Some((_, bucket)) => bucket,
        None => first,
    };
    let name = if name.is_empty() { "BUCKET" } else { name };
    match path {
        "" => name.to_owned(),
        path => format!("{name}/{path}"),
    }
}

/// Rewrites restic's `s3:https://host:port/bucket/prefix` and `s3:host/bucket`, minio's
/// `//region@host:port/bucket`, and misspellings of `s3://bucket`.
fn s3(rest: &str) -> String {
    let (scheme, place) = match rest.split_once("://") {
        Some((scheme, place)) if !scheme.contains('/') => (scheme, place),
        _ => ("https", rest),
    };
    let place = place.trim_start_matches('/');
    let (first, below) = place.split_once('/').unwrap_or((place, ""));
    let host = first.rsplit('@').next().unwrap_or(first);
    let is_host = rest.contains("://") || host.contains(['.', ':']) || host == "localhost";
    if !is_host || below.is_empty() {
        return format!("s3://{}", bucket(&format!("{host}/{below}")));
    }
    let url = format!("url = \"s3://{}\"", bucket(below));
    match host.ends_with(".amazonaws.com") {
        true => url,
        false => {
            format!("{url} with endpoint = \"{scheme}://{host}\" (or --endpoint {scheme}://{host})")
        }
    }
}

/// Rewrites `user@host:/path`, `user@host:path` and `//user@host:port/path` as a URL.
fn remote(scheme: &str, rest: &str) -> String {
    if let Some(place) = rest.strip_prefix("//") {
        let (login, path) = place.split_once('/').unwrap_or((place, ""));
        let user = login.split_once('@').map(|(user, host)| {
            let user = user.split(':').next().unwrap_or_default();
            format!("{user}@{host}")
        });
        let login = user.unwrap_or_else(|| with_user(scheme, login));
        // borg's `/./` means the home directory.
        let path = path
            .strip_prefix("./")
            .map_or(path.to_owned(), |path| format!("~/{path}"));
        return format!("{scheme}://{login}/{path}");
    }
    let at = rest.find('@').unwrap_or(0);
    let colon = rest[at..].find(':').map(|colon| at + colon);
    let (login, path) = match colon {
        Some(colon) => (&rest[..colon], &rest[colon + 1..]),
        None => (rest, "/PATH"),
    };
    let plain = login.split_once('@').map(|(user, host)| {
        let user = user.split(':').next().unwrap_or_default();
        format!("{user}@{host}")
    });
    let login = plain.as_deref().unwrap_or(login);
    let login = match login.split_once('/') {
        Some(_) => return format!("{scheme}://USER@HOST/PATH"),
        None => with_user(scheme, login),
    };
    match path.starts_with('/') {
        true => format!("{scheme}://{login}{path}"),
        false => format!("{scheme}://{login}/~/{path}"),
    }
}

/// Adds a user to an rsync URL without one, which would mean an rsync daemon.
fn with_user(scheme: &str, login: &str) -> String {
    match scheme == "rsync" && !login.contains('@') {
        true => format!("USER@{login}"),
        false => login.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_here_is_named() {
        for (url, right) in [
            ("file:/srv/repo", "write file:///srv/repo, or /srv/repo"),
            ("file:repo", "write ./repo"),
            ("sftp:me@nas:/backups", "write sftp://me@nas/backups"),
            ("sftp:me@nas:backups", "write sftp://me@nas/~/backups"),
            (
                "sftp:me:hunter2@nas:/backups",
                "write sftp://me@nas/backups",
            ),
            ("sftp:nas:/backups", "write sftp://nas/backups"),
            (
                "s3:s3.amazonaws.com/bucket/x",
                "write url = \"s3://bucket/x\"",
            ),
            (
                "s3:https://store.example:9000/bucket/x",
                "write url = \"s3://bucket/x\" with endpoint = \"https://store.example:9000\"",
            ),
            (
                "s3:http://localhost:9000/b",
                "endpoint = \"http://localhost:9000\"",
            ),
            ("s3:/bucket/x", "write s3://bucket/x"),
            ("s3:bucket/x", "write s3://bucket/x"),
            ("s3:bucket", "write s3://bucket"),
            (
                "minio://us-east-1@host:9000/bucket/x",
                "s3://bucket/x\" with endpoint = \"https://host:9000\"",
            ),
            ("b2:bucket:x/y", "url = \"s3://bucket/x/y\" with endpoint"),
            ("b2://key@bucket/x", "url = \"s3://bucket/x\""),
            ("gs:bucket:/x", "write gs://bucket/x"),
            ("gcs://bucket/x", "write gs://bucket/x"),
            ("azure:container:/x", "write az://container/x"),
            (
                "wasbs://container@account.blob.core.windows.net/x",
                "write az://container/x",
            ),
            ("swift:container:/x", "also offer S3"),
            ("rest:https://me:hunter2@host:8000/x", "REST server"),
            ("rclone:remote:x", "rclone serve"),
            (
                "ssh://me@host:2222/./repo",
                "write rsync://me@host:2222/~/repo, or sftp://",
            ),
            ("ssh://me@host/srv/repo", "write rsync://me@host/srv/repo"),
            (
                "ssh://me:hunter2@host/srv/repo",
                "write rsync://me@host/srv/repo",
            ),
            (
                "ssh://host/srv",
                "write rsync://USER@host/srv, or sftp://host/srv",
            ),
            ("scp:me@host:/srv", "write rsync://me@host/srv"),
            ("webdav://host/x", "write https://HOST/PATH"),
            ("https:/host/x", "write https://HOST/PATH"),
            ("rsync:me@host:/x", "write rsync://me@host/x"),
            ("smb://nas/share", "mount it"),
            ("ftp://host/x", "also offer sftp"),
        ] {
            let text = instead(url).unwrap_or_default();
            assert_eq!(perhaps(url).unwrap_or_default(), text);
            assert!(
                text.contains(right) && !text.contains("hunter2"),
                "{url}: {text}"
            );
        }
    }

    #[test]
    fn own_urls_are_left_alone() {
        for url in [
            "s3://bucket/x",
            "gs://b",
            "az://c/p",
            "file:///x",
            "/backups",
            "./s3:x",
            "nas:/backups",
            "box:/backups",
            "borg:backups",
            "drive:/b",
            "minio:/data",
            "me@nas:b",
            "me@s3:/x",
            "rsync://me@nas/b",
            "sftp://nas/b",
            "https://nas/dav",
            "memory://",
        ] {
            assert_eq!(instead(url), None, "{url}");
        }
    }
}
