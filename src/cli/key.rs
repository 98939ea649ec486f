//! `key …`: commands for the key holder's machine. A host that backs up never needs them.

mod paper;
mod prove;
mod recipients;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use super::terminal::TerminalPrompt;
use crate::base::ids::Hash;
use crate::jobs::init::write_new_file;
use crate::jobs::recovery_files::RECOVER_PY;
use crate::keys::recipients::short;
use crate::packer::seal::Recipients;
use crate::restore::open::{self, ExposeSecret as _, FilePrompt, Identities, Prompt, SecretString};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make an identity and print its recipient
    Generate(GenerateArgs),
    /// Print the recipient of an identity
    Show(ShowArgs),
    /// Check that an identity can decrypt for these recipients
    Check(CheckArgs),
    /// Write a page with the identity, to print and put into a safe
    Paper(paper::PaperArgs),
    /// Show which recipients decrypt which snapshots on a target
    Recipients(recipients::RecipientsArgs),
    /// Show that an identity exists: open the newest snapshot's index, and leave a signed receipt
    Prove(Box<prove::ProveArgs>),
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Where to write the identity (0600); recover.py goes beside it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Encrypt the identity file with a passphrase (from the terminal, or $SEALIFT_PASSPHRASE_FILE)
    #[arg(long)]
    passphrase: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// An identity file: age, age with a passphrase, or an OpenSSH key
    #[arg(value_name = "FILE")]
    identity: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// An identity file; can be repeated
    #[arg(long, short, value_name = "FILE", required = true)]
    identity: Vec<PathBuf>,
    /// Recipients, or files of them [default: those of the config]
    #[arg(value_name = "RECIPIENT")]
    recipients: Vec<String>,
}

/// What `key generate` made.
#[derive(Debug, Serialize)]
struct GeneratedKey {
    /// The path of the identity.
    identity: String,
    recipient: String,
    /// The path of the recovery script.
    recover_py: String,
    recover_py_sha256: Hash,
}

/// The recipients of an identity file.
#[derive(Debug, Serialize)]
struct ShownRecipients<'a> {
    recipients: &'a [String],
}

/// What `key check` found.
#[derive(Debug, Serialize)]
struct CheckedRecipients {
    recipients: Vec<CheckedRecipient>,
}

/// A recipient, and whether the identities open what is sealed to it.
#[derive(Debug, Serialize)]
struct CheckedRecipient {
    recipient: String,
    opens: bool,
}

pub(super) fn run(context: &Context, command: &KeyCommand) -> Result<Outcome, Failure> {
    match command {
        KeyCommand::Generate(args) => generate(context, args),
        KeyCommand::Show(args) => show(context, args),
        KeyCommand::Check(args) => check(context, args),
        KeyCommand::Paper(args) => paper::run(context, args),
        KeyCommand::Recipients(args) => recipients::run(context, args),
        KeyCommand::Prove(args) => prove::run(context, args),
    }
}

/// Returns the prompt for passphrases: a file if the environment names one, else the terminal.
pub(super) fn prompt() -> Arc<dyn Prompt> {
    FilePrompt::from_env(Arc::new(TerminalPrompt))
}

fn generate(context: &Context, args: &GenerateArgs) -> Result<Outcome, Failure> {
    let (text, recipient) = open::generate();
    let file = match args.passphrase {
        true => open::seal_with_passphrase(&text, new_passphrase()?)?.into(),
        false => Zeroizing::new(text.as_bytes().to_vec()),
    };
    write_new_file(&args.output, &file, 0o600)?;
    let script = place_recovery_script(&args.output)?;
    let script_sha256 = Hash::sha256(RECOVER_PY);
    context.note(format_args!(
        "identity: {} (keep it off the server, and a copy on paper; without it nothing can be restored)\n\
         recovery without Sealift: {} (sha256 {script_sha256}; write that down too)\n\
         recipient, for the server's config:",
        args.output.display(),
        script.display(),
    ));
    if context.json {
        output::print_json(&GeneratedKey {
            identity: args.output.display().to_string(),
            recipient,
            recover_py: script.display().to_string(),
            recover_py_sha256: script_sha256,
        })?;
    } else {
        output::print_line(&recipient)?;
    }
    Ok(Outcome::Complete)
}

