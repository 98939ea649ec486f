//! Drills: a snapshot is restored for real on the key holder's machine, and the host learns of it by a signed receipt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sealift::format::signature::Signer;
use serde_json::Value;

use crate::support::files::files;
use crate::support::host::{Host, SEALIFT, texts};
use crate::support::rsync::SshServer;
use crate::support::s3::{BUCKET, S3Server, error_answer};

mod forged;
mod keys;
mod webdav;

/// The content of a snapshot that must never be left in clear.
const SECRET: &str = "the plans of the flying machine";

/// A host with a backup, and its key holder, who drills from another directory.
pub struct Drilling {
    pub host: Host,
}

impl Drilling {
    /// `more` are further lines of the key holder's configuration.
    fn new(more: &str) -> Self {
        let drilling = Self::without_backup(more);
        drilling.host.backup();
        drilling
    }

    fn without_backup(more: &str) -> Self {
        let host = Host::new();
        fs::write(host.data().join("plans.txt"), SECRET).unwrap();
        let drilling = Self { host };
        drilling.database("INSERT INTO documents VALUES (1, 'a'), (2, 'b'), (3, 'c')");
        fs::create_dir(drilling.path("scratch")).unwrap();
        drilling.signer("drill");
        drilling.allow("drill@laptop", "drill");
        drilling.configure("from = [\"./repo\"]", more);
        drilling
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.host.path(name)
    }

    /// Makes a key for receipts.
    fn signer(&self, name: &str) -> Signer {
        let signer = Signer::generate(name).unwrap();
        signer.save(&self.path(name)).unwrap();
        signer
    }

    /// Lists the key `name` on the host as one that may sign receipts as `principal`.
    fn allow(&self, principal: &str, name: &str) {
        let public = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        let path = self.path("allowed_signers");
        let mut lines = fs::read_to_string(&path).unwrap_or_default();
        lines += &format!("{principal} namespaces=\"sealift-receipt\" {public}");
        fs::write(path, lines).unwrap();
    }

    /// Writes the key holder's configuration.
    fn configure(&self, from: &str, more: &str) {
        let text = format!(
            "[drill]\n{from}\nidentity = \"key.txt\"\nsigner = \"drill\"\nprincipal = \"drill@laptop\"\n\
             scratch = \"scratch\"\ncheck_timeout = \"1s\"\n{more}"
        );
        fs::write(self.path("d.toml"), text).unwrap();
    }

    /// Changes the application's database.
    fn database(&self, sql: &str) {
        let path = self.host.data().join("app.db");
        let is_new = !path.exists();
        let db = rusqlite::Connection::open(path).unwrap();
        if is_new {
            db.execute_batch("CREATE TABLE documents(id INTEGER PRIMARY KEY, title TEXT)")
                .unwrap();
        }
        db.execute_batch(sql).unwrap();
    }

    /// The program on the key holder's machine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SEALIFT);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.host.temp.path())
            .env("TMPDIR", std::env::temp_dir())
            .env("SEALIFT_MACHINE_ID", "laptop")
            .envs(self.host.clock.iter().map(|time| ("SEALIFT_CLOCK", time)))
            .current_dir(self.host.temp.path())
            .stdin(Stdio::null())
            .args(["--config", "d.toml"])
            .args(arguments);
        command
    }

    fn drill_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["--json", "drill"]);
        command
            .args(["--signer", "allowed_signers"])
            .args(arguments);
        command
    }

    fn drill(&self, arguments: &[&str], code: i32) -> (Value, String) {
        result(self.drill_command(arguments).output().unwrap(), code)
    }

    /// What `status` on the host says of proofs.
    fn proof(&self) -> Value {
        let mut status = self.host.json_exits(&["status"], &[0, 3]);
        status["proof"].take()
    }

    fn receipts(&self) -> Vec<String> {
        let dir = self.host.folder().join("receipts");
        let mut names: Vec<String> = match fs::read_dir(dir) {
            Ok(entries) => entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect(),
            Err(_) => Vec::new(),
        };
        names.sort();
        names
    }

    fn newest_receipt(&self) -> Value {
        let dir = self.host.folder().join("receipts");
        let mut all: Vec<Value> = self
            .receipts()
            .iter()
            .filter(|name| name.ends_with(".json"))
            .map(|name| serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap())
            .collect();
        all.sort_by_key(|one: &Value| one["finished_at"].to_string());
        all.pop().unwrap()
    }

    fn is_clean(&self) -> bool {
        fs::read_dir(self.path("scratch")).unwrap().next().is_none()
    }
}

