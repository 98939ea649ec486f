//! The units of systemd: those in `deploy/`, and those that `sealift unit` prints for the example configurations, are
//! accepted by systemd, and the agent's sandbox is tight. Needs `systemd-analyze`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::host::{Host, SEALIFT};

/// The greatest exposure of the agent, in tenths, as `systemd-analyze security` computes it.
const EXPOSURE: &str = "--threshold=25";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Whether systemd's tools are here. Reports what is not tested without them.
fn has_systemd() -> bool {
    let has = Command::new("systemd-analyze").arg("--version").output();
    let has = has.is_ok_and(|output| output.status.success());
    if !has {
        println!("not tested: no systemd-analyze (package systemd)");
    }
    has
}

fn analyze(arguments: &[&str], files: &[PathBuf]) -> Output {
    let mut command = Command::new("systemd-analyze");
    // It looks for a terminal, and for the units of this machine.
    let command = command.args(arguments).arg("--no-pager").args(files);
    command.env("SYSTEMD_COLORS", "0").output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Asserts that systemd accepts the units in `dir`, and has nothing to say about them.
fn assert_accepted(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut units: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    units.sort();
    let verified = analyze(&["verify", "--man=no"], &units);
    let text = said(&verified);
    assert!(verified.status.success() && text.is_empty(), "{text}");
    units
}

/// Copies the units of `deploy/` into `dir`, with a program that is there.
fn copied_units(dir: &Path) {
    for entry in fs::read_dir(deploy()).unwrap() {
        let path = entry.unwrap().path();
        let is_unit = |ending| path.extension().is_some_and(|found| found == ending);
        if is_unit("service") || is_unit("timer") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.replace("/usr/local/bin/sealift", SEALIFT);
            fs::write(dir.join(path.file_name().unwrap()), text).unwrap();
        }
    }
}

#[test]
fn systemd_accepts_the_units_in_deploy() {
    if !has_systemd() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    copied_units(dir.path());
    let units = assert_accepted(dir.path());
    assert!(units.len() >= 8, "{units:?}");
    let agent = dir.path().join("sealift.service");
    let secure = analyze(&["security", "--offline=true", EXPOSURE], &[agent]);
    assert!(secure.status.success(), "{}", said(&secure));
}

/// Kind: the agent and the timer both make backups.
#[test]
fn the_agent_and_the_timer_exclude_each_other() {
    let text = |name: &str| fs::read_to_string(deploy().join(name)).unwrap();
    assert!(text("sealift.service").contains("\nConflicts=sealift-backup.timer\n"));
    assert!(text("sealift-backup.timer").contains("\nConflicts=sealift.service\n"));
    // With that right the read-only paths could be mounted again.
    assert!(!text("sealift.service").contains("CAP_SYS_ADMIN CAP"));
}

