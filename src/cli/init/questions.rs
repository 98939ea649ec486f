//! The questions of `init`, one for each setting that is missing. An answer that is not valid is
//! asked for again, with the reason.

use std::path::{Path, PathBuf};

use super::super::failure::Failure;
use super::super::setup_args::{ServerArgs, SourceArgs, is_database};
use super::{InitArgs, refuse_private_keys};
use crate::base::ids::HostName;
use crate::config::parse_cron;
use crate::packer::seal::Recipients;

/// Someone who answers.
pub(super) trait Ask {
    /// Returns the answer, without surrounding blanks. `None` if there are no more answers.
    fn ask(&mut self, prompt: &str) -> Result<Option<String>, Failure>;
    /// Prints an explanation.
    fn say(&mut self, text: &str);
}

const RECIPIENT: &str = "\nRecipient: the public key that the backups are encrypted to; only the identity that belongs to it can decrypt\n\
     them. To make one, run this on the key holder's machine, not here: sealift key generate --output key.txt";
const SOURCES: &str =
    "\nWhat to back up: a directory, a SQLite database or a JSON file; one path per line.";
const TARGETS: &str = "\nWhere to back up to: s3://BUCKET/PREFIX, sftp://USER@HOST/PATH, rsync://USER@HOST/PATH, https://... (WebDAV), or the\n\
     path of a folder on another disk.";
const SCHEDULE: &str = "\nWhen backups are due: a cron line in UTC, such as 0 6 * * * for each day at 06:00; `status` reports a late one.\n\
     A timer or cron runs them (deploy/ has both).";
const SERVICE: &str = "\nHow AtoCore is stopped and started: `sealift restore --in-place` does so around the exchange of the data.";
/// The schedule by default.
const DAILY: &str = "0 6 * * *";

/// Returns `args` with an answer for each setting that is missing.
pub(super) fn ask_for_missing(
    args: &InitArgs,
    default_host: Option<String>,
    config: &Path,
    ask: &mut dyn Ask,
) -> Result<InitArgs, Failure> {
    let mut args = args.clone();
    ask.say(&format!(
        "This sets up {}. Enter takes what is in brackets; Ctrl-C stops, and nothing is written.",
        config.display()
    ));
    if args.host.is_none() {
        args.host = Some(host(default_host.as_deref(), ask)?);
    }
    if args.recipient.is_empty() {
        ask.say(RECIPIENT);
        args.recipient = recipients(config, ask)?;
    }
    if args.sources.is_empty() && args.preset.is_none() {
        ask.say(SOURCES);
        args.sources = sources(&args.sources, ask)?;
    }
    if args.target.is_empty() {
        ask.say(TARGETS);
        (args.target, args.server) = targets(&args.server, ask)?;
    }
    args = ask_for_service(args, ask)?;
    if args.schedule.is_none() {
        ask.say(SCHEDULE);
        args.schedule = schedule(ask)?;
    }
    Ok(args)
}

/// Returns `args` with what starts and stops the preset's application, if it has one.
pub(super) fn ask_for_service(mut args: InitArgs, ask: &mut dyn Ask) -> Result<InitArgs, Failure> {
    if args.preset.is_none() || args.compose.is_some() || args.unit.is_some() {
        return Ok(args);
    }
    ask.say(SERVICE);
    let names = [
        "compose.yaml",
        "compose.yml",
        "docker-compose.yaml",
        "docker-compose.yml",
    ];
    let root = args.root.clone().unwrap_or_default();
    let found = names
        .iter()
        .map(|name| root.join(name))
        .find(|file| file.is_file());
    let default = found.map(|file| file.display().to_string());
    let default = default.as_deref().unwrap_or("none");
    let label = "Compose file or systemd unit of AtoCore, or none";
    until(ask, label, Some(default), |answer| {
        let is_path = answer.contains('/') || Path::new(answer).is_file();
        args.compose = is_path.then(|| PathBuf::from(answer));
        args.unit = (!is_path && answer != "none").then(|| answer.to_owned());
        super::service(&args).map(drop)
    })?;
    Ok(args)
}

