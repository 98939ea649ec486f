//! Set-up and its changes: `init` with its questions, `source`, `target`, `config check`, `backup --dry-run`.

mod dry_run;
mod questions;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::process::geteuid;

use crate::support::files::{mode_of, set_mode};
use crate::support::host::Host;

const DATABASE: &str =
    "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('create table t(x)')";

fn database(host: &Host, name: &str) {
    let path = host.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let made = std::process::Command::new("python3")
        .args(["-c", DATABASE])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
}

#[test]
fn init_takes_each_kind_of_source_and_they_are_backed_up() {
    let arguments = [
        "--tree",
        "data",
        "--sqlite",
        "a/app.db",
        "--sqlite",
        "b/app.db",
        "--json-file",
        "app.json",
        "--command",
        "dump.sql=echo a=b",
    ];
    let prepare = |dir: &std::path::Path| {
        for name in ["a/app.db", "b/app.db"] {
            let path = dir.join(name);
            fs::create_dir(path.parent().unwrap()).unwrap();
            let made = std::process::Command::new("python3")
                .args(["-c", DATABASE])
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
        }
        fs::write(dir.join("app.json"), "{}").unwrap();
    };
    let host = Host::prepared(prepare, &arguments);
    host.backup();
    let out = host.restore("latest", "out");
    for name in ["app.db", "app-2.db", "app.json"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read_to_string(out.join("dump.sql")).unwrap(), "a=b\n");
}

/// The file is the same to the byte again; it stays a link to a file of the same mode.
#[test]
fn what_is_added_to_the_configuration_is_removed_again() {
    let host = Host::new();
    let real = host.path("real.toml");
    let path = host.path("c.toml");
    let text = format!("{}\n# The end", host.config());
    fs::write(&real, &text).unwrap();
    fs::remove_file(&path).unwrap();
    symlink("real.toml", &path).unwrap();
    set_mode(&real, 0o640);
    database(&host, "a/app.db");
    database(&host, "b/app.db");

    let added = host.json(&[
        "source", "add", "--sqlite", "a/app.db", "--sqlite", "b/app.db",
    ]);
    assert_eq!(added["added"], serde_json::json!(["app_db", "app-2_db"]));
    let added = host.json(&["target", "add", "second"]);
    assert_eq!(added["added"], serde_json::json!(["folder-2"]));
    assert_eq!(added["targets"][0]["writes"], true);
    host.backup();
    assert!(host.path("second/dalidou/manifests").is_dir());

    let (out, err) = host.exits(&["target", "remove", "folder-2"], 0);
    assert!(out.contains("removed  folder-2"), "{out}");
    assert!(err.contains("nothing was deleted at file://"), "{err}");
    assert!(!err.contains("no other target"), "{err}");
    for name in ["app_db", "app-2_db"] {
        host.ok(&["source", "remove", name]);
    }
    assert_eq!(fs::read_to_string(&real).unwrap(), text);
    assert_eq!(mode_of(&real), 0o640);
    assert!(path.symlink_metadata().unwrap().is_symlink());
    assert!(host.path("second/dalidou/manifests").is_dir());

    // The only target: what it alone has is counted.
    let removed = host.json(&["target", "remove", "folder"]);
    assert_eq!(removed["snapshots_only_there"], 1);
    assert_eq!(removed["targets_left"], 0);
    // It is known again under its old name, and its snapshots are no obstacle.
    let repo = format!("folder={}", host.path("repo").display());
    let added = host.json(&["target", "add", &repo]);
    assert_eq!(added["targets"][0]["snapshots"], 1);
    host.backup();
}

#[test]
fn a_configuration_that_cannot_be_replaced_is_left_and_the_lines_are_printed() {
    if geteuid().is_root() && !host_can_drop_rights() {
        return;
    }
    let host = Host::new();
    let before = host.config();
    set_mode(&host.path("c.toml"), 0o444);
    let output = as_user(&host, &["target", "add", "off=/tmp/nowhere-else"]);
    assert_eq!(output.0, 2, "{}", output.1);
    for part in [
        "cannot replace",
        "[[target]]",
        "url = \"file:///tmp/nowhere-else\"",
    ] {
        assert!(output.1.contains(part), "{part}\n{}", output.1);
    }
    assert_eq!(host.config(), before);
}

