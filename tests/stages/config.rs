//! The configuration: what is accepted, what is refused with a useful word, and that what is in
//! `deploy/` is accepted.

mod notify;
mod procedure;

use std::path::{Path, PathBuf};

use sealift::config::{
    Check, Config, ConfigError, NewConfig, NewSource, NewSourceKind, NewTarget, Recipient, Source,
    SourceKind, render_new,
};

const RECIPIENT: &str = "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9";
const FILE: &str = "/etc/sealift/sealift.toml";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(FILE))
}

fn minimal(more: &str) -> String {
    format!(
        "host = \"dalidou\"\nrecipients = [\"{RECIPIENT}\"]\n\
         signer = \"/etc/sealift/signer\"\nstate = \"/var/lib/sealift\"\n{more}"
    )
}

fn refused(more: &str) -> String {
    match parse(&minimal(more)) {
        Ok(_) => panic!("accepted: {more}"),
        Err(error) => error.to_string(),
    }
}

fn source<'a>(config: &'a Config, name: &str) -> &'a Source {
    let found = config.sources.iter().find(|source| source.name == name);
    found.unwrap_or_else(|| panic!("no source {name}"))
}

/// DESIGN 9, word for word but for a recipient that is one.
#[test]
fn the_designs_example_is_accepted() {
    let text = format!(
        r#"
host = "dalidou"
recipients = ["{RECIPIENT}", "/etc/sealift/recipients.txt"]
signer = "/etc/sealift/signer"
state = "/var/lib/sealift"

[snapshots]
dir = "/srv/storage/atocore/backups/snapshots"
preset = "atocore"                 # expands to the sources below
root = "/srv/storage/atocore"

[[source]]                          # what the preset stands for, or your own
kind = "sqlite"                     # sqlite | json | tree | command | atocore (asks a running AtoCore)
path = "/srv/storage/atocore/data/db/atocore.db"
to = "db/atocore.db"
owner = "1000:1000"
mode = "0600"

[[source]]
kind = "tree"
path = "/srv/photos"
stage = false                       # read in place instead of copying into the snapshot

[[target]]
name = "s3"
url = "s3://bucket/prefix"          # s3, gs, az, https (WebDAV), file, rsync (ssh), sftp
endpoint = "https://s3.example.org"

[[target]]
name = "laptop"
url = "rsync://me@laptop:/backups"

[retention]                         # GFS, as the AtoCore procedure asks
daily = 7
weekly = 4                          # Sunday's
monthly = 6                         # the 1st's

[schedule]
backup = "0 6 * * *"                # cron, UTC; missed runs catch up
"#
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.host.as_str(), "dalidou");
    assert_eq!(
        config.recipients,
        [
            Recipient::Text(RECIPIENT.to_owned()),
            Recipient::File("/etc/sealift/recipients.txt".into())
        ]
    );
    let names: Vec<&str> = config.sources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["db", "registry", "chroma", "photos"]);
    assert_eq!(config.targets.len(), 2);
    let retention = config.retention.unwrap();
    let kept = (retention.daily, retention.weekly, retention.monthly);
    assert_eq!(kept, (7, 4, 6));
    let time = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let next_by = config.schedule.next_by(time("2026-04-07T06:00:10Z"));
    assert_eq!(next_by, Some(time("2026-04-08T12:00:00Z")));
}