/// Asks until `read` takes the answer, which is `default` if it is empty.
fn until<T>(
    ask: &mut dyn Ask,
    label: &str,
    default: Option<&str>,
    mut read: impl FnMut(&str) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let prompt = match default {
        Some(default) => format!("{label} [{default}]:"),
        None => format!("{label}:"),
    };
    loop {
        let answer = ask.ask(&prompt)?;
        let answer = answer.ok_or_else(|| {
            Failure::usage("the answers ended before init had all it needs; nothing was written")
        })?;
        refuse_private_keys(std::slice::from_ref(&answer))?;
        let answer = match (answer.is_empty(), default) {
            (true, Some(default)) => default,
            _ => &answer,
        };
        match read(answer) {
            Ok(value) => return Ok(value),
            Err(error) => ask.say(&format!("  {error}")),
        }
    }
}

fn host(default: Option<&str>, ask: &mut dyn Ask) -> Result<String, Failure> {
    until(
        ask,
        "\nName for this machine's backups",
        default,
        |answer| {
            let parsed: Result<HostName, _> = answer.parse();
            parsed.map(|host| host.to_string()).map_err(Failure::usage)
        },
    )
}

fn recipients(config: &Path, ask: &mut dyn Ask) -> Result<Vec<String>, Failure> {
    let beside = ["recipients.txt", "recipient.txt"].map(|name| config.with_file_name(name));
    let found = beside.iter().find(|path| path.is_file());
    let default = found.map(|path| path.display().to_string());
    let read = |answer: &str| {
        // The answer is not repeated: it may be a part of a secret.
        let wrong = || {
            Failure::usage(
                "that is no recipient (age1..., ssh-ed25519 ..., ssh-rsa ...) and no file of them",
            )
        };
        let texts = [answer.to_owned()];
        let loaded = Recipients::load(&texts, Path::new("."));
        loaded.map(|_| answer.to_owned()).map_err(|_| wrong())
    };
    let first = until(
        ask,
        "Recipient (age1... or a file)",
        default.as_deref(),
        read,
    )?;
    let mut all = vec![first];
    while let Some(more) = until(
        ask,
        "Another recipient, such as a spare key [none]",
        None,
        |answer| match answer {
            "" | "none" => Ok(None),
            answer => read(answer).map(Some),
        },
    )? {
        all.push(more);
    }
    Ok(all)
}

fn sources(given: &SourceArgs, ask: &mut dyn Ask) -> Result<SourceArgs, Failure> {
    let mut sources = given.clone();
    let default = match rustix::process::geteuid().is_root() {
        true => Some(PathBuf::from("/etc")),
        false => std::env::home_dir(),
    };
    let default = default.filter(|dir| dir.is_dir() && dir.parent().is_some());
    let default = default.map(|dir| dir.display().to_string());
    until(ask, "Path", default.as_deref(), |answer| {
        add_source(&mut sources, answer)
    })?;
    while until(ask, "Another path [none]", None, |answer| match answer {
        "" | "none" => Ok(false),
        answer => add_source(&mut sources, answer).map(|()| true),
    })? {}
    Ok(sources)
}

/// Adds what is at the path `answer`, as the kind of source that it is.
fn add_source(sources: &mut SourceArgs, answer: &str) -> Result<(), Failure> {
    let mut more = SourceArgs::default();
    let path = PathBuf::from(answer);
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let list = match is_database(&path) {
        _ if answer.is_empty() => return Err(Failure::usage("give a path")),
        Some(true) => &mut more.sqlite,
        _ if is_json => &mut more.json_file,
        Some(false) => {
            return Err(Failure::usage(format!(
                "{answer} is no SQLite database and no .json file; give its directory"
            )));
        }
        None => &mut more.tree,
    };
    list.push(path);
    more.sources(Vec::new())?;
    sources.sqlite.extend(more.sqlite);
    sources.json_file.extend(more.json_file);
    sources.tree.extend(more.tree);
    Ok(())
}

fn targets(given: &ServerArgs, ask: &mut dyn Ask) -> Result<(Vec<String>, ServerArgs), Failure> {
    let mut server = given.clone();
    let mut all: Vec<String> = Vec::new();
    loop {
        let label = match all.is_empty() {
            true => "Target",
            false => "Another target [none]",
        };
        let target = until(ask, label, None, |answer| match answer {
            "" | "none" if all.is_empty() => Err(Failure::usage("a backup needs a target")),
            "" | "none" => Ok(None),
            answer => {
                let texts = [&all[..], &[answer.to_owned()]].concat();
                ServerArgs::default().targets(&texts, &[])?;
                Ok(Some(answer.to_owned()))
            }
        })?;
        let Some(target) = target else { break };
        all.push(target);
        let is_s3 = |text: &String| text.contains("s3://");
        if all.last().is_some_and(is_s3) && server.endpoint.is_none() {
            let label = "Endpoint of the S3 server, such as https://s3.example.org";
            let endpoint = until(ask, label, Some("Amazon's"), |answer| match answer {
                "Amazon's" => Ok(None),
                answer => {
                    let server = ServerArgs {
                        endpoint: Some(answer.to_owned()),
                        ..ServerArgs::default()
                    };
                    server.targets(&all, &[])?;
                    Ok(Some(answer.to_owned()))
                }
            })?;
            server.endpoint = endpoint;
        }
    }
    Ok((all, server))
}

