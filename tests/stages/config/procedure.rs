//! What the configuration says about AtoCore's procedure: the source kind `atocore`, `{snapshot}`, and what the preset
//! brings to `[restore]` and the checks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift::config::{Config, Fallback, PostCheckKind, Preserve, ServiceControl, render_new};

use super::{NewConfig, minimal, parse, refused, source};

const PRESET: &str = "[snapshots]\npreset = \"atocore\"\nroot = \"/srv/atocore\"\n";

fn asking(keys: &str) -> String {
    format!("{PRESET}[[source]]\nkind = \"atocore\"\nurl = \"http://127.0.0.1:8100\"\n{keys}")
}

#[test]
fn a_running_atocore_is_a_source_beside_the_presets() {
    let config = parse(&minimal(&asking(""))).unwrap();
    assert_eq!(config.sources.len(), 3);
    let atocore = config.atocore.unwrap();
    assert_eq!(
        (atocore.name.as_str(), atocore.url.as_str()),
        ("atocore", "http://127.0.0.1:8100")
    );
    assert_eq!(
        (atocore.fallback, atocore.timeout),
        (Fallback::Local, Duration::from_secs(600))
    );
    assert!(!atocore.include_chroma && !atocore.insecure && atocore.allow_root.is_none());
    let config = parse(&minimal(&asking(
        "token_file = \"token\"\nfallback = \"fail\"\ntimeout = \"90s\"\ninclude_chroma = true\n\
         root_map = [\"/app:/srv\", \"/app/backups:/other\"]\nallow_root = \"/other/snapshots\"\nname = \"a\"\n",
    )));
    let atocore = config.unwrap().atocore.unwrap();
    assert_eq!(
        atocore.token_file,
        Some(PathBuf::from("/etc/sealift/token"))
    );
    assert_eq!(atocore.fallback, Fallback::Fail);
    // The longest directory counts, and only whole components.
    for (inside, outside) in [
        ("/app/backups/snapshots/x", "/other/snapshots/x"),
        ("/app/data", "/srv/data"),
        ("/application/x", "/application/x"),
    ] {
        assert_eq!(atocore.on_this_host(Path::new(inside)), Path::new(outside));
    }
}

#[test]
fn a_source_that_asks_atocore_is_refused_with_the_reason() {
    let more = |keys: &str| refused(&asking(keys));
    for (text, reason) in [
        (more("path = \"/x\"\n"), "\"path\" has no effect"),
        (more("before = \"x\"\n"), "\"before\" has no effect"),
        (more("stage = false\n"), "\"stage\" has no effect"),
        (more("owner = \"1:1\"\n"), "\"owner\" has no effect"),
        (more("fallback = \"no\"\n"), "\"local\" or \"fail\""),
        (more("root_map = [\"/app\"]\n"), "root_map"),
        (more("root_map = [\"app:/srv\"]\n"), "root_map"),
        (more("root_map = [\"/app:/srv/../etc\"]\n"), "root_map"),
        (
            more("[[source]]\nkind = \"atocore\"\nurl = \"https://x\"\n"),
            "a second source",
        ),
        (
            more("[[source]]\nkind = \"tree\"\npath = \"/etc\"\n"),
            "the source \"etc\" would be missing",
        ),
        (more("name = \"db\"\n"), "two sources are named"),
        (
            refused(&asking("").replace(PRESET, "")),
            "preset = \"atocore\"",
        ),
        (
            refused(&asking("").replace("http://127.0.0.1:8100", "http://dalidou:8100")),
            "`insecure = true`",
        ),
        (refused(&asking("").replace("8100", "8100/?x")), "not a URL"),
        (
            refused(&asking("").replace("url = \"http://127.0.0.1:8100\"", "")),
            "needs a `url`",
        ),
        (
            refused("[[source]]\nkind = \"tree\"\npath = \"/x\"\nurl = \"https://x\"\n"),
            "\"url\" has no effect for a source of kind \"tree\"",
        ),
    ] {
        assert!(text.contains(reason), "{reason}\n{text}");
    }
    let insecure = asking("insecure = true\n").replace("127.0.0.1", "dalidou");
    assert!(
        parse(&minimal(&insecure))
            .unwrap()
            .atocore
            .unwrap()
            .insecure
    );
    // The preset's own sources may be said in full.
    let chroma = "[[source]]\nkind = \"tree\"\npath = \"/c\"\nto = \"chroma\"\nbefore = \"x\"\n";
    assert!(parse(&minimal(&asking(chroma))).is_ok());
}