#[test]
fn the_preset_expands_to_atocores_three() {
    let text = minimal("[snapshots]\npreset = \"atocore\"\nroot = \"/srv/atocore\"\n");
    let config = parse(&text).unwrap();
    assert_eq!(
        config.snapshots_dir,
        Path::new("/var/lib/sealift/snapshots")
    );
    let db = source(&config, "db");
    assert!(matches!(&db.kind, SourceKind::Sqlite { path }
        if path == Path::new("/srv/atocore/data/db/atocore.db")));
    assert_eq!(
        (db.to.as_str(), db.owner, db.mode),
        ("db/atocore.db", Some((1000, 1000)), Some(0o600))
    );
    assert!(!db.optional && !db.on_request);
    let registry = source(&config, "registry");
    assert!(matches!(&registry.kind, SourceKind::Json { path }
        if path == Path::new("/srv/atocore/config/project-registry.json")));
    assert!(registry.optional && registry.to == "config/project-registry.json");
    let chroma = source(&config, "chroma");
    let SourceKind::Tree(tree) = &chroma.kind else {
        panic!("{chroma:?}");
    };
    assert!(chroma.on_request && tree.stage && tree.check == Check::Strict);
    assert_eq!(tree.path, Path::new("/srv/atocore/data/chroma"));

    let always = text.replace("root =", "include_chroma = true\nroot =");
    assert!(!source(&parse(&always).unwrap(), "chroma").on_request);
    assert!(refused("[snapshots]\npreset = \"atocore\"\n").contains("`root`"));
    assert!(refused("[snapshots]\npreset = \"atacore\"\nroot = \"/x\"\n").contains("atacore"));
}

#[test]
fn unknown_keys_name_file_line_and_the_nearest() {
    let cases = [
        (
            "recipient = []\n",
            "sealift.toml:5",
            "did you mean \"recipients\"?",
        ),
        (
            "[snapshots]\ndirectory = \"/x\"\n",
            "sealift.toml:6",
            "did you mean \"dir\"?",
        ),
        (
            "[[source]]\nkind = \"tree\"\npath = \"/x\"\none-file-system = true\n",
            "sealift.toml:8",
            "did you mean \"one_file_system\"?",
        ),
        (
            "[[targets]]\nname = \"x\"\n",
            "sealift.toml:5",
            "did you mean \"target\"?",
        ),
        (
            "[retention]\nweekky = 4\n",
            "sealift.toml:6",
            "did you mean \"weekly\"?",
        ),
        (
            "[pack]\nzzzzzzzz = 4\n",
            "sealift.toml:6",
            "unknown key \"zzzzzzzz\"",
        ),
    ];
    for (more, place, word) in cases {
        let said = refused(more);
        assert!(
            said.contains(place) && said.contains(word),
            "{more}: {said}"
        );
    }
    assert!(!refused("[pack]\nzzzzzzzz = 4\n").contains("did you mean"));
}

