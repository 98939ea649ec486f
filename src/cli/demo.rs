//! `demo`: the whole story in a scratch folder, told by the commands a user would type.
//!
//! Every step runs this very program as a user would, on a small deployment that a writer keeps
//! changing. Nothing outside the scratch folder is read or written, and it is removed at the end.

mod deployment;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, size};
use crate::base::openat::Dir;
use crate::base::walk::{Filter, Walked, walk};
use crate::restore::open::{Identities, Prompt, SecretString, opens};
use deployment::{Deployment, check_database};

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the scratch folder and say where it is
    #[arg(long)]
    keep: bool,
}

pub fn run(_context: &Context, args: &DemoArgs) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let scratch = tempfile::Builder::new().prefix("sealift-demo-").tempdir();
    let scratch = scratch.map_err(|error| {
        Failure::from_error(format!("cannot make a temporary directory: {error}"))
            .hint("TMPDIR says where, if not /tmp")
    })?;
    let story = Story {
        dir: scratch.path().to_owned(),
        program: std::env::current_exe()?,
    };
    let told = story.tell();
    if args.keep {
        let kept = scratch.keep();
        output::print_line(format_args!("\nkept: {}", kept.display()))?;
    }
    told?;
    output::print_line(format_args!(
        "\nall of it in {}",
        output::duration(started.elapsed())
    ))?;
    Ok(Outcome::Complete)
}

struct Story {
    dir: PathBuf,
    program: PathBuf,
}

impl Story {
    fn tell(&self) -> Result<(), Failure> {
        for place in ["server", "key-holder", "off-site", "fresh-machine"] {
            fs::create_dir(self.dir.join(place))?;
        }
        let deployment = Deployment::build(&self.dir.join("server/atocore"))?;
        say(format_args!(
            "A server runs AtoCore: a SQLite database, a registry, a Chroma vector store, {} in all.\n\
             A writer moves money between its accounts all the while.",
            size(tree_bytes(&self.dir.join("server/atocore"))?)
        ))?;
        let writer = deployment.start_writer()?;

        say("\nThe key holder makes an identity. The server gets its public half only.")?;
        let recipient = self.sealift(["key", "generate", "--output", "key-holder/key.txt"])?;
        let recipient = recipient.trim();

        say("\nThe server is set up, and backs up to an off-site folder.")?;
        let init = self.sealift([
            "--config",
            "server/sealift.toml",
            "init",
            "--host",
            "dalidou",
            "--recipient",
            recipient,
            "--target",
            "off-site",
            "--preset",
            "atocore",
            "--root",
            "server/atocore",
        ])?;
        let signer = init
            .split_whitespace()
            .find(|word| word.starts_with("SHA256:"));
        let signer = signer
            .ok_or_else(|| Failure::from_error("init printed no signer"))?
            .to_owned();
        let backup = [
            "--config",
            "server/sealift.toml",
            "backup",
            "--include",
            "chroma",
        ];
        self.sealift(backup)?;
        let first = tree_bytes(&self.dir.join("off-site"))?;

        deployment.live_a_day()?;
        say(
            "\nA day goes by: half a percent of the rows and vectors change. Only changed pages travel.",
        )?;
        self.sealift(backup)?;
        let second = tree_bytes(&self.dir.join("off-site"))? - first;
        say(format_args!(
            "  off-site: {} for the first push, {} for the second",
            size(first),
            size(second)
        ))?;
        writer.stop()?;

        self.try_every_file_as_a_key()?;

        say(
            "\nThe server burns down. On a fresh machine, with the identity and the signer's fingerprint:",
        )?;
        self.sealift([
            "restore",
            "latest",
            "--from",
            "off-site",
            "--identity",
            "key-holder/key.txt",
            "--signer",
            &signer,
            "--to",
            "fresh-machine/atocore",
        ])?;
        self.compare(&self.dir.join("fresh-machine/atocore"))?;
        self.with_stock_tools(&signer)
    }

