//! Sources and targets as `init`, `source add` and `target add` take them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use crate::base::fs::unexpanded_home;
use crate::base::{ownership, sqlite};
use crate::config::{NewSource, NewSourceKind, NewTarget, TakenPlace, free_place};
use crate::storage::{self, TargetSpec, is_over_ssh};

/// What to back up.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SourceArgs {
    /// A SQLite database to back up, safe while programs write to it; can be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) sqlite: Vec<PathBuf>,
    /// A JSON file to back up, checked before it is packed; can be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) json_file: Vec<PathBuf>,
    /// A shell command whose output is backed up as NAME, such as app.sql="pg_dump app"; can be
    /// repeated
    #[arg(long, value_name = "NAME=LINE")]
    pub(super) command: Vec<String>,
    /// A directory to back up, read in place; can be repeated
    #[arg(long, value_name = "DIR")]
    pub(super) tree: Vec<PathBuf>,
    /// Pattern of paths to exclude from the trees, in gitignore syntax; can be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(super) exclude: Vec<String>,
}

/// How the server of a target is reached.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ServerArgs {
    /// Endpoint of the S3 targets, if it is not Amazon's
    #[arg(long, value_name = "URL")]
    pub(super) endpoint: Option<String>,
    /// Region of the S3 targets
    #[arg(long, value_name = "REGION")]
    pub(super) region: Option<String>,
    /// For the rsync and sftp targets: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND")]
    pub(super) ssh: Option<String>,
}

impl SourceArgs {
    /// Whether no source is named.
    pub(super) fn is_empty(&self) -> bool {
        self.sqlite.is_empty()
            && self.json_file.is_empty()
            && self.command.is_empty()
            && self.tree.is_empty()
    }

    /// Returns the sources, each with a place in the snapshot that is not one of `taken`.
    pub(super) fn sources(&self, mut taken: Vec<TakenPlace>) -> Result<Vec<NewSource>, Failure> {
        if self.tree.is_empty() && !self.exclude.is_empty() {
            return Err(Failure::usage(
                "--exclude is about trees, and there is no --tree",
            ));
        }
        let mut kinds = Vec::new();
        for path in &self.sqlite {
            kinds.push(NewSourceKind::Sqlite(database(path)?));
        }
        for path in &self.json_file {
            kinds.push(NewSourceKind::Json(file(path, "--json-file")?));
        }
        for path in &self.tree {
            kinds.push(NewSourceKind::Tree(directory(path)?, self.exclude.clone()));
        }
        let mut sources = Vec::new();
        for kind in kinds {
            let base = match &kind {
                NewSourceKind::Sqlite(path)
                | NewSourceKind::Json(path)
                | NewSourceKind::Tree(path, _) => path.file_name().unwrap_or_default(),
                NewSourceKind::Command(_) => continue,
            };
            let to = free_place(&base.to_string_lossy(), &taken);
            taken.push(TakenPlace::of(&to));
            let name = None;
            sources.push(NewSource { kind, to, name });
        }
        for text in &self.command {
            sources.push(command(text)?);
        }
        Ok(sources)
    }
}

fn command(text: &str) -> Result<NewSource, Failure> {
    let wrong = || {
        Failure::usage(format!("--command {text:?} is not NAME=LINE"))
            .hint("such as --command app.sql=\"pg_dump app\"")
    };
    let (name, line) = text.split_once('=').ok_or_else(wrong)?;
    if name.is_empty() || name.contains(char::is_whitespace) || line.trim().is_empty() {
        return Err(wrong());
    }
    Ok(NewSource {
        kind: NewSourceKind::Command(line.to_owned()),
        to: name.to_owned(),
        name: Some(name.to_owned()),
    })
}

/// Returns `path` as the configuration takes it: absolute, and UTF-8.
fn checked(path: &Path) -> Result<PathBuf, Failure> {
    let Some(text) = path.to_str() else {
        let what = format!(
            "{} is not UTF-8, as a configuration requires",
            path.display()
        );
        return Err(Failure::usage(what).hint("name a link to it, or the directory above it"));
    };
    if !path.exists()
        && let Some(why) = unexpanded_home(text)
    {
        return Err(Failure::usage(format!("{text}: {why}")));
    }
    Ok(std::path::absolute(path)?)
}

fn directory(path: &Path) -> Result<PathBuf, Failure> {
    let path = checked(path)?;
    match path.is_dir() {
        true => Ok(path),
        false => Err(Failure::usage(format!(
            "{} is not a directory",
            path.display()
        ))),
    }
}

fn file(path: &Path, option: &str) -> Result<PathBuf, Failure> {
    let path = checked(path)?;
    let shown = path.display();
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => Ok(path),
        Ok(meta) if meta.is_dir() => {
            let what = format!("{option}: {shown} is a directory");
            Err(Failure::usage(what).hint("give it as --tree"))
        }
        Ok(_) => Err(Failure::usage(format!("{option}: {shown} is not a file"))),
        Err(error) => Err(Failure::usage(format!(
            "{option}: cannot find {shown}: {error}"
        ))),
    }
}

fn database(path: &Path) -> Result<PathBuf, Failure> {
    let path = file(path, "--sqlite")?;
    match is_database(&path) {
        Some(false) => {
            let what = format!("--sqlite: {} is not a SQLite database", path.display());
            Err(Failure::usage(what).hint("give its directory as --tree"))
        }
        _ => Ok(path),
    }
}