/// Wherever it stands, an identity is refused, and not repeated.
#[test]
fn an_identity_is_refused_wherever_it_stands() {
    // Put together here, so that no scanner finds a text that looks like a key in this repository.
    let identity = format!("AGE-SECRET-{}-1{}", "KEY", "Q".repeat(58));
    let pem = format!("-----BEGIN OPENSSH {} KEY-----", "PRIVATE");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("identity.txt");
    std::fs::write(&file, format!("# public key: {RECIPIENT}\n{identity}\n")).unwrap();
    let listed = format!("recipients = [{:?}]", file.display().to_string());
    let cases = [
        minimal("identity = \"/root/key.txt\"\n"),
        minimal("[snapshots]\nidentities = [\"x\"]\n"),
        minimal(&format!(
            "[[source]]\nkind = \"command\"\nname = \"x\"\ncommand = [\"echo\", \"{identity}\"]\n"
        )),
        minimal(&format!(
            "[[target]]\nname = \"x\"\nurl = \"file:///{}\"\n",
            identity.to_lowercase()
        )),
        minimal("").replace(RECIPIENT, &identity),
        minimal("").replace(RECIPIENT, &pem),
        minimal("").replace(&format!("recipients = [\"{RECIPIENT}\"]"), &listed),
    ];
    for text in cases {
        let error = parse(&text).expect_err(&text);
        assert!(matches!(error, ConfigError::Identity { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("must never hold an identity"), "{said}");
        assert!(
            !said.contains(&identity) && !said.contains("BEGIN"),
            "{said}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let tree = |more: &str| format!("[[source]]\nkind = \"tree\"\npath = \"/x\"\n{more}");
    let cases = [
        (
            tree("mode = \"0600\"\n"),
            "has no effect for a source of kind \"tree\"",
        ),
        (tree("to = \"../x\"\n"), "is not a valid path in a snapshot"),
        (
            tree("to = \"backup-metadata.json\"\n"),
            "is not a valid path in a snapshot",
        ),
        (tree("stage = false\nlock = \"/x\"\n"), "guard the copying"),
        (
            tree("stage = false\ncheck = \"strict\"\n"),
            "needs a staged copy",
        ),
        (tree("") + &tree(""), "both go to"),
        (tree("to = \"a\"\n") + &tree("to = \"a/b\"\n"), "both go to"),
        (
            tree("") + &tree("to = \"y\"\nname = \"x\"\n"),
            "two sources are named",
        ),
        ("[[source]]\nkind = \"json\"\n".into(), "needs a `path`"),
        (
            "[[source]]\nkind = \"command\"\nname = \"x\"\n".into(),
            "needs a `command`",
        ),
        (
            "[[source]]\nkind = \"sqlit\"\npath = \"/x\"\n".into(),
            "did you mean \"sqlite\"?",
        ),
        (
            "[[target]]\nname = \"x\"\nurl = \"ftp://x\"\n".into(),
            "(known: s3, gs, az",
        ),
        (
            "[[target]]\nname = \"x\"\nurl = \"https://a:geheim@x/y\"\n".into(),
            "password in a URL",
        ),
        (
            "[[target]]\nname = \"x\"\nurl = \"file:///x\"\ndata_class = \"GLACIER\"\n".into(),
            "data_class: only s3, gs and az",
        ),
        (
            "[[target]]\nname = \"x\"\nurl = \"me@x:b\"\nclass = \"GLACIER\"\n".into(),
            " class: only s3, gs and az",
        ),
        (
            "[[target]]\nname = \"x\"\nurl = \"s3://x\"\nclass = \"a b\"\n".into(),
            "class: \"a b\" is not a storage class",
        ),
        ("[retention]\ndaily = 0\n".into(), "keeps nothing"),
        ("[retention]\nwithin = \"0s\"\n".into(), "is not an age"),
        ("[retention]\nwithin = \"0d\"\n".into(), "is not an age"),
        ("[retention]\nwithin = \"soon\"\n".into(), "is not an age"),
        // Of seconds, or of days? And are those minutes or months?
        ("[retention]\nwithin = 7\n".into(), "is not an age"),
        ("[retention]\nwithin = \"6m\"\n".into(), "is not an age"),
        ("[schedule]\nbackup = \"often\"\n".into(), "not a cron line"),
        ("[schedule]\nbackup = \"0 , * * *\"\n".into(), "never comes"),
        (
            "[schedule]\nbackup = \"0 6 31 2 *\"\n".into(),
            "never comes",
        ),
        (
            "[pack]\narchive_size = \"1KiB\"\n".into(),
            "between 1MiB and 4GiB",
        ),
        ("[pack]\nlevel = 23\n".into(), "between 1 and 22"),
    ];
    for (more, word) in cases {
        let said = refused(&more);
        assert!(said.contains(word), "{more}: {said}");
        assert!(!said.contains("geheim"), "{said}");
    }
    let without = minimal("").replace(&format!("\"{RECIPIENT}\""), "");
    let said = parse(&without).unwrap_err().to_string();
    assert!(said.contains("no recipients"), "{said}");
    let host = minimal("").replace("dalidou", "../dalidou");
    assert!(parse(&host).is_err());
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = minimal("[[source]]\nkind = \"tree\"\npath = \"../srv/x\"\n")
        .replace("/var/lib/sealift", "state");
    let config = Config::parse(&text, Path::new("/home/me/c/sealift.toml")).unwrap();
    assert_eq!(config.state, Path::new("/home/me/c/state"));
    let SourceKind::Tree(tree) = &source(&config, "x").kind else {
        panic!("no tree");
    };
    assert!(tree.stage, "staging is the default");
    assert_eq!(tree.path, Path::new("/home/me/c/../srv/x"));
}

/// What `init` writes, `backup` reads.
#[test]
fn a_rendered_configuration_is_read_back() {
    let target = |name: &str, url: &str| NewTarget {
        name: name.to_owned(),
        url: url.to_owned(),
        ..NewTarget::default()
    };
    let source = |kind, to: &str| NewSource {
        kind,
        to: to.to_owned(),
        name: None,
    };
    let tree = |path: &str| NewSourceKind::Tree(path.into(), vec!["*.tmp".to_owned()]);
    let new = NewConfig {
        host: "h".to_owned(),
        recipients: vec![RECIPIENT.to_owned()],
        signer: "/k/signer \"1\"".into(),
        state: "/k/state".into(),
        snapshots_dir: None,
        targets: vec![
            target("repo", "file:///repo"),
            NewTarget {
                endpoint: Some("https://s3.example.org".to_owned()),
                region: Some("eu-central-1".to_owned()),
                ..target("s3", "s3://bucket/x")
            },
            NewTarget {
                ssh: Some("ssh -i 'a key'".to_owned()),
                ..target("laptop", "rsync://me@laptop/b")
            },
        ],
        sources: vec![
            source(tree("/data"), "data"),
            source(tree("/other/data"), "data-2"),
            source(NewSourceKind::Sqlite("/srv/app.db".into()), "app.db"),
            source(NewSourceKind::Json("/srv/app.json".into()), "app.json"),
            source(
                NewSourceKind::Command("pg_dump \"x\"".to_owned()),
                "app.sql",
            ),
        ],
        preset: Some(("atocore".to_owned(), "/srv/atocore".into())),
        service: None,
        schedule: Some("0 6 * * *".to_owned()),
    };
    let text = render_new(&new);
    let config = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(config.signer, new.signer);
    let endpoints = config
        .targets
        .iter()
        .map(|target| target.endpoint.as_deref());
    let endpoints: Vec<Option<&str>> = endpoints.collect();
    assert_eq!(endpoints, [None, Some("https://s3.example.org"), None]);
    let ssh: Vec<Option<&str>> = config.targets.iter().map(|t| t.ssh.as_deref()).collect();
    assert_eq!(ssh, [None, None, Some("ssh -i 'a key'")]);
    let places: Vec<&str> = config.sources.iter().map(|s| s.to.as_str()).collect();
    assert_eq!(places.len(), 8, "{places:?}");
    let in_place = |s: &&Source| matches!(&s.kind, SourceKind::Tree(tree) if !tree.stage);
    assert_eq!(config.sources.iter().filter(in_place).count(), 2);
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn deployed(ending: &str) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(deploy()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {ending} in deploy/");
    files
}

#[test]
fn every_example_configuration_is_accepted() {
    for (path, text) in deployed(".toml") {
        let config = Config::parse(&text, Path::new(FILE));
        let config = config.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!config.sources.is_empty() && !config.targets.is_empty());
        assert!(config.retention.is_some() && !config.schedule.backup.is_empty());
        let lines = config.read_recipients().unwrap();
        let base = Path::new("/etc/sealift");
        sealift::packer::seal::Recipients::load(&lines, base).unwrap();
    }
    let (_, dalidou) = deployed("dalidou.toml").remove(0);
    let config = parse(&dalidou).unwrap();
    let chroma = source(&config, "chroma");
    assert!(chroma.on_request && chroma.before.is_some() && chroma.after.is_some());
    assert_eq!(config.sources.len(), 3);
}

/// Section, key, value of each directive.
fn directives(path: &Path, text: &str) -> Vec<(String, String, String)> {
    let mut section = None;
    let mut all = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = Some(name.to_owned());
            continue;
        }
        let what = format!("{}: {line}", path.display());
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{what}"));
        let section = section
            .clone()
            .unwrap_or_else(|| panic!("{what}: no section"));
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric()), "{what}");
        all.push((section, key.to_owned(), value.to_owned()));
    }
    all
}

