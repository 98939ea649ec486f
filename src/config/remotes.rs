//! Named places of backups on the key holder's machine: `remotes.toml` in the user's configuration
//! directory.
//!
//! Each table is a remote, by its name: a URL, and what else belongs to it. A remote can name an
//! ssh command to run, and the signer to trust, so a file that others can change is refused.
//! Commands add and remove whole tables, and leave the rest of the file, comments included, as it
//! is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::{ConfigError, near};
use super::write::quoted;
use crate::base::dir_lock::DirLock;
use crate::base::fs::{create_private_dir, write_atomic};
use crate::base::ids::HostName;
use crate::base::ownership::{self, Exposure};
use crate::base::similar::nearest;
use crate::base::user_dirs;
use crate::keys::private_key_text::private_part;
use crate::storage::{self, TargetSpec};

/// The file's name in the user's configuration directory.
pub const FILE_NAME: &str = "remotes.toml";
/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;
const MOST_NAME_BYTES: usize = 64;
const HEADER: &str = "# Named places of backups, for `sealift ... --from NAME`; `sealift remote` adds and removes them.\n";

/// Why the remotes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemotesError {
    /// Neither `HOME` nor `XDG_CONFIG_HOME` is set.
    #[error("neither HOME nor XDG_CONFIG_HOME names a directory, so there is no place for remotes")]
    NoHome,
    /// Other users can change the file.
    #[error(
        "{exposure}: others can change where the remotes in it lead, and which commands they run"
    )]
    Exposed {
        /// The file.
        file: PathBuf,
        /// Names what others can change.
        exposure: Exposure,
    },
    /// The file cannot be read or written.
    #[error("cannot {what} {}", file.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file's content is not valid.
    #[error(transparent)]
    Content(#[from] ConfigError),
    /// The text cannot be the name of a remote.
    #[error(
        "{0:?} cannot be the name of a remote: use up to 64 letters, digits, and inside it - _ and dots"
    )]
    Name(String),
    /// A remote of this name is there already.
    #[error("a remote is named {0} already")]
    Taken(String),
    /// No remote has this name.
    #[error("no remote is named {name}{}", near(nearest.as_deref()))]
    Unknown {
        /// The name.
        name: String,
        /// The remote whose name looks most like it.
        nearest: Option<String>,
    },
    /// A setting is not valid.
    #[error("{0}")]
    Setting(String),
    /// The table cannot be taken out of the file without changing others.
    #[error("cannot take [{name}] out of {}: remove it with an editor", file.display())]
    Entangled {
        /// The remote.
        name: String,
        /// The file.
        file: PathBuf,
    },
}

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
struct RawRemote {
    url: Spanned<String>,
    host: Option<Spanned<String>>,
    signer: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    ssh: Option<String>,
}

impl NamedRemote {
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

    fn table(&self, name: &str) -> String {
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

/// The remotes of a file.
#[derive(Debug, Clone)]
pub struct Remotes {
    /// The file, which need not exist.
    pub file: PathBuf,
    /// The remotes, by name.
    pub all: BTreeMap<String, NamedRemote>,
    text: String,
}

impl Remotes {
    /// Reads the user's file; one that does not exist is empty. Without a home directory, or with
    /// that of another user, there is no remote.
    pub fn load() -> Result<Self, RemotesError> {
        match file() {
            Ok(file) => match Self::read(&file) {
                Err(RemotesError::Io { source, .. })
                    if user_dirs::is_home_of_another_user(&source) =>
                {
                    Ok(Self::none(file))
                }
                read => read,
            },
            Err(_) => Ok(Self::none(PathBuf::new())),
        }
    }

    fn none(file: PathBuf) -> Self {
        Self {
            file,
            all: BTreeMap::new(),
            text: String::new(),
        }
    }

    fn read(file: &Path) -> Result<Self, RemotesError> {
        use io::ErrorKind::{NotADirectory, NotFound};
        let failed = |source| RemotesError::Io {
            what: "read",
            file: file.to_owned(),
            source,
        };
        let text = match ownership::open_regular(file) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => String::new(),
            Err(error) => return Err(failed(error)),
            Ok(opened) => {
                if let Some(exposure) = ownership::exposure_of(&opened, file).map_err(failed)? {
                    let file = file.to_owned();
                    return Err(RemotesError::Exposed { file, exposure });
                }
                ownership::read_text(&opened, MAX_BYTES).map_err(failed)?
            }
        };
        Ok(Self::parse(file, text)?)
    }

    fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        let document = ConfigDocument { text: &text, file };
        let raw: BTreeMap<String, Spanned<RawRemote>> =
            toml::from_str(&text).map_err(|error| document.syntax(&error))?;
        let mut all = BTreeMap::new();
        for (name, raw) in raw {
            let (span, raw) = (raw.span(), raw.into_inner());
            if !is_name(&name) {
                return Err(document.invalid(&span, RemotesError::Name(name).to_string()));
            }
            let parse = |text: &Spanned<String>| {
                let host = text.get_ref().parse::<HostName>();
                host.map_err(|error| document.invalid(&text.span(), error.to_string()))
            };
            let url_span = raw.url.span();
            let remote = NamedRemote {
                url: raw.url.into_inner(),
                host: raw.host.as_ref().map(parse).transpose()?,
                signer: raw.signer.map(|text| signer(&document, text)),
                endpoint: raw.endpoint,
                region: raw.region,
                ssh: raw.ssh,
            };
            let checked = remote.check();
            checked
                .map_err(|what| document.invalid(&url_span, format!("remote {name}: {what}")))?;
            all.insert(name, remote);
        }
        let file = file.to_owned();
        Ok(Self { file, all, text })
    }

