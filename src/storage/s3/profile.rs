//! Reads the AWS files: `~/.aws/credentials` and `~/.aws/config`.
//!
//! `object_store` reads the environment only; an operator who has run `aws configure` expects more.
//! This reads the static keys, the region and the endpoint of one profile. Settings that need a
//! program or a login (`sso_…`, `role_arn`, `credential_process`) are named in an error instead of
//! passing for missing credentials.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::setting::{self, Takes};

const DEFAULT_PROFILE: &str = "default";

/// The settings of one profile, from both files.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Id, secret and token, all from the same file.
    keys: [Option<ProfileValue>; 3],
    pub region: Option<ProfileValue>,
    pub endpoint: Option<ProfileValue>,
    /// Path of a file with certificates of authorities.
    pub ca_bundle: Option<ProfileValue>,
    /// The setting that obtains credentials in a way that is not supported here.
    pub unsupported: Option<&'static str>,
}

/// A setting's value and its place.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ProfileValue {
    pub value: String,
    /// `key (file:line)`, for messages.
    pub place: String,
}

/// Static keys of a profile.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

const KEYS: [(&str, Takes); 3] = [
    ("aws_access_key_id", Takes::Word),
    ("aws_secret_access_key", Takes::Text),
    ("aws_session_token", Takes::Word),
];

type ProfileSection = BTreeMap<String, ProfileValue>;

/// One of the two files.
#[derive(Default)]
struct AwsFile {
    name: String,
    text: String,
}

