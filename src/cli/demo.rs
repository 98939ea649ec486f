//! `demo`: backup, loss of the host, restore and comparison, by the commands that a user would
//! type.
//!
//! Every step runs this very program on a small deployment that a writer keeps changing. It reads
//! and writes only below a temporary folder, which it removes at the end.

mod compare;
mod deployment;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, size};
use crate::restore::open::{Identities, Prompt, SecretString, opens};
use compare::{files, same_trees, tree_bytes};
use deployment::{Deployment, check_database};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Keep the temporary folder and print its path
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(_context: &Context, args: &DemoArgs) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let scratch = tempfile::Builder::new().prefix("sealift-demo-").tempdir();
    let scratch = scratch.map_err(|error| {
        Failure::from_error(format!("cannot make a temporary directory: {error}"))
            .hint("TMPDIR names another place than /tmp")
    })?;
    let demo = Demo {
        dir: scratch.path().to_owned(),
        program: std::env::current_exe()?,
    };
    let done = demo.run();
    if args.keep {
        let kept = scratch.keep();
        output::print_line(format_args!("\nkept: {}", kept.display()))?;
    }
    done?;
    output::print_line(format_args!(
        "\nall of it in {}",
        output::duration(started.elapsed())
    ))?;
    Ok(Outcome::Complete)
}

struct Demo {
    dir: PathBuf,
    program: PathBuf,
}

impl Demo {
    fn run(&self) -> Result<(), Failure> {
        for place in ["server", "key-holder", "off-site", "fresh-machine"] {
            fs::create_dir(self.dir.join(place))?;
        }
        let deployment = Deployment::build(&self.dir.join("server/atocore"))?;
        say(format_args!(
            "A server runs AtoCore: a SQLite database, a registry, a Chroma vector store, {} in all.\n\
             Meanwhile a writer keeps moving money between its accounts.",
            size(tree_bytes(&self.dir.join("server/atocore"))?)
        ))?;
        let writer = deployment.start_writer()?;
        let signer = self.set_up()?;
        self.back_up_twice(&deployment)?;
        writer.stop()?;
        self.try_every_file_as_a_key()?;
        say(
            "\nThe server burns down. On a fresh machine, with the identity and the signer's fingerprint:",
        )?;
        self.sealift(&format!(
            "restore latest --from off-site --identity key-holder/key.txt --signer {signer} --to fresh-machine/atocore"
        ))?;
        self.compare(&self.dir.join("fresh-machine/atocore"))?;
        self.with_stock_tools(&signer)
    }

    /// Makes an identity and sets up the server. Returns the fingerprint of its signer.
    fn set_up(&self) -> Result<String, Failure> {
        say("\nThe key holder makes an identity. The server gets only its public half.")?;
        let recipient = self.sealift("key generate --output key-holder/key.txt")?;
        say("\nThe server is set up, and backs up to an off-site folder.")?;
        let init = self.sealift(&format!(
            "--config server/sealift.toml init --host dalidou --recipient {} --target off-site --preset atocore \
             --root server/atocore",
            recipient.trim()
        ))?;
        let mut words = init.split_whitespace();
        let signer = words.find(|word| word.starts_with("SHA256:"));
        let signer = signer.ok_or_else(|| Failure::from_error("init printed no signer"))?;
        Ok(signer.to_owned())
    }

    fn back_up_twice(&self, deployment: &Deployment) -> Result<(), Failure> {
        let backup = "--config server/sealift.toml backup --include chroma";
        self.sealift(backup)?;
        let first = tree_bytes(&self.dir.join("off-site"))?;
        deployment.live_a_day()?;
        say(
            "\nA day goes by: half a percent of the rows and vectors change. Only changed pages are sent.",
        )?;
        self.sealift(backup)?;
        let second = tree_bytes(&self.dir.join("off-site"))? - first;
        say(format_args!(
            "  off-site: {} for the first push, {} for the second",
            size(first),
            size(second)
        ))
    }

    /// Runs this program with the words of `arguments`. Shows the command and its output, and
    /// returns the output.
    fn sealift(&self, arguments: &str) -> Result<String, Failure> {
        self.command("sealift", &self.program, arguments)
    }