    /// Returns the remote `name`; the error names the nearest one.
    pub fn get(&self, name: &str) -> Result<&NamedRemote, RemotesError> {
        self.all.get(name).ok_or_else(|| RemotesError::Unknown {
            name: name.to_owned(),
            nearest: self.nearest(name).map(str::to_owned),
        })
    }

    /// Returns the name that looks most like `name`; `None` if none is similar.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let names: Vec<&str> = self.all.keys().map(String::as_str).collect();
        nearest(name, &names)
    }

    fn with(&self, name: &str, remote: &NamedRemote) -> Result<String, RemotesError> {
        if !is_name(name) {
            return Err(RemotesError::Name(name.to_owned()));
        }
        if self.all.contains_key(name) {
            return Err(RemotesError::Taken(name.to_owned()));
        }
        remote.check().map_err(RemotesError::Setting)?;
        let gap = match self.text.as_str() {
            "" => HEADER.to_owned() + "\n",
            text if text.ends_with('\n') => "\n".to_owned(),
            _ => "\n\n".to_owned(),
        };
        Ok(format!("{}{gap}{}", self.text, remote.table(name)))
    }

    /// Returns the text without the table `name`. A comment right above the next table stays.
    fn without(&self, name: &str) -> Result<String, RemotesError> {
        self.get(name)?;
        let heads = [
            format!("[{name}]"),
            format!("[{}]", quoted(name)),
            format!("['{name}']"),
        ];
        let lines: Vec<&str> = self.text.split_inclusive('\n').collect();
        let is_head = |line: &str| heads.iter().any(|head| line.trim() == head);
        let entangled = || RemotesError::Entangled {
            name: name.to_owned(),
            file: self.file.clone(),
        };
        let start = lines
            .iter()
            .position(|line| is_head(line))
            .ok_or_else(entangled)?;
        let next = lines[start + 1..]
            .iter()
            .position(|line| line.trim_start().starts_with('['));
        let mut end = next.map_or(lines.len(), |next| start + 1 + next);
        if next.is_some() {
            while end > start + 1 && lines[end - 1].trim_start().starts_with('#') {
                end -= 1;
            }
        }
        let text = [&lines[..start], &lines[end..]].concat().concat();
        let mut expected = self.all.clone();
        expected.remove(name);
        match Self::parse(&self.file, text.clone()) {
            Ok(left) if left.all == expected => Ok(text),
            _ => Err(entangled()),
        }
    }
}

/// Returns the path of the user's file.
pub fn file() -> Result<PathBuf, RemotesError> {
    let dir = user_dirs::sealift_dir().ok_or(RemotesError::NoHome)?;
    Ok(dir.join(FILE_NAME))
}

/// Adds a remote to the user's file. Returns the file.
pub fn add(name: &str, remote: &NamedRemote) -> Result<PathBuf, RemotesError> {
    change(&file()?, |remotes| remotes.with(name, remote))
}

/// Removes a remote from the user's file. Returns the file.
pub fn remove(name: &str) -> Result<PathBuf, RemotesError> {
    let file = file()?;
    Remotes::read(&file)?.get(name)?;
    change(&file, |remotes| remotes.without(name))
}

