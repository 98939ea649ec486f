//! Names the place to which a target's URL leads, so that two ways to write it are one place.
//!
//! Only what the operator typed, this machine's environment and its file system decide the name,
//! never an answer of a server. It contains no secret.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::OpenError;
use super::s3::credentials::ENDPOINT_VARIABLES;
use super::spec::TargetSpec;
use super::url::{Address, Bucket, RsyncAddress};

/// Returns the name of the target's place: a path, or an address such as `ssh://me@nas/backups`.
/// rsync and sftp to one folder of one machine are one place.
pub fn place(spec: &TargetSpec) -> Result<String, OpenError> {
    Ok(place_with(
        spec,
        &Environment::of_process(),
        &Address::parse(&spec.url)?,
    ))
}

fn place_with(spec: &TargetSpec, environment: &Environment, address: &Address) -> String {
    let set = |names: &[&str]| {
        let values = names.iter().filter_map(|name| environment.get(name));
        values.map(str::to_owned).find(|value| !value.is_empty())
    };
    let server = |names: &[&str]| spec.endpoint.clone().or_else(|| set(names));
    match address {
        Address::Folder(path) => of_folder(path),
        Address::Memory => "memory://".to_owned(),
        Address::S3(bucket) => of_bucket("s3", server(ENDPOINT_VARIABLES), bucket),
        Address::Gcs(bucket) => of_bucket("gs", server(&["GOOGLE_BASE_URL"]), bucket),
        Address::Azure(bucket) => {
            let account = [
                "AZURE_STORAGE_ENDPOINT",
                "AZURE_ENDPOINT",
                "AZURE_STORAGE_ACCOUNT_NAME",
            ];
            of_bucket("az", server(&account), bucket)
        }
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
    }
}

/// A link and what it leads to are one place.
fn of_folder(path: &Path) -> String {
    let absolute = || std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let path = path.canonicalize().unwrap_or_else(|_| absolute());
    path.to_string_lossy().into_owned()
}

/// One bucket's name may belong to several servers.
fn of_bucket(scheme: &str, server: Option<String>, bucket: &Bucket) -> String {
    let name = match bucket.prefix.as_str() {
        "" => bucket.name.clone(),
        prefix => format!("{}/{prefix}", bucket.name),
    };
    match server {
        None => format!("{scheme}://{name}"),
        Some(server) => {
            let server = super::redact::without_secrets(&server);
            format!("{scheme}+{}/{name}", server.trim_end_matches('/'))
        }
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
        place_with(&spec, &environment, &address.unwrap())
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