/// Asks for a passphrase twice on a terminal. A passphrase from a file is used as it is.
fn new_passphrase() -> Result<SecretString, Failure> {
    let missing = || {
        Failure::usage("no passphrase: there is no terminal to ask on")
            .hint(super::failure::NO_TERMINAL)
    };
    let prompt = prompt();
    let first = prompt
        .passphrase("Passphrase for the identity")
        .ok_or_else(missing)?;
    let second = prompt.passphrase("The same again").ok_or_else(missing)?;
    if first.expose_secret() != second.expose_secret() {
        return Err(Failure::usage(
            "the two passphrases differ; nothing was written",
        ));
    }
    if first.expose_secret().is_empty() {
        return Err(Failure::usage(
            "the passphrase is empty; nothing was written",
        ));
    }
    Ok(first)
}

/// Puts `recover.py` beside the identity: an attacker who can write a target cannot write there.
fn place_recovery_script(identity: &Path) -> Result<PathBuf, Failure> {
    let script = identity.with_file_name("recover.py");
    match std::fs::read(&script) {
        Ok(there) if there == RECOVER_PY => Ok(script),
        Ok(_) => {
            let other = identity.with_file_name("recover-v4.py");
            if std::fs::read(&other).is_ok_and(|there| there == RECOVER_PY) {
                return Ok(other);
            }
            write_new_file(&other, RECOVER_PY, 0o755)?;
            Ok(other)
        }
        Err(_) => {
            write_new_file(&script, RECOVER_PY, 0o755)?;
            Ok(script)
        }
    }
}

fn show(context: &Context, args: &ShowArgs) -> Result<Outcome, Failure> {
    let identities = Identities::load(std::slice::from_ref(&args.identity), &prompt())?;
    let recipients = identities.recipients();
    if recipients.is_empty() {
        return Err(Failure::from_error(format!(
            "{} does not contain its recipient (it is a plugin's identity or an SSH key)",
            args.identity.display()
        ))
        .hint("the plugin prints it; for an SSH key it is the .pub file"));
    }
    if context.json {
        output::print_json(&ShownRecipients { recipients })?;
    } else {
        for recipient in recipients {
            output::print_line(recipient)?;
        }
    }
    Ok(Outcome::Complete)
}

fn check(context: &Context, args: &CheckArgs) -> Result<Outcome, Failure> {
    let (texts, base) = match args.recipients.is_empty() {
        false => (args.recipients.clone(), PathBuf::from(".")),
        true => {
            let config = context.load_config()?;
            let lines = config.read_recipients().map_err(Failure::usage)?;
            (lines, PathBuf::from("."))
        }
    };
    let all = Recipients::load(&texts, &base).map_err(Failure::usage)?;
    let identities = Identities::load(&args.identity, &prompt())?;
    let mut checked = CheckedRecipients {
        recipients: Vec::new(),
    };
    for text in all.texts() {
        let one = Recipients::load(std::slice::from_ref(text), &base)?;
        let sealed = one.seal_bytes(b"sealift key check")?;
        checked.recipients.push(CheckedRecipient {
            recipient: text.clone(),
            opens: open::opens(&identities, &sealed),
        });
    }
    if context.json {
        output::print_json(&checked)?;
    } else {
        for CheckedRecipient { recipient, opens } in &checked.recipients {
            let verdict = if *opens { "opens" } else { "does not open" };
            output::print_line(format_args!("{verdict}  {}", short(recipient)))?;
        }
    }
    match checked.recipients.iter().any(|one| one.opens) {
        true => Ok(Outcome::Complete),
        false => Err(Failure::from_error(
            "the identity opens nothing that is sealed to these recipients",
        )),
    }
}