/// Replaces the file in one step by what `edit` makes of it, while no other process does.
fn change(
    file: &Path,
    edit: impl Fn(&Remotes) -> Result<String, RemotesError>,
) -> Result<PathBuf, RemotesError> {
    let failed = |source| RemotesError::Io {
        what: "write",
        file: file.to_owned(),
        source,
    };
    let dir = file.parent().unwrap_or(Path::new("/"));
    create_private_dir(dir).map_err(failed)?;
    if let Some(exposure) = ownership::exposure_at(file).map_err(failed)? {
        let file = file.to_owned();
        return Err(RemotesError::Exposed { file, exposure });
    }
    let _lock = DirLock::exclusive(dir).map_err(failed)?;
    let text = edit(&Remotes::read(file)?)?;
    // A link to the file stays one.
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    write_atomic(&real, text.as_bytes(), 0o600).map_err(failed)?;
    Ok(file.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn remote(url: &str) -> NamedRemote {
        NamedRemote {
            url: url.to_owned(),
            host: None,
            signer: None,
            endpoint: None,
            region: None,
            ssh: None,
        }
    }

    fn full() -> NamedRemote {
        NamedRemote {
            host: Some("dalidou".parse().unwrap()),
            signer: Some(format!("SHA256:{}", "A".repeat(43))),
            endpoint: Some("https://s3.example.org".to_owned()),
            region: Some("eu-1".to_owned()),
            ssh: Some("ssh -i \"my key\"".to_owned()),
            ..remote("s3://bucket/a \"b\"\\c")
        }
    }

    fn parse(text: &str) -> Result<Remotes, ConfigError> {
        Remotes::parse(Path::new("/x/remotes.toml"), text.to_owned())
    }

    #[test]
    fn a_name_is_neither_a_path_nor_a_url() {
        for name in ["dalidou", "nas.local", "a", "A-b_c.9"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(65);
        for name in [
            "", ".", "..", "./a", "a/b", "a:b", "-a", "a.", "a b", "ä", "~", &long,
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn what_is_added_is_read_back_and_what_is_removed_leaves_the_rest() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("sealift/remotes.toml");
        let add = |name: &str, remote: &NamedRemote| change(&file, |all| all.with(name, remote));
        add("dalidou", &full()).unwrap();
        add("nas.local", &remote("/mnt/nas")).unwrap();
        add("usb", &remote("me@laptop:backups")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        let read = Remotes::read(&file).unwrap();
        assert_eq!(read.all.len(), 3);
        assert_eq!(read.all["dalidou"], full());
        assert!(matches!(add("usb", &full()), Err(RemotesError::Taken(_))));
        // The operator's own words.
        let text = read.text.replace("[usb]", "# of the kitchen\n[usb]");
        std::fs::write(&file, &text).unwrap();
        change(&file, |all| all.without("nas.local")).unwrap();
        let left = Remotes::read(&file).unwrap();
        assert_eq!(left.all.keys().collect::<Vec<_>>(), ["dalidou", "usb"]);
        assert!(
            left.text.contains("# of the kitchen\n[usb]"),
            "{}",
            left.text
        );
        let unknown = change(&file, |all| all.without("dalidu")).unwrap_err();
        assert!(
            unknown.to_string().contains("did you mean \"dalidou\"?"),
            "{unknown}"
        );
    }

    #[test]
    fn a_table_that_is_written_otherwise_is_left_to_the_operator() {
        let read = parse("usb = { url = \"/mnt/usb\" }\n").unwrap();
        assert!(matches!(
            read.without("usb"),
            Err(RemotesError::Entangled { .. })
        ));
        // What looks like a head is inside a string.
        let read = parse("[a]\nurl = \"/a\"\nregion = '''\n[b]\n'''\n[b]\nurl = \"/b\"\n");
        assert!(read.is_err() || read.unwrap().without("b").is_err());
    }

    #[test]
    fn an_invalid_file_is_named_with_its_line() {
        for (text, line, what) in [
            ("[a]\nurl = 1", 2, "invalid type"),
            ("[a]\nhost = \"x\"", 1, "missing field"),
            ("[a]\nurl = \"/a\"\nidentity = \"k\"", 3, "unknown field"),
            ("[a]\nurl = \"/a\"\nhost = \"a/b\"", 3, "a/b"),
            ("\n[a]\nurl = \"gopher://x\"", 3, "sealift knows"),
            ("[a]\nurl = \"backups\"", 2, "absolute path"),
            (
                "[a]\nurl = \"https://me:hunter2@x/y\"",
                2,
                "a password in a URL",
            ),
            ("[a]\nurl = \"/a\"\nendpoint = \"x y\"", 2, "endpoint"),
            ("[\"a/b\"]\nurl = \"/a\"", 1, "cannot be the name"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            let place = format!("/x/remotes.toml:{line}: ");
            assert!(
                error.starts_with(&place) && error.contains(what),
                "{text:?}: {error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_change_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("sealift/remotes.toml");
        change(&file, |all| all.with("a", &remote("/a"))).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
        let refused = [
            Remotes::read(&file).err(),
            change(&file, |all| all.with("b", &remote("/b"))).err(),
        ];
        for error in refused {
            assert!(
                matches!(error, Some(RemotesError::Exposed { .. })),
                "{error:?}"
            );
        }
    }
}