    /// Runs this program, showing the command and what it says.
    fn sealift<I, S>(&self, arguments: I) -> Result<String, Failure>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command("sealift", &self.program, arguments)
    }

    fn command<I, S>(&self, name: &str, program: &Path, arguments: I) -> Result<String, Failure>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let arguments: Vec<OsString> = arguments
            .into_iter()
            .map(|a| a.as_ref().to_owned())
            .collect();
        let shown: Vec<String> = arguments
            .iter()
            .map(|a| self.shorten(&a.to_string_lossy()))
            .collect();
        say(format_args!("  $ {name} {}", shown.join(" ")))?;
        let mut command = Command::new(program);
        command
            .args(&arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .env("HOME", &self.dir);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SEALIFT_") {
                command.env_remove(variable);
            }
        }
        let done = command.output()?;
        let (out, err) = (
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
        );
        if !done.status.success() {
            return Err(Failure::from_error(format!(
                "{name} ended with {}: {err}",
                done.status
            )));
        }
        for line in out.lines() {
            say(format_args!("    {}", self.shorten(line)))?;
        }
        Ok(out.into_owned())
    }

    /// Leaves the scratch folder's own path out of what is shown.
    fn shorten(&self, text: &str) -> String {
        let dir = self.dir.display().to_string();
        text.replace(&format!("file://{dir}/"), "")
            .replace(&format!("{dir}/"), "")
            .replace(&dir, ".")
    }

    /// Everything the server has of Sealift, tried on an archive that it made.
    fn try_every_file_as_a_key(&self) -> Result<(), Failure> {
        let archive = files(&self.dir.join("off-site"))?
            .into_iter()
            .find(|path| path.extension().is_some_and(|e| e == "age"))
            .ok_or_else(|| Failure::from_error("no archive is off-site"))?;
        let sealed = fs::read(archive)?;
        let prompt: Arc<dyn Prompt> = Arc::new(Silent);
        let mut tried = 0;
        for place in [
            "server/sealift.toml",
            "server/sealift.signer",
            "server/sealift.state",
        ] {
            for path in files(&self.dir.join(place))? {
                tried += 1;
                if let Ok(identities) = Identities::load(std::slice::from_ref(&path), &prompt)
                    && opens(&identities, &sealed)
                {
                    return Err(Failure::from_error(format!(
                        "{} opens a backup",
                        path.display()
                    )));
                }
            }
        }
        say(format_args!(
            "\nCould an intruder on the server read what is off-site? Each of the {tried} files that Sealift has \
             there was\ntried as a key: none opens it."
        ))
    }

    fn compare(&self, restored: &Path) -> Result<(), Failure> {
        let snapshots = self.dir.join("server/atocore/backups/snapshots");
        let mut stamps: Vec<PathBuf> = fs::read_dir(&snapshots)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        stamps.sort();
        let original = stamps
            .pop()
            .ok_or_else(|| Failure::from_error("the server has no snapshot"))?;
        let compared = same_trees(&original, restored)?;
        // Opening a WAL database leaves files beside it: a copy is opened.
        let copy = self.dir.join("checked.db");
        fs::copy(restored.join("db/atocore.db"), &copy)?;
        let accounts = check_database(&copy)?;
        say(format_args!(
            "  compared with the server's own snapshot: {compared} files, identical to the byte;\n  the database is \
             sound, and the money of its {accounts} accounts adds up"
        ))
    }

    /// The same with `age`, `zstd`, `ssh-keygen` and Python, where they are there.
    fn with_stock_tools(&self, signer: &str) -> Result<(), Failure> {
        say("\nAnd without Sealift, with stock tools and a copy of the folder:")?;
        let missing: Vec<&str> = ["python3", "age", "zstd", "ssh-keygen"]
            .into_iter()
            .filter(|tool| !is_on_path(tool))
            .collect();
        if !missing.is_empty() {
            return say(format_args!(
                "  (not shown: {} not installed here)",
                missing.join(", ")
            ));
        }
        self.command(
            "python3",
            Path::new("python3"),
            [
                "key-holder/recover.py",
                "off-site/dalidou",
                "--identity",
                "key-holder/key.txt",
                "--signer",
                signer,
                "--to",
                "fresh-machine/by-hand",
            ],
        )?;
        let (one, other) = ("fresh-machine/atocore", "fresh-machine/by-hand");
        let compared = same_trees(&self.dir.join(one), &self.dir.join(other))?;
        say(format_args!("  {compared} files, identical again"))
    }
}

/// Nobody is asked anything in a demo.
struct Silent;

impl Prompt for Silent {
    fn passphrase(&self, _what: &str) -> Option<SecretString> {
        None
    }

    fn message(&self, _text: &str) {}
}

fn say(text: impl std::fmt::Display) -> Result<(), Failure> {
    Ok(output::print_line(text)?)
}

fn is_on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
}

/// Every file at or below `path`.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let root = Dir::open(path)?;
    for walked in walk(&root, &Filter::everything())? {
        match walked {
            Walked::Found(found) if found.meta.is_file() => files.push(root.path_of(found.rel())),
            _ => {}
        }
    }
    Ok(files)
}

fn tree_bytes(dir: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for file in files(dir)? {
        bytes += fs::metadata(file)?.len();
    }
    Ok(bytes)
}

/// Compares names, modes, mtimes and contents; the number of files.
fn same_trees(one: &Path, other: &Path) -> Result<usize, Failure> {
    let (a, b) = (files(one)?, files(other)?);
    let relative = |paths: &[PathBuf], base: &Path| -> Vec<PathBuf> {
        paths
            .iter()
            .filter_map(|path| path.strip_prefix(base).ok().map(Path::to_owned))
            .collect()
    };
    if relative(&a, one) != relative(&b, other) {
        return Err(Failure::from_error("the restored tree has other files"));
    }
    for (a, b) in a.iter().zip(&b) {
        let (left, right) = (fs::metadata(a)?, fs::metadata(b)?);
        let look = |meta: &fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.len());
        if look(&left) != look(&right) || fs::read(a)? != fs::read(b)? {
            return Err(Failure::from_error(format!(
                "{} differs from {}",
                b.display(),
                a.display()
            )));
        }
    }
    Ok(a.len())
}
