//! Names the place to which a target's URL leads, so that two ways to write it are one place.
//!
//! Only what the operator typed, this machine's environment and its file system decide the name,
//! never an answer of a server. It contains no secret.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::OpenError;
use super::object_store::server::{self, ChosenServer};
use super::spec::TargetSpec;
use super::url::{Address, Bucket, RsyncAddress};

/// Returns the name of the target's place: a path, or an address such as `ssh://me@nas/backups`.
/// rsync and sftp to one folder of one machine are one place.
pub fn place(spec: &TargetSpec) -> Result<String, OpenError> {
    place_with(
        spec,
        &Environment::of_process(),
        &Address::parse(&spec.url)?,
    )
}

/// Returns the name of the target's place without the user who reaches it: two machines that use
/// accounts of their own name it alike. Receipts name a target by its hash.
pub fn place_without_user(spec: &TargetSpec) -> Result<String, OpenError> {
    let place = place(spec)?;
    let Some((scheme, rest)) = place.split_once("://") else {
        return Ok(place);
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let server = authority
        .rsplit_once('@')
        .map_or(authority, |(_, server)| server);
    Ok(format!("{scheme}://{server}/{path}"))
}

fn place_with(
    spec: &TargetSpec,
    environment: &Environment,
    address: &Address,
) -> Result<String, OpenError> {
    // The same server to which the target's requests go.
    let chosen = server::chosen(address, spec, environment)?;
    Ok(match address {
        Address::Folder(path) => of_folder(path),
        Address::Memory => "memory://".to_owned(),
        Address::S3(bucket) => of_bucket("s3", chosen, bucket),
        Address::Gcs(bucket) => of_bucket("gs", chosen, bucket),
        Address::Azure(bucket) => of_bucket("az", chosen, bucket),
        Address::Rsync(RsyncAddress::Ssh { login, port, path }) => over_ssh(login, *port, path),
        Address::Rsync(RsyncAddress::Daemon { authority, path }) => {
            format!(
                "rsync://{}/{}",
                without_password(authority),
                path.trim_matches('/')
            )
        }
        Address::Sftp(address) => over_ssh(&address.login, address.port, &address.path),
        Address::WebDav { origin, prefix, .. } => format!("{origin}/{prefix}"),
    })
}

/// A link and what it leads to are one place.
fn of_folder(path: &Path) -> String {
    let absolute = || std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let path = path.canonicalize().unwrap_or_else(|_| absolute());
    path.to_string_lossy().into_owned()
}

/// One bucket's name may belong to several servers, and to several accounts of a server.
fn of_bucket(scheme: &str, chosen: ChosenServer, bucket: &Bucket) -> String {
    let name = match bucket.prefix.as_str() {
        "" => bucket.name.clone(),
        prefix => format!("{}/{prefix}", bucket.name),
    };
    let server = chosen.endpoint.map(|server| {
        let server = super::redact::without_secrets(&server);
        server.trim_end_matches('/').to_owned()
    });
    // A server of one account has its name.
    let is_of_one = |account: &String| {
        let host = server.as_ref().and_then(|server| server.split_once("://"));
        host.is_some_and(|(_, host)| host.starts_with(&format!("{account}.")))
    };
    let account = chosen.account.filter(|account| !is_of_one(account));
    match (&server, account) {
        (None, None) => format!("{scheme}://{name}"),
        (Some(server), None) => format!("{scheme}+{server}/{name}"),
        (None, Some(account)) => format!("{scheme}+{account}/{name}"),
        (Some(server), Some(account)) => format!("{scheme}+{server}/{account}/{name}"),
    }
}

fn over_ssh(login: &str, port: Option<u16>, path: &str) -> String {
    let port = port.filter(|port| *port != 22);
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    let path = path.trim_end_matches('/');
    let path = path.strip_prefix("./").unwrap_or(path);
    let below = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/~/{path}"),
    };
    format!(
        "ssh://{}{port}{}",
        without_password(login),
        below.trim_end_matches('/')
    )
}