/// The JSON that it printed, and its messages.
fn result(output: Output, code: i32) -> (Value, String) {
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (serde_json::from_str(&out).unwrap_or_default(), err)
}

#[test]
fn a_drill_leaves_a_receipt_that_the_host_believes() {
    let drilling = Drilling::new(
        "[[check]]\nname = \"rows\"\nsql = { database = \"app\", query = \"SELECT count(*) FROM documents\", ge = 3 }\n\
         [[check]]\nname = \"plans\"\nfile = { path = \"data/plans.txt\", contains = \"flying\" }\n\
         [[check]]\nname = \"own\"\ncommand = \"grep -q flying \\\"$SEALIFT_RESTORED/data/plans.txt\\\"\"\n\
         [[check]]\nname = \"only after a restore in place\"\ncommand = \"false\"\nwhen = [\"restore\"]\n",
    );
    assert_eq!(drilling.proof()["newest"], Value::Null);
    let (report, _) = drilling.drill(&[], 0);
    assert_eq!(report["outcome"], "passed", "{report}");
    assert_eq!(report["uploaded"], true);
    assert_eq!(report["restored"]["databases"], 1);
    assert_eq!(report["recipients"][0], drilling.host.recipient.as_str());
    assert_eq!(report["target"]["name"], "folder");
    let names: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["rows", "plans", "own"]);
    assert!(drilling.is_clean());
    let receipts = drilling.receipts();
    assert_eq!(receipts.len(), 2, "{receipts:?}");
    assert_eq!(format!("{}.sig", receipts[0]), receipts[1]);
    let receipt = drilling.newest_receipt();
    assert!(!receipt.to_string().contains("plans.txt"), "{receipt}");
    assert_ne!(receipt["machine"], "");
    let proof = drilling.proof();
    assert_eq!(proof["newest"]["by"], "drill@laptop");
    assert_eq!(proof["newest"]["target"], "folder", "{proof}");
    assert_eq!(proof["targets"]["folder"]["sequence"], 1);
    assert_eq!(proof["receipts"][0]["witness"], "right");
    assert_eq!(proof["keys"][0]["by"], "drill@laptop");
    assert_eq!(proof["schema_changed_at"], Value::Null);
    assert_eq!(proof["refused"], 0);
    let (text, _) = drilling.host.exits_any(&["status"], &[0, 3]);
    assert!(text.contains("restored for proof: "), "{text}");
    assert!(text.contains("opened the snapshot of"), "{text}");
    // Without a look the host knows it, too.
    let remembered = drilling.host.json_exits(&["status", "--offline"], &[0, 3]);
    assert_eq!(remembered["proof"]["newest"], proof["newest"]);
    // A restore without Sealift does not see it.
    drilling.host.recover("latest", "recovered");
    // Stock tools verify the receipt.
    let dir = drilling.host.folder().join("receipts");
    let verified = Command::new("ssh-keygen")
        .args([
            "-Y",
            "verify",
            "-I",
            "drill@laptop",
            "-n",
            "sealift-receipt",
            "-f",
        ])
        .arg(drilling.path("allowed_signers"))
        .arg("-s")
        .arg(dir.join(&receipts[1]))
        .stdin(fs::File::open(dir.join(&receipts[0])).unwrap())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", texts(&verified).1);
}

#[test]
fn other_columns_ask_for_another_proof() {
    let mut drilling = Drilling::without_backup("random_older = \"never\"\n");
    let at = |drilling: &mut Drilling, hour: u32| {
        drilling.host.clock = Some(format!("2026-11-29T{hour:02}:00:00Z"));
    };
    at(&mut drilling, 1);
    drilling.host.backup();
    at(&mut drilling, 2);
    drilling.drill(&[], 0);
    // An unchanged database is not read again, and its schema is remembered.
    fs::write(drilling.host.data().join("more.txt"), "more").unwrap();
    drilling.host.backup();
    assert_eq!(drilling.proof()["schema_changed_at"], Value::Null);
    at(&mut drilling, 3);
    drilling.database("ALTER TABLE documents ADD COLUMN author TEXT");
    drilling.host.backup();
    at(&mut drilling, 4);
    let proof = drilling.proof();
    assert_eq!(
        proof["schema_changed_at"], "2026-11-29T03:00:00Z",
        "{proof}"
    );
    drilling.drill(&[], 0);
    assert_eq!(drilling.proof()["schema_changed_at"], Value::Null);
}