    fn command(&self, name: &str, program: &Path, arguments: &str) -> Result<String, Failure> {
        say(format_args!("  $ {name} {arguments}"))?;
        let mut command = Command::new(program);
        command
            .args(arguments.split_whitespace())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .env("HOME", &self.dir);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SEALIFT_") {
                command.env_remove(variable);
            }
        }
        let done = command.output()?;
        if !done.status.success() {
            let (status, err) = (done.status, String::from_utf8_lossy(&done.stderr));
            let text = format!("{name} ended with {status}: {err}");
            return Err(Failure::from_error(text));
        }
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        for line in out.lines() {
            say(format_args!("    {}", self.shorten(line)))?;
        }
        Ok(out)
    }

    /// Returns `text` without the path of the temporary folder.
    fn shorten(&self, text: &str) -> String {
        let dir = self.dir.display().to_string();
        text.replace(&format!("file://{dir}/"), "")
            .replace(&format!("{dir}/"), "")
            .replace(&dir, ".")
    }

    /// Tries each file of Sealift on the server as an identity for an archive that the server made.
    fn try_every_file_as_a_key(&self) -> Result<(), Failure> {
        let off_site = files(&self.dir.join("off-site"))?;
        let is_archive = |path: &&PathBuf| path.extension().is_some_and(|e| e == "age");
        let archive = off_site.iter().find(is_archive);
        let archive = archive.ok_or_else(|| Failure::from_error("no archive is off-site"))?;
        let sealed = fs::read(archive)?;
        let prompt: Arc<dyn Prompt> = Arc::new(NoPrompt);
        let mut tried = 0;
        for place in ["sealift.toml", "sealift.signer", "sealift.state"] {
            for path in files(&self.dir.join("server").join(place))? {
                tried += 1;
                if let Ok(identities) = Identities::load(std::slice::from_ref(&path), &prompt)
                    && opens(&identities, &sealed)
                {
                    let text = format!("{} opens a backup", path.display());
                    return Err(Failure::from_error(text));
                }
            }
        }
        say(format_args!(
            "\nCould an intruder on the server read the off-site backups? Each of the {tried} files that Sealift has \
             there was\ntried as a key: none opens them."
        ))
    }

    fn compare(&self, restored: &Path) -> Result<(), Failure> {
        let snapshots = self.dir.join("server/atocore/backups/snapshots");
        let stamps = fs::read_dir(&snapshots)?.map(|entry| entry.map(|entry| entry.path()));
        let stamps: Vec<PathBuf> = stamps.collect::<Result<_, _>>()?;
        let newest = stamps.iter().max();
        let newest = newest.ok_or_else(|| Failure::from_error("the server has no snapshot"))?;
        let compared = same_trees(newest, restored)?;
        // A copy is opened, since opening a WAL database leaves files beside it.
        let copy = self.dir.join("checked.db");
        fs::copy(restored.join("db/atocore.db"), &copy)?;
        let accounts = check_database(&copy)?;
        say(format_args!(
            "  compared with the server's own snapshot: {compared} files, identical to the byte;\n  the database is \
             sound, and the money of its {accounts} accounts adds up"
        ))
    }

    /// Restores a second time with `age`, `zstd`, `ssh-keygen` and Python, if they are installed.
    fn with_stock_tools(&self, signer: &str) -> Result<(), Failure> {
        say("\nAnd without Sealift, with stock tools and a copy of the folder:")?;
        let tools = ["python3", "age", "zstd", "ssh-keygen"];
        let missing: Vec<&str> = tools.into_iter().filter(|tool| !is_on_path(tool)).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return say(format_args!("  (not shown: {missing} not installed here)"));
        }
        let arguments = format!(
            "key-holder/recover.py off-site/dalidou --identity key-holder/key.txt --signer {signer} --to \
             fresh-machine/by-hand"
        );
        self.command("python3", Path::new("python3"), &arguments)?;
        let (one, other) = ("fresh-machine/atocore", "fresh-machine/by-hand");
        let compared = same_trees(&self.dir.join(one), &self.dir.join(other))?;
        say(format_args!("  {compared} files, identical again"))
    }
}

/// Answers no prompt.
struct NoPrompt;

impl Prompt for NoPrompt {
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