/// Returns `user@host` in lower case where case does not matter, without a password.
fn without_password(login: &str) -> String {
    match login.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{user}@{}", host.to_ascii_lowercase())
        }
        None => login.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, endpoint: Option<&str>, environment: &[(&str, &str)]) -> String {
        let spec = TargetSpec {
            endpoint: endpoint.map(str::to_owned),
            ..TargetSpec::from_url(url)
        };
        let environment = Environment::from_pairs(environment.iter().copied());
        let address = Address::parse(url).map_err(|error| error.to_string());
        place_with(&spec, &environment, &address.unwrap()).unwrap()
    }

    #[test]
    fn two_ways_to_write_one_place_are_one() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        std::fs::create_dir(dir.join("repo")).unwrap();
        std::os::unix::fs::symlink("repo", dir.join("link")).unwrap();
        let below = |rest: &str| format!("{}{rest}", dir.display());
        let ways: [&[&str]; 6] = [
            &[
                &below("/repo"),
                &below("/repo/"),
                &below("/link"),
                &format!("file://{}", below("/repo")),
            ],
            &["s3://bucket/a", "s3://bucket/a/", "s3a://bucket/a"],
            &[
                "me@nas:/b",
                "rsync://me@nas/b/",
                "sftp://me@NAS/b",
                "rsync://me@nas:22/b",
            ],
            &["me@nas:b", "rsync://me@nas/~/b", "sftp://me@nas/~/b"],
            &["rsync://nas/module/b", "rsync://NAS/module/b/"],
            &[
                "https://me:secret@dav.example.org/x/",
                "https://dav.example.org/x",
            ],
        ];
        for ways in ways {
            for way in ways {
                assert_eq!(of(way, None, &[]), of(ways[0], None, &[]), "{way}");
                assert!(!of(way, None, &[]).contains("secret"), "{way}");
            }
        }
    }

    #[test]
    fn other_places_are_not_one() {
        let variable = [("AWS_ENDPOINT_URL_S3", "https://other.example.org")];
        let temp = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = temp.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let profiles = file(
            "config",
            "[default]\nendpoint_url = https://default.example.org\n\
             [profile nas]\nendpoint_url = https://nas.example.org\n",
        );
        let profile = |name| {
            [
                ("AWS_CONFIG_FILE", profiles.as_str()),
                ("AWS_PROFILE", name),
            ]
        };
        let google = |name: &str| {
            let text = format!(r#"{{"gcs_base_url": "https://{name}.example.org"}}"#);
            file(name, &text)
        };
        let (one, two) = (google("one"), google("two"));
        let azure = |account, endpoint| {
            let endpoint = ("AZURE_STORAGE_ENDPOINT", endpoint);
            let account = ("AZURE_STORAGE_ACCOUNT_NAME", account);
            of("az://bucket/a", None, &[account, endpoint])
        };
        let all = [
            of("s3://bucket/a", None, &[]),
            of("s3://bucket/b", None, &[]),
            of("s3://bucket/a", Some("https://s3.example.org"), &[]),
            of("s3://bucket/a", None, &variable),
            of("gs://bucket/a", None, &[]),
            of(
                "az://bucket/a",
                None,
                &[("AZURE_STORAGE_ACCOUNT_NAME", "one")],
            ),
            of(
                "az://bucket/a",
                None,
                &[("AZURE_STORAGE_ACCOUNT_NAME", "two")],
            ),
            azure("one", "https://blob.example.org"),
            azure("two", "https://blob.example.org"),
            azure("one", "https://other.example.org"),
            of(
                "az://bucket/a",
                None,
                &[("AZURE_STORAGE_USE_EMULATOR", "true")],
            ),
            of("s3://bucket/a", None, &profile("default")),
            of("s3://bucket/a", None, &profile("nas")),
            of("gs://bucket/a", None, &[("GOOGLE_SERVICE_ACCOUNT", &one)]),
            of(
                "gs://bucket/a",
                None,
                &[("GOOGLE_SERVICE_ACCOUNT_PATH", &two)],
            ),
            of("me@nas:/b", None, &[]),
            of("you@nas:/b", None, &[]),
            of("me@nas:b", None, &[]),
            of("sftp://me@nas:2222/b", None, &[]),
            of("rsync://nas/b", None, &[]),
            of("/nas/b", None, &[]),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
        // The option wins, as it does for the requests.
        let given = Some("https://s3.example.org/");
        assert_eq!(of("s3://bucket/a", given, &variable), all[2]);
    }
}