/// The watcher on a third machine has public material only: an `allowed_signers` file with the keys of the host and of the
/// key holder.
#[test]
fn a_third_machine_demands_a_restore_for_proof() {
    let mut drilling = Drilling::without_backup("random_older = \"never\"\n");
    drilling.host.clock = Some("2026-11-29T01:00:00Z".to_owned());
    drilling.host.backup();
    let watch = |drilling: &Drilling, more: &[&str], code: i32| {
        let mut arguments = vec!["status", "--from", "./repo", "--proof-max-age", "100d"];
        arguments.extend(more);
        let output = drilling.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = ["--signer", "allowed_signers"];
    let never = "dalidou: ATTENTION: no backup of dalidou was ever restored for proof";
    assert_eq!(watch(&drilling, &listed, 3), format!("{never}\n"));
    drilling.host.clock = Some("2026-11-29T02:00:00Z".to_owned());
    drilling.drill(&[], 0);
    assert!(watch(&drilling, &listed, 0).starts_with("dalidou: ok: snapshot 1"));
    let json: Value =
        serde_json::from_str(&watch(&drilling, &[&listed[..], &["--json"]].concat(), 0)).unwrap();
    let proof = &json["hosts"][0]["proof"];
    assert_eq!(
        (&proof["by"], &proof["sequence"]),
        (&"drill@laptop".into(), &1.into())
    );
    // A lone key of the host says nothing about receipts.
    let alone = watch(&drilling, &["--signer", "c.signer.pub"], 3);
    assert!(
        alone.starts_with(never) && alone.contains("1 receipt not believed"),
        "{alone}"
    );
    assert!(alone.contains("only an allowed_signers file"), "{alone}");
    drilling.host.clock = Some("2027-04-01T02:00:00Z".to_owned());
    let late = watch(&drilling, &listed, 3);
    assert!(
        late.contains(
            "the newest restore for proof was 4 months ago; at most 3 months are allowed"
        ) || late.contains(
            "the newest restore for proof was 123 days ago; at most 100 days are allowed"
        ),
        "{late}"
    );
}

#[test]
fn a_drill_that_fails_leaves_a_receipt_too() {
    let drilling = Drilling::new(
        "start = \"touch started; test -f \\\"$SEALIFT_RESTORED/data/app.db\\\"\"\nstop = \"touch stopped\"\n\
         [[check]]\nname = \"rows\"\nsql = { database = \"app\", query = \"SELECT count(*) FROM documents\", ge = 4 }\n",
    );
    let (report, err) = drilling.drill(&[], 3);
    assert_eq!(report["outcome"], "failed");
    assert!(err.contains("check_failed"), "{err}");
    assert!(drilling.path("started").exists() && drilling.path("stopped").exists());
    assert!(drilling.is_clean());
    let receipt = drilling.newest_receipt();
    assert_eq!(receipt["errors"][0], "check_failed");
    assert_eq!(receipt["checks"][0]["outcome"], "failed");
    let proof = drilling.proof();
    assert_eq!(proof["newest"], Value::Null);
    assert_eq!(proof["receipts"][0]["result"], "failed", "{proof}");
    assert_eq!(proof["receipts"][0]["why"], "check_failed");
    // The restore proved the key nevertheless? No: only what passed counts.
    assert_eq!(proof["keys"][0]["by"], Value::Null);
    // An archive that is damaged.
    let archive = files(&drilling.host.folder().join("archives"));
    for path in &archive {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    fs::remove_file(drilling.path("stopped")).unwrap();
    let (report, _) = drilling.drill(&[], 3);
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors[0]["code"], "archive_damaged", "{report}");
    // Nothing was started, so nothing is stopped.
    assert!(!drilling.path("stopped").exists());
    // One that is gone.
    for path in &archive {
        fs::remove_file(path).unwrap();
    }
    let (report, _) = drilling.drill(&[], 3);
    assert_eq!(report["errors"][0]["code"], "archive_missing", "{report}");
    assert_eq!(drilling.receipts().len(), 6);
}

#[test]
fn what_says_nothing_about_the_snapshot_leaves_no_receipt() {
    let drilling = Drilling::new("max_bytes = 10\n");
    let (_, err) = drilling.drill(&[], 2);
    assert!(err.contains("max_bytes"), "{err}");
    drilling.configure("from = [\"./repo\"]", "");
    drilling.host.generate("stranger.txt");
    let (_, err) = drilling.drill(&["--identity", "stranger.txt"], 1);
    assert!(err.contains("cannot decrypt"), "{err}");
    assert!(drilling.receipts().is_empty());
    assert!(drilling.is_clean());
    // Nor does a drill whose receipt is withheld.
    let (report, _) = drilling.drill(&["--no-upload", "--keep"], 0);
    assert_eq!(report["uploaded"], false);
    assert!(drilling.receipts().is_empty());
    let kept = PathBuf::from(report["kept"].as_str().unwrap());
    assert_eq!(
        fs::read_to_string(kept.join("data/plans.txt")).unwrap(),
        SECRET
    );
    // A later drill leaves what was kept alone.
    drilling.drill(&[], 0);
    assert!(kept.exists());
}

#[test]
fn the_configurations_of_hosts_and_of_drills_do_not_mix() {
    let drilling = Drilling::new("");
    let host = drilling.host.config();
    let drill = fs::read_to_string(drilling.path("d.toml")).unwrap();
    fs::write(drilling.path("c.toml"), format!("{host}\n{drill}")).unwrap();
    let (_, err) = drilling.host.exits(&["status"], 2);
    assert!(err.contains("must never hold an identity"), "{err}");
    fs::write(drilling.path("c.toml"), &host).unwrap();
    fs::write(drilling.path("d.toml"), format!("host = \"x\"\n{drill}")).unwrap();
    let (_, err) = drilling.drill(&[], 2);
    assert!(err.contains("unknown key"), "{err}");
    fs::write(drilling.path("d.toml"), &drill).unwrap();
    let output = drilling.command(&["status"]).output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("machine that drills"), "{err}");
    // The key itself is refused, and not repeated.
    let key = fs::read_to_string(drilling.path("key.txt")).unwrap();
    let key = key.lines().find(|line| line.starts_with("AGE-")).unwrap();
    drilling.configure("from = [\"./repo\"]", "");
    let text = fs::read_to_string(drilling.path("d.toml")).unwrap();
    fs::write(drilling.path("d.toml"), text.replace("key.txt", key)).unwrap();
    let (_, err) = drilling.drill(&[], 2);
    assert!(!err.contains(key), "{err}");
    // Wrong values are named.
    for (more, what) in [
        ("random_older = \"often\"", "1 in N"),
        ("start = \"true\"", "without `stop`"),
        ("stop = \"true\"", "without `start`"),
        ("snapshott = \"latest\"", "did you mean"),
        ("base_url = \"nowhere\"", "not a URL"),
        ("[[check]]\nname = \"up\"\nhttp = \"GET /\"", "base_url"),
    ] {
        drilling.configure("from = [\"./repo\"]", more);
        let (_, err) = drilling.drill(&[], 2);
        assert!(err.contains(what), "{more}: {err}");
    }
}