/// Writes what `unit` prints into `dir`, as an administrator would.
fn print_units(host: &Host, config: &Path, name: &str, dir: &Path) -> String {
    let mut command = Command::new(SEALIFT);
    command
        .current_dir(host.path("."))
        .arg("--config")
        .arg(config);
    command.args(["--json", "unit", "--print", "--name", name]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut drop_in = String::new();
    for file in printed["files"].as_array().unwrap() {
        let text = |key: &str| file[key].as_str().unwrap().to_owned();
        let path = text("path");
        let path = dir.join(path.strip_prefix("/etc/systemd/system/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text("text")).unwrap();
        if file["part"] == "drop_in" {
            drop_in = text("text");
        }
    }
    drop_in
}

#[test]
fn systemd_accepts_the_units_for_each_example_configuration() {
    if !has_systemd() {
        return;
    }
    let host = Host::new();
    let configs = fs::read_dir(deploy()).unwrap();
    let configs = configs.map(|entry| entry.unwrap().path());
    let mut configs: Vec<PathBuf> = configs
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(configs.len() >= 2, "{configs:?}");
    // One with everything that a sandbox can stumble over.
    let odd = host.path("odd name.toml");
    let more = "\n[[source]]\nkind = \"command\"\nname = \"pg\"\ncommand = \"sudo -u postgres pg_dump 100%\"\n\
                [[source]]\nkind = \"tree\"\npath = \"/home/me/my % photos\"\n\
                [hooks]\nbefore = \"mount /mnt/backup\"\nafter = \"docker start app\"\n\
                [serve]\nlisten = [\"unix:/srv/my web/s.sock\"]\ntextfile = \"/srv/metrics/s.prom\"\n\
                [[notify]]\nkind = \"command\"\ncommand = [\"/home/me/page me\", \"100%\"]\n";
    fs::write(&odd, host.config() + more).unwrap();
    configs.push(odd);
    for config in configs {
        let dir = tempfile::tempdir().unwrap();
        for name in ["agent", "backup", "recover"] {
            let drop_in = print_units(&host, &config, name, dir.path());
            assert!(drop_in.contains("ReadWritePaths=-"), "{drop_in}");
            let named = drop_in.lines().filter(|line| line.contains("Paths="));
            let mut named = named.filter(|line| *line != "InaccessiblePaths=");
            assert!(named.all(|line| line.contains("Paths=-")), "{drop_in}");
        }
        let units = assert_accepted(dir.path());
        assert_eq!(units.len(), 4, "{units:?}");
        // A drop-in that systemd does not understand would be passed over in silence.
        for unit in units
            .iter()
            .filter(|unit| unit.extension().unwrap() == "service")
        {
            let drop_in = PathBuf::from(format!("{}.d/sandbox.conf", unit.display()));
            let both = fs::read_to_string(unit).unwrap() + &fs::read_to_string(drop_in).unwrap();
            let joined = tempfile::tempdir().unwrap();
            fs::write(joined.path().join(unit.file_name().unwrap()), both).unwrap();
            assert_accepted(joined.path());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let printed = host.json(&["unit", "--print", "--name", "watch"]);
    for file in printed["files"].as_array().unwrap() {
        let path = Path::new(file["path"].as_str().unwrap());
        let text = file["text"].as_str().unwrap();
        fs::write(dir.path().join(path.file_name().unwrap()), text).unwrap();
    }
    assert_accepted(dir.path());
}

#[test]
fn systemd_accepts_the_unit_of_a_drill() {
    let host = Host::new();
    let config = host.path("d 1.toml");
    let text = "[drill]\nfrom = [\"./repo\", \"s3://bucket/x\"]\nidentity = \"key.txt\"\nsigner = \"drill\"\n\
                scratch = \"/srv/my drills\"\n";
    fs::write(&config, text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let drop_in = print_units(&host, &config, "drill", dir.path());
    assert!(
        drop_in.contains("\nReadWritePaths=-\"/srv/my drills\"\n")
            || drop_in.contains("/srv/my drills"),
        "{drop_in}"
    );
    assert!(
        drop_in.contains(&format!("ReadWritePaths=-{}", host.path("repo").display())),
        "{drop_in}"
    );
    let service = dir.path().join("sealift-drill.service");
    let unit = fs::read_to_string(&service).unwrap();
    assert!(
        unit.contains("d 1.toml") && !unit.contains("/etc/sealift/drill.toml drill $"),
        "{unit}"
    );
    // The host's configuration has no drill.
    let (_, err) = host.exits(&["unit", "--print", "--name", "drill"], 2);
    assert!(err.contains("no configuration with [drill]"), "{err}");
    if !has_systemd() {
        return;
    }
    assert_eq!(assert_accepted(dir.path()).len(), 2);
    fs::write(&service, unit + &drop_in).unwrap();
    assert_accepted(dir.path());
    let secure = analyze(
        &["security", "--offline=true", "--threshold=30"],
        &[service],
    );
    assert!(secure.status.success(), "{}", said(&secure));
}

/// The sandbox of a configuration without commands is as tight as the unit in `deploy/`.
#[test]
fn a_configuration_without_commands_keeps_the_agent_s_sandbox_tight() {
    if !has_systemd() {
        return;
    }
    let host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    let config = deploy().join("folder.toml");
    let drop_in = print_units(&host, &config, "agent", dir.path());
    assert!(drop_in.contains("ProtectSystem=strict"), "{drop_in}");
    assert!(drop_in.contains("ProtectHome=read-only"), "{drop_in}");
    let unit = dir.path().join("sealift.service");
    let both = fs::read_to_string(&unit).unwrap() + &drop_in;
    fs::write(&unit, both).unwrap();
    let secure = analyze(&["security", "--offline=true", "--threshold=26"], &[unit]);
    assert!(secure.status.success(), "{}", said(&secure));
}
