//! One remote: its table in the file, and what its settings may be.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::error::RemotesError;
use crate::base::ids::HostName;
use crate::config::document::ConfigDocument;
use crate::config::error::ConfigError;
use crate::config::write::quoted;
use crate::keys::private_key_text::private_part;
use crate::storage::{self, TargetSpec};

const MOST_NAME_BYTES: usize = 64;

/// A named place of backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedRemote {
    /// The target's URL, as `--from` takes it.
    pub url: String,
    /// Which host, if the target holds several.
    pub host: Option<HostName>,
    /// The signer to trust, as `--signer` takes it; `None`: the one that is remembered.
    pub signer: Option<String>,
    /// Address of the S3 server.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// The ssh command, for rsync and sftp.
    pub ssh: Option<String>,
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRemote {
    url: Spanned<String>,
    host: Option<Spanned<String>>,
    signer: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    ssh: Option<String>,
}

impl NamedRemote {
    /// Validates the table `name`, from the file.
    pub(super) fn validate(
        document: &ConfigDocument<'_>,
        name: &str,
        raw: Spanned<RawRemote>,
    ) -> Result<Self, ConfigError> {
        let (span, raw) = (raw.span(), raw.into_inner());
        if !is_name(name) {
            let what = RemotesError::Name(name.to_owned()).to_string();
            return Err(document.invalid(&span, what));
        }
        let parse = |text: &Spanned<String>| {
            let host = text.get_ref().parse::<HostName>();
            host.map_err(|error| document.invalid(&text.span(), error.to_string()))
        };
        let url_span = raw.url.span();
        let remote = Self {
            url: raw.url.into_inner(),
            host: raw.host.as_ref().map(parse).transpose()?,
            signer: raw.signer.map(|text| signer(document, text)),
            endpoint: raw.endpoint,
            region: raw.region,
            ssh: raw.ssh,
        };
        let checked = remote.check();
        checked.map_err(|what| document.invalid(&url_span, format!("remote {name}: {what}")))?;
        Ok(remote)
    }

    /// Returns the settings of the target.
    pub fn spec(&self) -> TargetSpec {
        TargetSpec {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ssh: self.ssh.clone(),
            ..TargetSpec::from_url(&self.url)
        }
    }

    /// Returns what is wrong with the settings. The text never repeats a secret.
    pub fn check(&self) -> Result<(), String> {
        let has_password = url::Url::parse(&self.url).is_ok_and(|url| url.password().is_some());
        if has_password {
            let text = "a password in a URL: secrets come from the environment or from files";
            return Err(text.to_owned());
        }
        if self.url.starts_with("memory:") {
            return Err("a target in memory is lost at the end of each command".to_owned());
        }
        if let Some(path) = storage::folder_path(&self.url)
            && !path.is_absolute()
        {
            return Err(format!(
                "{:?} is neither a URL nor an absolute path",
                self.url
            ));
        }
        let texts = [Some(&self.url), self.signer.as_ref(), self.ssh.as_ref()];
        if let Some(what) = texts
            .into_iter()
            .flatten()
            .find_map(|text| private_part(text))
        {
            return Err(format!(
                "it contains {what}, which belongs into no such file"
            ));
        }
        self.spec().check().map_err(|fault| fault.to_string())
    }

    /// Returns the table `name` as the file has it.
    pub(super) fn table(&self, name: &str) -> String {
        let mut text = match name.contains('.') {
            true => format!("[{}]\n", quoted(name)),
            false => format!("[{name}]\n"),
        };
        let host = self.host.as_ref().map(ToString::to_string);
        let values = [
            ("url", Some(&self.url)),
            ("host", host.as_ref()),
            ("signer", self.signer.as_ref()),
            ("endpoint", self.endpoint.as_ref()),
            ("region", self.region.as_ref()),
            ("ssh", self.ssh.as_ref()),
        ];
        for (key, value) in values {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
        text
    }
}

/// Returns the signer; a path is relative to the file's directory.
fn signer(document: &ConfigDocument<'_>, text: String) -> String {
    let is_key = text.starts_with("SHA256:") || text.contains(' ');
    match is_key {
        true => text,
        false => document.resolve(&text).to_string_lossy().into_owned(),
    }
}

/// Whether `text` can be the name of a remote. A name has neither a slash nor a colon, so that it
/// is neither a path nor a URL.
pub fn is_name(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MOST_NAME_BYTES
        && text.chars().all(is_inner)
        && is_outer(text.chars().next())
        && is_outer(text.chars().last())
}