#[test]
fn a_killed_drill_leaves_nothing_readable_after_the_next() {
    let drilling = Drilling::new("start = \"echo $$ >pid; exec sleep 600\"\nstop = \"true\"\n");
    let mut killed = drilling
        .drill_command(&[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let pid = loop {
        assert!(Instant::now() < deadline, "the service was not started");
        match fs::read_to_string(drilling.path("pid")) {
            Ok(pid) if pid.ends_with('\n') => break pid,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    killed.kill().unwrap();
    killed.wait().unwrap();
    let ended = Command::new("kill").args(["-9", pid.trim()]).status();
    assert!(ended.unwrap().success());
    let left = plaintext_below(&drilling.path("scratch"));
    assert!(left > 0, "it was killed too early");
    drilling.configure("from = [\"./repo\"]", "");
    drilling.drill(&[], 0);
    assert!(drilling.is_clean());
}

/// Whether the process `pid` runs.
fn runs(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state.rsplit(')').next().unwrap_or_default().trim();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// Whichever step a drill is killed in, the next one stops its service and removes its data.
#[test]
fn the_service_of_a_killed_drill_is_stopped_by_the_next() {
    let hold =
        |step: &str| format!("touch at-{step}; while test -e hold-{step}; do sleep 0.02; done");
    let start = format!(
        "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $! >pid; {}",
        hold("start")
    );
    let stop = format!(
        "{}; echo \"$SEALIFT_RESTORED\" >>stopped; kill $(cat pid)",
        hold("stop")
    );
    let more = format!(
        "start = {start:?}\nstop = {stop:?}\n[[check]]\nname = \"c\"\ncommand = {:?}\n",
        hold("check")
    );
    let drilling = Drilling::new(&more);
    let text = fs::read_to_string(drilling.path("d.toml")).unwrap();
    let text = text.replace("check_timeout = \"1s\"", "check_timeout = \"2m\"");
    fs::write(drilling.path("d.toml"), &text).unwrap();
    for step in ["start", "check", "stop"] {
        let _ = fs::remove_file(drilling.path("stopped"));
        fs::write(drilling.path(&format!("hold-{step}")), "").unwrap();
        let _ = fs::remove_file(drilling.path(&format!("at-{step}")));
        let mut killed = drilling
            .drill_command(&[])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !drilling.path(&format!("at-{step}")).exists() {
            assert!(Instant::now() < deadline, "{step} was not reached");
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = fs::read_to_string(drilling.path("pid")).unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(runs(pid.trim()), "{step}: the service ended by itself");
        let left = fs::read_dir(drilling.path("scratch")).unwrap();
        let left: Vec<PathBuf> = left.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 1, "{step}");
        fs::remove_file(drilling.path(&format!("hold-{step}"))).unwrap();
        let (report, err) = drilling.drill(&[], 0);
        assert_eq!(report["outcome"], "passed", "{step}: {report}");
        assert!(err.contains("that a killed drill left"), "{step}: {err}");
        assert!(!runs(pid.trim()), "{step}: the service runs");
        let stopped = fs::read_to_string(drilling.path("stopped")).unwrap();
        let first = left[0].canonicalize().unwrap_or_else(|_| left[0].clone());
        assert!(
            stopped.contains(first.join("content").to_str().unwrap()),
            "{step}: {stopped}"
        );
        assert!(drilling.is_clean(), "{step}");
    }
}

/// A record that was planted, or whose command is another, runs nothing.
#[test]
fn only_the_stop_of_this_drill_runs() {
    let drilling = Drilling::new("start = \"true\"\nstop = \"echo x >>stopped\"\n");
    let dir = drilling.path("scratch/sealift-drill-0123456789abcdef");
    fs::create_dir(&dir).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    let record = |stop: &str| {
        serde_json::json!({
            "stop": stop, "environment": { "restored": "/", "stamp": "x", "base_url": "" }
        })
    };
    fs::write(
        dir.join("service.json"),
        record("Shell(\"touch planted\")").to_string(),
    )
    .unwrap();
    fs::set_permissions(&dir, mode(0o700)).unwrap();
    let (_, err) = drilling.drill(&[], 0);
    assert!(err.contains("does not have its `stop`"), "{err}");
    assert!(!drilling.path("planted").exists());
    let stops = || fs::read_to_string(drilling.path("stopped")).unwrap();
    assert_eq!(stops(), "x\n");
    // One that others could have written is not read.
    fs::create_dir(&dir).unwrap();
    let right = record("Shell(\"echo x >>stopped\")").to_string();
    fs::write(dir.join("service.json"), right).unwrap();
    fs::set_permissions(&dir, mode(0o777)).unwrap();
    drilling.drill(&[], 0);
    assert_eq!(stops(), "x\nx\n");
    assert!(drilling.is_clean());
}

#[test]
fn the_configuration_of_a_drill_is_checked() {
    let drilling = Drilling::new("start = \"true\"\nstop = \"true\"\nmax_bytes = \"1kB\"\n");
    let check = |code: i32| {
        let output = drilling
            .command(&["--json", "config", "check"])
            .output()
            .unwrap();
        result(output, code).0
    };
    let report = check(0);
    assert_eq!(report["places"], 1, "{report}");
    assert_eq!(report["errors"], serde_json::json!([]));
    let said = |report: &Value, list: &str, about: &str| {
        let list = report[list].as_array().unwrap();
        let found = list.iter().find(|one| one["about"] == about);
        found
            .map(|one| one["text"].as_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    drilling.configure(
        "from = [\"./repo\", \"nowhere\", \"./gone\"]",
        "start = [\"no-such-program\"]\nstop = \"true\"\nmax_bytes = \"9000TB\"\n[[check]]\nname = \"c\"\ncommand = \"./missing x\"\n",
    );
    let report = check(2);
    assert!(
        said(&report, "errors", "from").contains("nowhere"),
        "{report}"
    );
    assert!(
        said(&report, "warnings", "from").contains("gone"),
        "{report}"
    );
    assert!(
        said(&report, "warnings", "start").contains("no-such-program"),
        "{report}"
    );
    assert!(
        said(&report, "warnings", "check c").contains("./missing"),
        "{report}"
    );
    assert!(
        said(&report, "warnings", "scratch").contains("max_bytes"),
        "{report}"
    );
    drilling.configure("from = [\"./repo\"]", "max_bytes = \"9000TB\"\n");
    check(3);
    fs::remove_file(drilling.path("drill")).unwrap();
    fs::remove_file(drilling.path("key.txt")).unwrap();
    fs::remove_dir(drilling.path("scratch")).unwrap();
    let report = check(2);
    for about in ["identity", "signer", "scratch"] {
        assert_ne!(said(&report, "errors", about), "", "{about}: {report}");
    }
}

/// A drill of a snapshot from before other columns is no proof after them, whenever it is made.
#[test]
fn an_old_snapshot_is_no_proof_of_other_columns() {
    let mut drilling = Drilling::without_backup("random_older = \"never\"\n");
    let config = drilling.host.config();
    fs::write(
        drilling.path("c.toml"),
        config + "\n[proof]\nrequire = [\"restore\"]\n",
    )
    .unwrap();
    let at = |drilling: &mut Drilling, hour: u32| {
        drilling.host.clock = Some(format!("2026-11-29T{hour:02}:00:00Z"));
    };
    at(&mut drilling, 1);
    drilling.host.backup();
    at(&mut drilling, 2);
    drilling.database("ALTER TABLE documents ADD COLUMN author TEXT");
    drilling.host.backup();
    let overdue = |drilling: &Drilling| {
        let status = drilling.host.json_exits(&["status"], &[0, 3]);
        let findings = status["verdict"]["findings"].as_array().unwrap().clone();
        findings.iter().any(|one| one["code"] == "proof_overdue")
    };
    at(&mut drilling, 3);
    drilling.drill(&["--snapshot", "1"], 0);
    at(&mut drilling, 4);
    assert!(overdue(&drilling));
    drilling.drill(&["--snapshot", "2"], 0);
    at(&mut drilling, 5);
    assert!(!overdue(&drilling));
    // An older one once more takes nothing back.
    drilling.drill(&["--snapshot", "1"], 0);
    at(&mut drilling, 6);
    assert!(!overdue(&drilling));
}

/// A drill that is asked to end stops what it started, and removes what it restored.
#[test]
fn an_interrupted_drill_stops_its_service() {
    let drilling = Drilling::new(
        "start = \"true\"\nstop = \"touch stopped\"\n\
         [[check]]\nname = \"never\"\ncommand = \"touch checking; false\"\n",
    );
    let text = fs::read_to_string(drilling.path("d.toml")).unwrap();
    let text = text.replace("check_timeout = \"1s\"", "check_timeout = \"5m\"");
    fs::write(drilling.path("d.toml"), text).unwrap();
    let mut child = drilling
        .drill_command(&[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !drilling.path("checking").exists() {
        assert!(Instant::now() < deadline, "the check did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let asked = Command::new("kill").arg(child.id().to_string()).status();
    assert!(asked.unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert!(drilling.path("stopped").exists());
    assert!(drilling.is_clean());
    assert!(drilling.receipts().is_empty());
}

fn plaintext_below(dir: &Path) -> usize {
    let secret = SECRET.as_bytes();
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(secret.len()).any(|part| part == secret)
    };
    files(dir).iter().filter(|path| holds(path)).count()
}

/// Over four drills every target and an older snapshot has its turn; the host, which has no identity, verifies them.
#[test]
fn every_kind_of_target_has_its_turn() {
    let mut drilling = Drilling::without_backup("");
    let (s3, ssh) = (S3Server::start(), SshServer::start(""));
    let (endpoint, command) = (s3.endpoint(), ssh.ssh());
    let places = [
        (
            "bucket",
            format!("s3://{BUCKET}/x"),
            format!("endpoint = {endpoint:?}\npath_style = true"),
        ),
        ("mirror", ssh.url("/one"), format!("ssh = {command:?}")),
        ("store", ssh.sftp_url("/two"), format!("ssh = {command:?}")),
    ];
    let mut config = drilling.host.config();
    let mut from = vec!["\"./repo\"".to_owned()];
    for (name, url, options) in &places {
        config += &format!("\n[[target]]\nname = {name:?}\nurl = {url:?}\n{options}\n");
        let mut add =
            drilling.command(&["remote", "add", name, url, "--signer", "allowed_signers"]);
        match *name {
            "bucket" => add.args(["--endpoint", &endpoint]),
            _ => add.args(["--ssh", &command]),
        };
        let (out, err) = texts(&add.output().unwrap());
        assert!(out.starts_with("added"), "{out}{err}");
        from.push(format!("{name:?}"));
    }
    fs::write(drilling.path("c.toml"), config).unwrap();
    drilling.configure(&format!("from = [{}]", from.join(", ")), "");
    let mut hour = 0;
    let mut pass = |drilling: &mut Drilling| {
        hour += 1;
        drilling.host.clock = Some(format!("2026-11-28T{hour:02}:00:00Z"));
    };
    for content in ["one", "two"] {
        pass(&mut drilling);
        fs::write(drilling.host.data().join("content"), content).unwrap();
        s3.ok(&mut drilling.host.command(&["backup"]));
    }
    let mut drilled = Vec::new();
    for _ in 0..4 {
        pass(&mut drilling);
        let mut command = drilling.drill_command(&[]);
        let output = s3.output_of(&mut command);
        let (report, _) = result(output, 0);
        let name = report["target"]["name"].as_str().unwrap().to_owned();
        drilled.push((name, report["sequence"].as_u64().unwrap()));
    }
    let expected = [("folder", 2), ("bucket", 2), ("mirror", 2), ("store", 1)];
    let expected = expected.map(|(name, sequence)| (name.to_owned(), sequence));
    assert_eq!(drilled, expected);
    pass(&mut drilling);
    let mut status = drilling.host.command(&["--json", "status"]);
    let output = s3.output_of(&mut status);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let proof = &status["proof"];
    for (name, sequence) in [("folder", 2), ("bucket", 2), ("mirror", 2), ("store", 1)] {
        assert_eq!(proof["targets"][name]["sequence"], sequence, "{proof}");
    }
    assert_eq!(proof["newest"]["sequence"], 2);
    assert!(drilling.is_clean());
}

#[test]
fn the_last_proven_snapshot_outlives_every_policy() {
    let mut drilling = Drilling::without_backup("random_older = \"never\"\n");
    let config = drilling.host.config();
    let (before, after) = config.split_once("[retention]").unwrap();
    let after = after.split_once("\n[").map_or("", |(_, after)| after);
    let after = if after.is_empty() {
        String::new()
    } else {
        format!("[{after}")
    };
    let config = format!("{before}[retention]\nlast = 1\n{after}");
    fs::write(drilling.path("c.toml"), config).unwrap();
    for day in 1..=6 {
        drilling.host.clock = Some(format!("2026-11-0{day}T06:00:00Z"));
        fs::write(drilling.host.data().join("content"), day.to_string()).unwrap();
        drilling.host.backup();
        if day == 2 || day == 3 {
            drilling.host.clock = Some(format!("2026-11-0{day}T07:00:00Z"));
            drilling.drill(&[], 0);
            drilling.proof();
        }
    }
    // On the host: the last two, and the last proven one.
    let local = |day: u32| drilling.path(&format!("c.state/snapshots/2026110{day}T060000Z"));
    let there: Vec<u32> = (1..=6).filter(|day| local(*day).exists()).collect();
    assert_eq!(there, [3, 5, 6]);
    drilling.host.clock = Some("2026-11-20T06:00:00Z".to_owned());
    drilling.host.ok(&["prune", "--yes"]);
    let list = drilling.host.remote_list();
    let sequences: Vec<u64> = list["snapshots"]
        .as_array()
        .unwrap_or_else(|| panic!("{list}"))
        .iter()
        .map(|one| one["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(sequences, [3, 6], "{list}");
    // By name only with a confirmation.
    let (_, err) = drilling.host.exits_any(&["prune", "--forget", "3"], &[1]);
    assert!(err.contains("a drill restored"), "{err}");
}

/// The S3 policy that docs/proof.md shows for a machine that drills.
#[test]
fn credentials_that_only_add_receipts_will_do() {
    let drilling = Drilling::without_backup("");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proof.md"));
    assert!(text.unwrap().contains(
        "\"s3:PutObject\", \"Resource\": \"arn:aws:s3:::backups/atocore/dalidou/receipts/*\""
    ));
    let is_driller = Arc::new(AtomicBool::new(false));
    let limited = Arc::clone(&is_driller);
    let server = S3Server::start_with(Arc::new(move |request| {
        let is_reading = matches!(request.method().as_str(), "GET" | "HEAD");
        let adds_receipt =
            request.method() == "PUT" && request.uri().path().contains("/dalidou/receipts/");
        let is_allowed = is_reading || adds_receipt || !limited.load(Ordering::Relaxed);
        (!is_allowed).then(|| error_answer(403, "AccessDenied"))
    }));
    let endpoint = server.endpoint();
    let config = drilling.host.config();
    let target = format!(
        "{config}\n[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/x\"\nendpoint = {endpoint:?}\n"
    );
    fs::write(drilling.path("c.toml"), target).unwrap();
    server.ok(&mut drilling.host.command(&["backup"]));
    is_driller.store(true, Ordering::Relaxed);
    let from = format!("s3://{BUCKET}/x");
    let mut drill = drilling.drill_command(&["--from", &from, "--endpoint", &endpoint]);
    let (report, _) = result(server.output_of(&mut drill), 0);
    assert_eq!(report["uploaded"], true);
    let mut status = drilling.host.command(&["--json", "status"]);
    let output = server.output_of(&mut status);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["proof"]["newest"]["target"], "s3", "{status}");
}

/// The keys of `rrsync` that docs/proof.md shows: one reads, and one adds receipts.
#[test]
fn two_restricted_keys_of_rsync_will_do() {
    if Command::new("rrsync").arg("--help").output().is_err() {
        eprintln!("rrsync is not installed: not checked");
        return;
    }
    let drilling = Drilling::new("");
    let repo = drilling.path("repo");
    let reads = SshServer::start(&format!(
        "restrict,command=\"rrsync -ro {}\" ",
        repo.display()
    ));
    let add = drilling.path("add");
    fs::create_dir(&add).unwrap();
    let adds = SshServer::start(&format!(
        "restrict,command=\"rrsync -wo -no-overwrite -no-del {}\" ",
        add.display()
    ));
    let url = |server: &SshServer| format!("rsync://root@127.0.0.1:{}/", server.port());
    let (read_url, read_ssh) = (url(&reads), reads.ssh());
    let read = ["--from", &read_url, "--ssh", &read_ssh];
    let (_, err) = drilling.drill(&read, 1);
    assert!(err.contains("receipts/"), "{err}");
    let written = [&read[..], &["--no-upload", "--output", "receipt.json"]].concat();
    drilling.drill(&written, 0);
    let (add_url, add_ssh) = (url(&adds), adds.ssh());
    let upload = [
        "key",
        "prove",
        "--upload",
        "receipt.json",
        "--from",
        &add_url,
        "--ssh",
        &add_ssh,
    ];
    let output = drilling.command(&upload).output().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
    // In earnest this is a bind mount.
    let moved = fs::rename(
        add.join("dalidou/receipts"),
        drilling.host.folder().join("receipts"),
    );
    moved.unwrap();
    assert_eq!(drilling.proof()["newest"]["by"], "drill@laptop");
}