fn schedule(ask: &mut dyn Ask) -> Result<Option<String>, Failure> {
    until(
        ask,
        "Schedule, or none",
        Some(DAILY),
        |answer| match answer {
            "none" | "no" => Ok(None),
            answer => match parse_cron(answer) {
                Ok(_) => Ok(Some(answer.to_owned())),
                Err(what) => Err(Failure::usage(what)),
            },
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers from a list, and notes all that is printed.
    struct Script {
        answers: std::vec::IntoIter<String>,
        said: String,
    }

    impl Ask for Script {
        fn ask(&mut self, prompt: &str) -> Result<Option<String>, Failure> {
            self.say(prompt);
            Ok(self.answers.next())
        }

        fn say(&mut self, text: &str) {
            self.said += text;
            self.said.push('\n');
        }
    }

    fn script(answers: &[&str]) -> Script {
        let answers: Vec<String> = answers.iter().map(|text| (*text).to_owned()).collect();
        Script {
            answers: answers.into_iter(),
            said: String::new(),
        }
    }

    const RECIPIENT: &str = "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9";

    fn no_args() -> InitArgs {
        InitArgs {
            host: None,
            recipient: Vec::new(),
            target: Vec::new(),
            server: ServerArgs::default(),
            sources: SourceArgs::default(),
            preset: None,
            root: None,
            compose: None,
            unit: None,
            snapshots_dir: None,
            schedule: None,
        }
    }

    #[test]
    fn wrong_answers_are_asked_for_again_with_the_reason() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name).display().to_string();
        std::fs::write(path("a.json"), "{}").unwrap();
        std::fs::write(path("a.txt"), "text").unwrap();
        let (json, text, data) = (path("a.json"), path("a.txt"), path(""));
        let mut script = script(&[
            "no name at all",
            "dalidou",
            "age1nonsense",
            RECIPIENT,
            "",
            &text,
            &json,
            "/nowhere/at/all",
            &data,
            "",
            "",
            "gopher://x",
            "s3://bucket/x",
            "not a server",
            "https://s3.example.org",
            "none",
            "0 6 * *",
            "",
        ]);
        let config = temp.path().join("c.toml");
        let args = ask_for_missing(&no_args(), Some("h".to_owned()), &config, &mut script).unwrap();
        assert_eq!(script.answers.next(), None, "{}", script.said);
        assert_eq!(args.host.as_deref(), Some("dalidou"));
        assert_eq!(args.recipient, [RECIPIENT]);
        assert_eq!(args.sources.json_file, [PathBuf::from(json)]);
        assert_eq!(args.sources.tree, [PathBuf::from(data)]);
        assert_eq!(args.target, ["s3://bucket/x"]);
        assert_eq!(
            args.server.endpoint.as_deref(),
            Some("https://s3.example.org")
        );
        assert_eq!(args.schedule.as_deref(), Some(DAILY));
        for reason in [
            "sealift key generate",
            "that is no recipient",
            "give its directory",
            "is not a directory",
            "gopher",
            "a backup needs a target",
            "is not a cron line",
        ] {
            assert!(script.said.contains(reason), "{reason}\n{}", script.said);
        }
        assert!(!script.said.contains("age1nonsense"), "{}", script.said);
    }

    #[test]
    fn a_private_key_ends_the_questions_and_is_not_repeated() {
        let key = "AGE-SECRET-KEY-1QQQQ";
        let mut script = script(&["", key]);
        let config = Path::new("/nowhere/c.toml");
        let failure = ask_for_missing(&no_args(), Some("h".to_owned()), config, &mut script);
        let failure = format!("{:?}", failure.unwrap_err());
        assert!(failure.contains("must never hold it"), "{failure}");
        assert!(!failure.contains("1QQQQ") && !script.said.contains("1QQQQ"));
    }
}