/// Returns whether the file begins as a SQLite database. `None` if it is empty, as a new database
/// is, or cannot be read.
pub(super) fn is_database(path: &Path) -> Option<bool> {
    let mut head = Vec::new();
    let limit = sqlite::HEAD_BYTES as u64;
    let file = ownership::open_regular(path).ok()?;
    file.take(limit).read_to_end(&mut head).ok()?;
    (!head.is_empty()).then(|| sqlite::is_sqlite(&head))
}

impl ServerArgs {
    /// Returns the targets of `texts`, each `[NAME=]URL`; a name that is not given is made of the
    /// scheme and is none of `taken`. A path becomes a `file` URL.
    pub(super) fn targets(
        &self,
        texts: &[String],
        taken: &[String],
    ) -> Result<Vec<NewTarget>, Failure> {
        let mut names = taken.to_vec();
        let mut targets = Vec::new();
        for text in texts {
            let target = self.target(text, &names)?;
            names.push(target.name.clone());
            targets.push(target);
        }
        let has = |is: fn(&str) -> bool| targets.iter().any(|target| is(&target.url));
        if self.ssh.is_some() && !has(is_over_ssh) {
            return Err(Failure::usage("no target is reached by ssh").hint("omit --ssh"));
        }
        for (option, value) in [("--endpoint", &self.endpoint), ("--region", &self.region)] {
            if value.is_some() && !has(is_s3) {
                let what = format!("{option} is about S3 targets, and none is given");
                return Err(Failure::usage(what).hint(format!("omit {option}")));
            }
        }
        Ok(targets)
    }

    fn target(&self, text: &str, taken: &[String]) -> Result<NewTarget, Failure> {
        let named = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !name.contains(['/', ':', '.']));
        let (name, url) = named.map_or((None, text), |(name, url)| (Some(name), url));
        storage::check_url(url).map_err(Failure::usage)?;
        let url = match storage::folder_path(url) {
            Some(path) if !url.contains("://") => {
                let path = std::path::absolute(path)?;
                let url = url::Url::from_file_path(&path);
                url.map_err(|()| {
                    Failure::usage(format!("{} cannot be the path of a target", path.display()))
                })?
                .to_string()
            }
            _ => url.to_owned(),
        };
        let target = NewTarget {
            name: free_name(name, &url, taken)?,
            endpoint: self.endpoint.clone().filter(|_| is_s3(&url)),
            region: self.region.clone().filter(|_| is_s3(&url)),
            ssh: self.ssh.clone().filter(|_| is_over_ssh(&url)),
            url,
        };
        let spec = TargetSpec {
            endpoint: target.endpoint.clone(),
            region: target.region.clone(),
            ssh: target.ssh.clone(),
            ..TargetSpec::from_url(&target.url)
        };
        spec.check()
            .map_err(|fault| Failure::usage(format!("--{fault}")))?;
        Ok(target)
    }
}

fn is_s3(url: &str) -> bool {
    url.starts_with("s3://")
}

/// Returns `name`, or one that is made of the URL's scheme.
fn free_name(name: Option<&str>, url: &str, taken: &[String]) -> Result<String, Failure> {
    let is_taken = |name: &str| taken.iter().any(|taken| taken == name);
    let base = match name {
        Some(name) if is_taken(name) => {
            return Err(
                Failure::usage(format!("there is a target named {name} already"))
                    .hint("give it another name"),
            );
        }
        Some(name) => return Ok(name.to_owned()),
        None => match url.split_once("://").map_or("rsync", |(scheme, _)| scheme) {
            "file" => "folder",
            "http" | "https" => "webdav",
            other => other,
        },
    };
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    let mut names = std::iter::once(base.to_owned()).chain(numbered);
    Ok(names.find(|name| !is_taken(name)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(texts: &[&str], taken: &[&str]) -> Result<Vec<NewTarget>, Failure> {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        ServerArgs::default().targets(&owned(texts), &owned(taken))
    }

    #[test]
    fn targets_get_names_and_urls() {
        let texts = [
            "/backups",
            "s3://bucket/a",
            "s3://bucket/b=c",
            "off=https://dav.example.org/x",
            "me@laptop:backups",
        ];
        let found = targets(&texts, &["folder"]).unwrap();
        let found = found
            .iter()
            .map(|target| (target.name.as_str(), target.url.as_str()));
        let expected = [
            ("folder-2", "file:///backups"),
            ("s3", "s3://bucket/a"),
            ("s3-2", "s3://bucket/b=c"),
            ("off", "https://dav.example.org/x"),
            ("rsync", "me@laptop:backups"),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        let twice = targets(&["off=/a"], &["off"]).unwrap_err();
        assert!(twice.to_string().contains("named off already"), "{twice}");
    }

    #[test]
    fn sources_of_one_base_name_get_places_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let args = SourceArgs {
            sqlite: vec![path("a/app.db"), path("b/app.db")],
            json_file: vec![path("c/app_db"), path("c/backup-metadata.json")],
            tree: vec![temp.path().join("a"), "/".into()],
            command: vec!["dump.sql=pg_dump x=y".to_owned()],
            exclude: Vec::new(),
        };
        let sources = args.sources(vec![TakenPlace::of("a/other")]).unwrap();
        let places: Vec<&str> = sources.iter().map(|source| source.to.as_str()).collect();
        let expected = [
            "app.db",
            "app-2.db",
            "app_db-2",
            "backup-metadata-2.json",
            "a-2",
            "root",
            "dump.sql",
        ];
        assert_eq!(places, expected);
    }
}