fn value<'a>(all: &'a [(String, String, String)], section: &str, key: &str) -> Option<&'a str> {
    let found = all.iter().find(|(s, k, _)| s == section && k == key);
    found.map(|(_, _, value)| value.as_str())
}

#[test]
fn the_units_run_a_backup_daily_and_hide_no_exit_code() {
    let (path, text) = deployed(".service").remove(0);
    let service = directives(&path, &text);
    assert_eq!(value(&service, "Service", "Type"), Some("oneshot"));
    let start = value(&service, "Service", "ExecStart").unwrap();
    assert!(
        start.contains("/sealift ") && start.ends_with(" backup"),
        "{start}"
    );
    assert!(
        start.contains("--config /etc/sealift/sealift.toml"),
        "{start}"
    );
    assert_eq!(value(&service, "Service", "SuccessExitStatus"), None);
    assert!(!start.starts_with('-'), "a failure would not be seen");

    let (path, text) = deployed(".timer").remove(0);
    let timer = directives(&path, &text);
    assert_eq!(
        value(&timer, "Timer", "OnCalendar"),
        Some("*-*-* 06:00:00 UTC")
    );
    assert_eq!(value(&timer, "Timer", "Persistent"), Some("true"));
    assert_eq!(value(&timer, "Install", "WantedBy"), Some("timers.target"));
}