impl Profile {
    /// Reads the profile that the environment chooses. A profile that it names must exist.
    pub(crate) fn load(target: &str, environment: &Environment) -> Result<Self, OpenError> {
        let credentials = environment.path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        let config = environment.path("AWS_CONFIG_FILE", ".aws/config");
        let read = |path: Option<&Path>| path.map_or(Ok(AwsFile::default()), AwsFile::read);
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

    fn find(name: &str, credentials: &AwsFile, config: &AwsFile) -> Option<Self> {
        let in_config = match name {
            DEFAULT_PROFILE => DEFAULT_PROFILE.to_owned(),
            name => format!("profile {name}"),
        };
        let from_config = config.section(&in_config);
        let from_credentials = credentials.section(name);
        if from_config.is_none() && from_credentials.is_none() {
            return None;
        }
        let from_config = from_config.unwrap_or_default();
        let from_credentials = from_credentials.unwrap_or_default();
        let either = |key: &str| from_credentials.get(key).or_else(|| from_config.get(key));
        // Keys and token go together: never the id of one file with the token of the other.
        let has_keys =
            |section: &ProfileSection| KEYS[..2].iter().any(|(k, _)| section.contains_key(*k));
        let with_keys = match has_keys(&from_credentials) {
            true => &from_credentials,
            false => &from_config,
        };
        let unsupported = [
            "sso_session",
            "sso_start_url",
            "role_arn",
            "credential_process",
            "web_identity_token_file",
        ];
        Some(Self {
            keys: KEYS.map(|(key, _)| with_keys.get(key).cloned()),
            region: either("region").cloned(),
            endpoint: either("endpoint_url").cloned(),
            ca_bundle: either("ca_bundle").cloned(),
            unsupported: unsupported.into_iter().find(|key| either(key).is_some()),
        })
    }

    /// Returns the keys, checked. `None`: the profile has none.
    pub(crate) fn keys(&self, target: &str) -> Result<Option<Keys>, OpenError> {
        for (set, (_, takes)) in self.keys.iter().zip(KEYS) {
            if let Some(set) = set {
                let checked = setting::check(takes, &set.value);
                checked.map_err(|what| OpenError::setting(target, &set.place, what))?;
            }
        }
        match &self.keys {
            [Some(id), Some(secret), token] => Ok(Some(Keys {
                id: id.value.clone(),
                secret: secret.value.clone(),
                token: token.as_ref().map(|token| token.value.clone()),
            })),
            [Some(one), None, _] => {
                let what = "has no aws_secret_access_key beside it";
                Err(OpenError::setting(target, &one.place, what))
            }
            [None, Some(one), _] => {
                let what = "has no aws_access_key_id beside it";
                Err(OpenError::setting(target, &one.place, what))
            }
            [None, None, _] => Ok(None),
        }
    }
}

impl AwsFile {
    fn read(path: &Path) -> Result<Self, OpenError> {
        let text = match setting::read_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|source| OpenError::Read {
                path: path.to_owned(),
                source,
            })?,
        };
        Ok(Self {
            name: path.display().to_string(),
            text,
        })
    }

    /// Returns the settings of `[name]`; a later section of the same name adds to them. As Amazon's
    /// tools read it, a line that is indented deeper than the setting before it belongs to that
    /// setting (`s3 =`); these are not needed.
    fn section(&self, name: &str) -> Option<ProfileSection> {
        let mut found: Option<ProfileSection> = None;
        let mut inside = false;
        // Indentation of the previous setting.
        let mut setting: Option<usize> = None;
        let text = self.text.trim_start_matches('\u{feff}');
        for (number, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            if setting.is_some_and(|before| indent > before) {
                continue;
            }
            if let Some(header) = trimmed.strip_prefix('[') {
                let header = header.split(']').next().unwrap_or(header);
                let words: Vec<&str> = header.split_whitespace().collect();
                inside = words.join(" ").replace('"', "") == name;
                setting = None;
                if inside {
                    found.get_or_insert_default();
                }
                continue;
            }
            setting = Some(indent);
            if inside
                && let Some((key, value)) = trimmed.split_once('=')
                && let Some(section) = &mut found
            {
                let value = match value.find(" #").or_else(|| value.find(" ;")) {
                    Some(comment) => &value[..comment],
                    None => value,
                };
                let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
                if !value.is_empty() {
                    let place = format!("{key} ({}:{})", self.name, number + 1);
                    let value = value.to_owned();
                    section.insert(key, ProfileValue { value, place });
                }
            }
        }
        found
    }
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
    fn a_profile_is_read_from_both_files() {
        let find = |name| Profile::find(name, &file(CREDENTIALS), &file(CONFIG));
        let value = |set: &Option<ProfileValue>| set.as_ref().map(|set| set.value.clone());
        let default = find("default").unwrap();
        let keys = default.keys("t").ok().flatten().unwrap();
        assert_eq!(keys.id, "AKIDEFAULT");
        assert_eq!(keys.secret, "abc/def+ghi=");
        assert_eq!(keys.token, None);
        assert_eq!(value(&default.region).as_deref(), Some("eu-central-1"));
        assert_eq!(value(&default.endpoint), None);

        let backup = find("backup").unwrap();
        let keys = backup.keys("t").ok().flatten().unwrap();
        assert_eq!(keys.id, "AKBACKUP");
        assert_eq!(keys.secret, "s3cr=t");
        assert_eq!(keys.token.as_deref(), Some("tok=="));
        let endpoint = value(&backup.endpoint);
        assert_eq!(endpoint.as_deref(), Some("https://s3.example.org"));

        let keys = find("keys").unwrap().keys("t").ok().flatten().unwrap();
        assert_eq!(keys.id, "AKCONFIG");
        assert_eq!(find("sso").unwrap().unsupported, Some("sso_session"));
        assert!(find("nobody").is_none());
        assert!(Profile::find("default", &file(""), &file("")).is_none());
    }

    #[test]
    fn indentation_and_foreign_line_ends_are_accepted() {
        let indented = "\u{feff}[default]\r\n  aws_access_key_id = AK\r\n  s3 =\r\n    aws_session_token = nested\r\n  \
                        aws_secret_access_key = SK\r\n\taws_session_token = deeper\r\n[other]\n aws_access_key_id = O\n";
        let profile = Profile::find("default", &file(indented), &file("")).unwrap();
        let keys = profile.keys("t").ok().flatten().unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str()), ("AK", "SK"));
        let place = profile.keys[1].as_ref().map(|set| set.place.as_str());
        assert_eq!(place, Some("aws_secret_access_key (credentials:5)"));
    }

    #[test]
    fn an_error_names_the_line() {
        let wrong = |text: &str| {
            let profile = Profile::find("default", &file(text), &file("")).unwrap();
            profile.keys("t").err().unwrap().to_string()
        };
        let half = wrong("[default]\naws_access_key_id = AK\n");
        assert!(
            half.contains("(credentials:2) has no aws_secret_access_key"),
            "{half}"
        );
        let odd = wrong("[default]\naws_secret_access_key = hunter\x072\naws_access_key_id = AK\n");
        assert!(
            odd.contains("(credentials:2) has a control character"),
            "{odd}"
        );
        assert!(!odd.contains("hunter"));
    }

    fn file(text: &str) -> AwsFile {
        AwsFile {
            name: "credentials".to_owned(),
            text: text.to_owned(),
        }
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
        let id = |profile: Profile| profile.keys("t").ok().flatten().unwrap().id;
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
