//! The AWS files: `~/.aws/credentials` and `~/.aws/config`.
//!
//! `object_store` reads the environment only; whoever has run `aws configure` expects more. This
//! reads the static keys, region and endpoint of one profile. What needs a program or a login
//! (`sso_…`, `role_arn`, `credential_process`) is named instead of being taken for no credentials.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Environment, OpenError};

const DEFAULT_PROFILE: &str = "default";

/// What one profile says, both files taken together.
#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    pub keys: Option<Keys>,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    /// The setting by which the profile gets its credentials in a way that we do not speak.
    pub unsupported: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

type Section = BTreeMap<String, String>;

impl Profile {
    /// The profile that the environment chooses. A profile asked for by name must be there.
    pub fn load(target: &str, environment: &Environment) -> Result<Self, OpenError> {
        let credentials = environment.path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        let config = environment.path("AWS_CONFIG_FILE", ".aws/config");
        let read = |path: Option<&Path>| path.map_or(Ok(String::new()), read_if_there);
        let credentials = read(credentials.as_deref())?;
        let config = read(config.as_deref())?;
        let wanted = environment
            .get("AWS_PROFILE")
            .or_else(|| environment.get("AWS_DEFAULT_PROFILE"));
        let name = wanted.unwrap_or(DEFAULT_PROFILE);
        match (Self::find(name, &credentials, &config), wanted) {
            (Some(profile), _) => Ok(profile),
            (None, None) => Ok(Self::default()),
            (None, Some(name)) => Err(OpenError::Credentials {
                target: target.to_owned(),
                reason: format!("AWS_PROFILE says {name:?}, which neither AWS file has"),
            }),
        }
    }

    fn find(name: &str, credentials: &str, config: &str) -> Option<Self> {
        let in_config = match name {
            DEFAULT_PROFILE => DEFAULT_PROFILE.to_owned(),
            name => format!("profile {name}"),
        };
        let from_config = section(config, &in_config);
        let from_credentials = section(credentials, name);
        if from_config.is_none() && from_credentials.is_none() {
            return None;
        }
        let from_config = from_config.unwrap_or_default();
        let from_credentials = from_credentials.unwrap_or_default();
        let either = |key: &str| from_credentials.get(key).or_else(|| from_config.get(key));
        // Keys and token go together: never the id of one file with the token of the other.
        let keys = keys_of(&from_credentials).or_else(|| keys_of(&from_config));
        let unsupported = [
            "sso_session",
            "sso_start_url",
            "role_arn",
            "credential_process",
            "web_identity_token_file",
        ];
        Some(Self {
            keys,
            region: either("region").cloned(),
            endpoint: either("endpoint_url").cloned(),
            unsupported: unsupported.into_iter().find(|key| either(key).is_some()),
        })
    }
}

fn keys_of(section: &Section) -> Option<Keys> {
    Some(Keys {
        id: section.get("aws_access_key_id")?.clone(),
        secret: section.get("aws_secret_access_key")?.clone(),
        token: section.get("aws_session_token").cloned(),
    })
}

fn read_if_there(path: &Path) -> Result<String, OpenError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|source| OpenError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The settings of `[name]`; a later section of the same name adds to it. Indented lines belong to
/// a nested setting (`s3 =`), of which we need none.
fn section(text: &str, name: &str) -> Option<Section> {
    let mut found: Option<Section> = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or(header);
            let words: Vec<&str> = header.split_whitespace().collect();
            inside = words.join(" ").replace('"', "") == name;
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && !line.starts_with([' ', '\t'])
            && let Some((key, value)) = trimmed.split_once('=')
            && let Some(section) = &mut found
        {
            let value = match value.find(" #").or_else(|| value.find(" ;")) {
                Some(comment) => &value[..comment],
                None => value,
            };
            let value = value.trim();
            if !value.is_empty() {
                section.insert(key.trim().to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# mine
[default]
aws_access_key_id = AKIDEFAULT
aws_secret_access_key=abc/def+ghi=

[backup]
AWS_ACCESS_KEY_ID = AKBACKUP   # the one for backups
aws_secret_access_key = s3cr=t
aws_session_token = tok==
";
    const CONFIG: &str = "\
[default]
region = eu-central-1
s3 =
    endpoint_url = https://nested.example
[profile  backup]
region = eu-west-3
endpoint_url = https://s3.example.org
[profile \"sso\"]
sso_session = corp
[profile keys]
aws_access_key_id = AKCONFIG
aws_secret_access_key = x
";

    #[test]
    fn profiles_come_from_both_files() {
        let find = |name| Profile::find(name, CREDENTIALS, CONFIG);
        let default = find("default").unwrap();
        let keys = default.keys.unwrap();
        assert_eq!(keys.id, "AKIDEFAULT");
        assert_eq!(keys.secret, "abc/def+ghi=");
        assert_eq!(keys.token, None);
        assert_eq!(default.region.as_deref(), Some("eu-central-1"));
        assert_eq!(default.endpoint, None);

        let backup = find("backup").unwrap();
        let keys = backup.keys.unwrap();
        assert_eq!(keys.id, "AKBACKUP");
        assert_eq!(keys.secret, "s3cr=t");
        assert_eq!(keys.token.as_deref(), Some("tok=="));
        assert_eq!(backup.endpoint.as_deref(), Some("https://s3.example.org"));

        assert_eq!(find("keys").unwrap().keys.unwrap().id, "AKCONFIG");
        assert_eq!(find("sso").unwrap().unsupported, Some("sso_session"));
        assert!(find("nobody").is_none());
        assert!(Profile::find("default", "", "").is_none());
    }

    #[test]
    fn the_environment_chooses_files_and_profile() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        std::fs::write(dir.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(
            &elsewhere,
            "[default]\naws_access_key_id=E\naws_secret_access_key=e\n",
        )
        .unwrap();
        let home = ("HOME", dir.path().to_str().unwrap());
        let load = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().copied().chain([home]);
            Profile::load("s3://b", &Environment::from_pairs(pairs))
        };
        let id = |profile: Profile| profile.keys.unwrap().id;
        assert_eq!(id(load(&[]).ok().unwrap()), "AKIDEFAULT");
        assert_eq!(
            id(load(&[("AWS_PROFILE", "backup")]).ok().unwrap()),
            "AKBACKUP"
        );
        let file = ("AWS_SHARED_CREDENTIALS_FILE", elsewhere.to_str().unwrap());
        assert_eq!(id(load(&[file]).ok().unwrap()), "E");
        let missing = load(&[("AWS_PROFILE", "nobody")]).err().unwrap();
        assert!(missing.to_string().contains("nobody"));
    }
}