/// systemd's own opinion, where it is installed.
#[test]
fn systemd_takes_the_units() {
    // It wants the program to exist, so a stand-in takes its place.
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("systemd-analyze");
    command.arg("verify").arg("--man=no");
    for ending in [".service", ".timer"] {
        for (path, text) in deployed(ending) {
            let text = text.replace("/usr/local/bin/sealift", "/bin/true");
            let copy = dir.path().join(path.file_name().unwrap());
            std::fs::write(&copy, text).unwrap();
            command.arg(copy);
        }
    }
    match command.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => panic!("{e}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let ours = |line: &&str| line.contains("sealift");
            let complaints: Vec<&str> = said.lines().filter(ours).collect();
            assert!(complaints.is_empty(), "{complaints:#?}");
        }
    }
}

#[test]
fn the_cron_line_runs_a_backup_at_six() {
    let (path, text) = deployed(".cron").remove(0);
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let (settings, jobs): (Vec<&str>, Vec<&str>) = lines.partition(|line| {
        line.split_once('=')
            .is_some_and(|(key, _)| !key.contains(' '))
    });
    assert!(settings.contains(&"CRON_TZ=UTC"), "{}", path.display());
    let [job] = jobs.as_slice() else {
        panic!("{jobs:?}");
    };
    let words: Vec<&str> = job.split_whitespace().collect();
    assert_eq!(words[..6], ["0", "6", "*", "*", "*", "root"]);
    assert_eq!((words[6], *words.last().unwrap()), ("sealift", "backup"));
    assert!(
        text.ends_with('\n'),
        "cron ignores a last line without its end"
    );
}

#[test]
fn a_target_may_have_a_retention_of_its_own() {
    let text = minimal(
        "[[target]]\nname = \"a\"\nurl = \"file:///a\"\nretention = { daily = 30, within = \"2d\" }\n\n\
         [[target]]\nname = \"b\"\nurl = \"file:///b\"\n\n[retention]\ndaily = 7\n",
    );
    let config = parse(&text).unwrap();
    let daily = |at: usize| config.retention_of(&config.targets[at]).unwrap().daily;
    assert_eq!((daily(0), daily(1)), (30, 7));
    let within = config.targets[0].retention.unwrap().within;
    assert_eq!(within, Some(std::time::Duration::from_secs(172_800)));
    let error = parse(&text.replace("daily = 30", "dayly = 30")).unwrap_err();
    assert!(
        error.to_string().contains("did you mean \"daily\""),
        "{error}"
    );
}