fn host_can_drop_rights() -> bool {
    std::path::Path::new("/usr/bin/setpriv").exists()
}

/// Runs the program as a user who is not root.
fn as_user(host: &Host, arguments: &[&str]) -> (i32, String) {
    let command = host.command(arguments);
    let mut run = match geteuid().is_root() {
        true => {
            for name in ["", "c.toml", "c.signer"] {
                let path = host.path(name);
                std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
            }
            let mut run = std::process::Command::new("setpriv");
            run.args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(command.get_program())
                .args(command.get_args());
            run.current_dir(host.temp.path());
            run
        }
        false => command,
    };
    let output = run.output().unwrap();
    let (out, err) = crate::support::host::texts(&output);
    (output.status.code().unwrap(), format!("{out}{err}"))
}

#[test]
fn a_name_or_place_that_is_taken_and_a_preset_are_refused() {
    let host = Host::new();
    let before = host.config();
    let repo = host.path("repo").display().to_string();
    let again = format!("other={repo}");
    for (arguments, what) in [
        (vec!["target", "add", "folder=/x/y"], "named folder already"),
        (vec!["target", "add", &again], "has that URL already"),
        (
            vec!["target", "add", "/x/y", "--region", "eu"],
            "none is given",
        ),
        (vec!["target", "remove", "nas"], "no target is named nas"),
        (vec!["target", "test", "nas"], "no target is named nas"),
        (vec!["source", "remove", "nas"], "no source is named nas"),
        (vec!["source", "add"], "nothing to add"),
        (
            vec!["source", "add", "--tree", "nowhere"],
            "is not a directory",
        ),
        (
            vec!["source", "add", "--sqlite", "key.txt"],
            "is not a SQLite database",
        ),
        (vec!["source", "add", "--command", "x"], "is not NAME=LINE"),
        (vec!["init"], "sealift target add"),
    ] {
        let (_, err) = host.exits(&arguments, 2);
        assert!(err.contains(what), "{arguments:?}\n{err}");
        assert_eq!(host.config(), before, "{arguments:?}");
    }
    let preset = "[snapshots]\npreset = \"atocore\"\nroot = \"/srv/atocore\"\n\n[[source]]";
    host.edit_config("[[source]]", preset);
    let (_, err) = host.exits(&["source", "remove", "chroma"], 2);
    assert!(err.contains("comes from the preset"), "{err}");
}

/// A target that is not there is not made by the test of it.
#[test]
fn a_target_is_tried_again_and_nothing_stays_there() {
    let host = Host::new();
    host.backup();
    let before = crate::support::files::files(&host.path("repo"));
    let (out, _) = host.exits(&["target", "test"], 0);
    let expected = "target   folder: can write, list, read and delete; 1 snapshot there\n";
    assert_eq!(out, expected);
    assert_eq!(crate::support::files::files(&host.path("repo")), before);
    fs::rename(host.path("repo"), host.path("away")).unwrap();
    let (out, _) = host.exits(&["target", "test", "folder"], 3);
    assert!(
        out.contains("ATTENTION") && out.contains("is the disk mounted"),
        "{out}"
    );
    assert!(!host.path("repo").exists());
}