#[test]
fn the_preset_brings_the_procedures_checks_and_defaults() {
    let config = parse(&minimal(PRESET)).unwrap();
    assert_eq!(
        config.restore.base_url.as_deref(),
        Some("http://127.0.0.1:8100")
    );
    assert_eq!(
        config.restore.preserve_dir,
        Some(PathBuf::from("/srv/atocore/backups"))
    );
    assert_eq!(config.restore.preserve, Preserve::Move);
    let names = |config: &Config| -> Vec<String> {
        config
            .checks
            .iter()
            .map(|check| check.name.clone())
            .collect()
    };
    assert_eq!(
        names(&config),
        ["healthy", "documents", "projects", "context"]
    );
    for check in &config.checks {
        assert!(check.in_restore && check.in_drill && !check.explain.is_empty());
    }
    // A check of the same name replaces one, and others come after them.
    let own = "[restore]\nbase_url = \"http://127.0.0.1:9/\"\npreserve_dir = \"/safe\"\n\
               [[check]]\nname = \"context\"\ncommand = \"true\"\n[[check]]\nname = \"own\"\ncommand = \"true\"\n";
    let config = parse(&minimal(&format!("{PRESET}{own}"))).unwrap();
    assert_eq!(
        names(&config),
        ["healthy", "documents", "projects", "context", "own"]
    );
    assert!(matches!(config.checks[3].kind, PostCheckKind::Command(_)));
    assert_eq!(
        config.restore.base_url.as_deref(),
        Some("http://127.0.0.1:9")
    );
    assert_eq!(config.restore.preserve_dir, Some(PathBuf::from("/safe")));
    // Where AtoCore is asked for snapshots, it is checked, too.
    let config = parse(&minimal(&asking("").replace("8100", "8200"))).unwrap();
    assert_eq!(
        config.restore.base_url.as_deref(),
        Some("http://127.0.0.1:8200")
    );
    assert!(parse(&minimal("")).unwrap().checks.is_empty());
}

#[test]
fn the_effective_configuration_shows_what_the_preset_brings() {
    let text = minimal(&format!(
        "{PRESET}[[check]]\nname = \"context\"\ncommand = \"true\"\n"
    ));
    let settings = Config::settings(&text, Path::new(super::FILE)).unwrap();
    let values = |table: &str, key: &str| -> Vec<(usize, &str)> {
        let found = settings
            .iter()
            .filter(|one| one.table == table && one.key == key);
        found.map(|one| (one.index, one.value.as_str())).collect()
    };
    assert_eq!(
        values("check", "name"),
        [
            (0, "\"context\""),
            (1, "\"healthy\""),
            (2, "\"documents\""),
            (3, "\"projects\"")
        ]
    );
    assert_eq!(
        values("restore", "base_url"),
        [(0, "\"http://127.0.0.1:8100\"")]
    );
    assert_eq!(
        values("restore", "preserve_dir"),
        [(0, "\"/srv/atocore/backups\"")]
    );
    assert_eq!(
        values("check", "expect")[0].1,
        "{ json = { \"/status\" = { eq = \"ok\" } } }"
    );
    // Each table is shown once, in one piece.
    let mut tables: Vec<(&str, usize)> = settings
        .iter()
        .map(|one| (one.table.as_str(), one.index))
        .collect();
    tables.dedup();
    let all = tables.len();
    tables.sort_unstable();
    tables.dedup();
    assert_eq!(tables.len(), all);
}

#[test]
fn a_path_of_a_snapshot_needs_a_before_that_prints_it() {
    let tree = |path: &str, more: &str| {
        format!("[[source]]\nkind = \"tree\"\npath = \"{path}\"\nto = \"data\"\n{more}")
    };
    let before = "before = \"x\"\n";
    let config = parse(&minimal(&tree("{snapshot}/data", before))).unwrap();
    let found = source(&config, "data");
    assert!(found.is_of_snapshot());
    let made = found.of_snapshot("/mnt/snap");
    assert_eq!(made.path(), Some(Path::new("/mnt/snap/data")));
    let named = parse(&minimal(&tree("/mnt/{snapshot}/data", before))).unwrap();
    let made = source(&named, "data").of_snapshot("one");
    assert_eq!(made.path(), Some(Path::new("/mnt/one/data")));
    for (text, reason) in [
        (tree("{snapshot}/data", ""), "there is no `before`"),
        (tree("mnt/{snapshot}", before), "must begin with"),
    ] {
        let text = refused(&text);
        assert!(text.contains(reason), "{text}");
    }
    let plain = parse(&minimal(&tree("/data", before))).unwrap();
    assert!(!source(&plain, "data").is_of_snapshot());
}

/// The commands that `init` writes are commands of the shell or lists of words, whatever the path.
#[test]
fn what_init_writes_for_the_service_is_read_back() {
    let services = [
        (
            Some(ServiceControl::Compose("/srv/ato core/it's.yaml".into())),
            Some("docker compose -f /srv/ato core/it's.yaml stop atocore"),
            Some("test -z \"$(docker compose -f '/srv/ato core/it'\\''s.yaml' ps -q atocore)\""),
        ),
        (
            Some(ServiceControl::Unit("atocore@1.service".to_owned())),
            Some("systemctl stop atocore@1.service"),
            Some("! systemctl is-active --quiet atocore@1.service"),
        ),
        (None, None, None),
    ];
    for (service, stop, stopped) in services {
        let text = render_new(&NewConfig {
            host: "h".to_owned(),
            recipients: vec![super::RECIPIENT.to_owned()],
            signer: "/k/signer".into(),
            state: "/k/state".into(),
            preset: Some(("atocore".to_owned(), "/srv/atocore".into())),
            service,
            ..NewConfig::default()
        });
        let restore = parse(&text)
            .unwrap_or_else(|e| panic!("{e}\n{text}"))
            .restore;
        let shown =
            |line: &Option<sealift::config::CommandLine>| line.as_ref().map(ToString::to_string);
        assert_eq!(shown(&restore.stop).as_deref(), stop, "{text}");
        assert_eq!(shown(&restore.stopped).as_deref(), stopped, "{text}");
        assert_eq!(restore.start.is_some(), stop.is_some());
        // The example is a comment that can be used as it is.
        if stop.is_none() {
            let filled = text.replace("# stop", "stop").replace("# start", "start");
            assert!(parse(&filled).unwrap().restore.stop.is_some(), "{filled}");
        }
    }
}