#[test]
fn a_check_of_the_configuration_names_what_is_wrong() {
    let host = Host::new();
    host.exits(&["config", "check"], 0);
    let (out, _) = host.exits(&["config", "check", "--show"], 0);
    for line in [
        "host = \"dalidou\"     # line 3",
        "stage = false     # line ",
        "cachedir_tag = true     # default",
        "level = 3     # default",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }

    host.edit_config(
        "stage = false",
        "exclude = [\"[a\", \"/etc/passwd\"]\nstage = false",
    );
    host.edit_config(
        "[[target]]",
        "[[source]]\nkind = \"json\"\npath = \"gone.json\"\n[[target]]",
    );
    host.edit_config(
        "[[target]]",
        "[[source]]\nkind = \"command\"\nname = \"x\"\ncommand = \"PGPASSWORD=hush pg_dump hushhush\"\n[[target]]",
    );
    host.edit_config("name = \"folder\"", "name = \"folder\"\nprune = true");
    host.edit_config("[retention]\ndaily = 7\nweekly = 4\nmonthly = 6\n", "");
    set_mode(&host.path("c.toml"), 0o644);
    set_mode(&host.path("c.signer"), 0o644);
    fs::write(host.path("allowed_signers"), "").unwrap();
    fs::rename(host.path("repo"), host.path("away")).unwrap();
    let found = host.json_exits(&["config", "check", "--show"], &[3]);
    let warnings = found["warnings"].as_array().unwrap();
    for (about, text) in [
        ("config", "chmod 600"),
        ("signer", "chmod 600"),
        ("signer", "does not list SHA256:"),
        ("source data", "\"[a\" can match nothing"),
        ("source data", "\"/etc/passwd\" matches nothing"),
        ("source gone_json", "is not there"),
        ("target folder", "is its disk mounted"),
        ("target folder", "`prune = true` deletes nothing"),
    ] {
        let is_it = |one: &serde_json::Value| {
            one["about"] == about && one["text"].as_str().unwrap().contains(text)
        };
        assert!(warnings.iter().any(is_it), "{about}: {text}\n{found:#}");
    }
    assert_eq!(found["errors"], serde_json::json!([]));
    assert!(!found.to_string().contains("hush"), "{found:#}");

    fs::remove_file(host.path("c.signer")).unwrap();
    let found = host.json_exits(&["config", "check"], &[2]);
    assert_eq!(found["errors"][0]["about"], "signer");
    host.edit_config("host = ", "hots = ");
    let (_, err) = host.exits(&["config", "check"], 2);
    assert!(err.contains("did you mean \"host\""), "{err}");
    assert_eq!(
        fs::metadata(host.path("c.toml"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o644
    );
}

/// Kind: two programs read the file, and the second to write takes back what the first one added.
#[test]
fn no_edit_of_two_at_the_same_time_is_lost() {
    let host = Host::new();
    for round in 0..8 {
        let dirs = ["a", "b"].map(|name| {
            let dir = host.path(&format!("tree-{round}-{name}"));
            fs::create_dir(&dir).unwrap();
            dir.display().to_string()
        });
        let begun = dirs.clone().map(|dir| {
            let mut command = host.command(&["source", "add", "--tree", &dir]);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            (dir, command.spawn().unwrap())
        });
        for (dir, mut child) in begun {
            let is_added = child.wait().unwrap().success();
            let config = host.config();
            let is_there = config.contains(&format!("path = {dir:?}"));
            assert_eq!(is_there, is_added, "round {round}: {dir}\n{config}");
        }
    }
}

#[test]
fn an_edit_keeps_extended_attributes() {
    let host = Host::new();
    let file = host.path("c.toml");
    if let Err(error) = xattr::set(&file, "user.note", b"mine") {
        eprintln!("SKIPPED: attributes: {error}");
        return;
    }
    fs::create_dir(host.path("more")).unwrap();
    host.ok(&["source", "add", "--tree", "more"]);
    assert_eq!(
        xattr::get(&file, "user.note").unwrap().as_deref(),
        Some(&b"mine"[..])
    );
}

/// Kind: a secret among the words of a command.
#[test]
fn show_has_no_secret_of_any_command() {
    let host = Host::new();
    let text = host
        .config()
        .replace("[[target]]", "[[target]]\nssh = \"sshpass -p hunter2 ssh\"");
    let text = text.replace(
        "stage = false",
        "stage = false\nbefore = \"PGPASSWORD='my hunter2' pg_dump\"",
    );
    let hooks = "\n[hooks]\nfailed = \"curl -H 'Authorization: hunter2' x\"\n";
    fs::write(host.path("c.toml"), text + hooks).unwrap();
    for arguments in [
        &["config", "check", "--show"][..],
        &["--json", "config", "check", "--show"],
    ] {
        let (out, err) = host.exits_any(arguments, &[0, 2, 3]);
        assert!(!(out.clone() + &err).contains("hunter2"), "{out}{err}");
    }
}
