//! `[hooks]`: commands around a whole run, and what each learns of it.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::host::Host;

/// Each hook appends its name to `order` and keeps what it read in `NAME.json`.
fn hooked(extra: &str) -> Host {
    let host = Host::new();
    fs::write(host.data().join("a"), "content").unwrap();
    let note = |name: &str| {
        format!(
            "{name} = \"echo {name} >>{dir}/order; cat >{dir}/{name}.json; echo $SEALIFT_RUN $SEALIFT_OUTCOME \
             ${{AWS_SECRET_ACCESS_KEY-none}} >{dir}/{name}.env\"\n",
            dir = host.temp.path().display()
        )
    };
    let all: String = ["before", "after", "failed"].map(note).concat();
    let hooks = format!("\n[hooks]\n{all}{extra}\n[retention]\n");
    host.edit_config("\n[retention]\n", &hooks);
    host
}

fn order(host: &Host) -> Vec<String> {
    let text = fs::read_to_string(host.path("order")).unwrap_or_default();
    let _ = fs::remove_file(host.path("order"));
    text.lines().map(str::to_owned).collect()
}

fn told(host: &Host, name: &str) -> Value {
    let text = fs::read(host.path(&format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn replace(host: &Host, name: &str, line: &str) {
    let config = host.config();
    let old = config
        .lines()
        .find(|text| text.starts_with(&format!("{name} = ")));
    host.edit_config(old.unwrap(), &format!("{name} = {line:?}"));
}

#[test]
fn a_complete_run_has_a_before_and_an_after_and_each_learns_of_it() {
    let host = hooked("");
    let output = host
        .command(&["backup"])
        .env("AWS_SECRET_ACCESS_KEY", "hidden")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(order(&host), ["before", "after"]);
    let before = told(&host, "before");
    assert_eq!(
        (&before["kind"], &before["outcome"]),
        (&"backup".into(), &Value::Null)
    );
    let after = told(&host, "after");
    assert_eq!(after["outcome"], "complete");
    assert_eq!(after["exit_code"], 0);
    assert_eq!(after["sequence"], 1);
    assert_eq!(after["host"], "dalidou");
    assert_eq!(after["targets"][0]["state"], "published");
    assert!(
        after["files"].as_u64().unwrap() >= 1 && after["ended_at"].is_string(),
        "{after}"
    );
    let environment = fs::read_to_string(host.path("after.env")).unwrap();
    assert_eq!(environment, "backup complete none\n");
    // A push has them as well, and both commands can go without.
    host.ok(&["push"]);
    assert_eq!(order(&host), ["before", "after"]);
    assert_eq!(told(&host, "after")["kind"], "push");
    host.ok(&["backup", "--no-hooks"]);
    host.ok(&["push", "--no-hooks"]);
    assert_eq!(order(&host), Vec::<String>::new());
}

#[test]
fn a_before_that_fails_stops_the_run_and_the_others_still_run() {
    let host = hooked("");
    replace(&host, "before", "echo no disk >&2; exit 7");
    let (_, err) = host.exits(&["backup"], 1);
    assert!(
        err.contains("the hook `before` failed, so nothing was backed up"),
        "{err}"
    );
    assert!(
        err.contains("no disk") && err.contains("--no-hooks"),
        "{err}"
    );
    assert_eq!(order(&host), ["after", "failed"]);
    let failed = told(&host, "failed");
    assert_eq!(
        (&failed["outcome"], &failed["exit_code"]),
        (&"failed".into(), &1.into())
    );
    assert!(
        failed["errors"][0]["text"]
            .as_str()
            .unwrap()
            .contains("`before`"),
        "{failed}"
    );
    assert!(!host.folder().join("manifests").exists());
    assert!(host.json_exits(&["status"], &[3])["last_run"]["outcome"] == "failed");
}

#[test]
fn failed_runs_after_a_partial_run_and_after_one_that_never_began() {
    let host = hooked("");
    host.edit_config(
        "[hooks]",
        "[[source]]\nkind = \"json\"\npath = \"gone.json\"\n\n[hooks]",
    );
    host.exits(&["backup"], 3);
    assert_eq!(order(&host), ["before", "after", "failed"]);
    let failed = told(&host, "failed");
    assert_eq!(
        (&failed["outcome"], &failed["exit_code"]),
        (&"partial".into(), &3.into())
    );
    assert_eq!(failed["left_out"][0], "gone_json");
    // Without a target.
    fs::rename(host.path("repo"), host.path("away")).unwrap();
    host.exits(&["backup"], 1);
    assert_eq!(order(&host), ["before", "after", "failed"]);
    assert_eq!(told(&host, "failed")["targets"][0]["state"], "behind");
    // Without a signer.
    fs::rename(host.path("c.signer"), host.path("c.away")).unwrap();
    host.exits(&["backup"], 2);
    assert_eq!(order(&host), ["failed"]);
    let failed = told(&host, "failed");
    assert_eq!(failed["exit_code"], 2);
    assert!(failed["errors"][0]["next"].is_string(), "{failed}");
}

#[test]
fn an_after_that_fails_makes_the_run_partial_and_output_is_kept() {
    let host = hooked("");
    replace(&host, "after", "echo left mounted; exit 1");
    replace(&host, "before", "echo mounted now");
    let (out, err) = host.exits(&["backup"], 3);
    assert!(
        err.contains("the hook `after` failed") && err.contains("left mounted"),
        "{out}{err}"
    );
    assert!(
        err.contains("the hook `before` wrote:\n  mounted now"),
        "{err}"
    );
    assert_eq!(order(&host), ["failed"]);
    assert_eq!(told(&host, "failed")["outcome"], "partial");
    // A `failed` that fails changes nothing.
    replace(&host, "after", "exit 0");
    replace(&host, "failed", "exit 9");
    host.exits(&["backup"], 0);
    fs::rename(host.path("repo"), host.path("away")).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("the hook `failed` failed"), "{err}");
}

#[test]
fn a_hook_that_does_not_end_is_ended_after_its_time() {
    let host = hooked("timeout = \"1s\"\n");
    replace(&host, "before", "sleep 60");
    let begun = Instant::now();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("no end after 1 s"), "{err}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(order(&host), ["after", "failed"]);
    host.edit_config("timeout = \"1s\"", "timeout = \"soon\"");
    host.exits(&["backup"], 2);
}

/// Kind: two shapes of the same report, or a report that names paths where it may leave the host.
#[test]
fn hooks_and_events_have_one_report_and_hooks_get_no_paths() {
    let host = hooked("");
    let source = "[[source]]\nkind = \"command\"\nname = \"bad\"\nto = \"hidden/place\"\ncommand = \"false\"\n\n[hooks]";
    host.edit_config("[hooks]", source);
    let line = "exec \"$SEALIFT\" \"$@\" --events-fd 3 3>events";
    let command = host.command(&["backup"]);
    let mut shell = std::process::Command::new("sh");
    let envs = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let ran = shell
        .args(["-c", line, "sh"])
        .args(command.get_args())
        .current_dir(host.temp.path())
        .envs(envs)
        .env("SEALIFT", command.get_program())
        .env("INVOCATION_ID", "5c7a")
        .env("JOURNAL_STREAM", "8:1")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    let events = fs::read_to_string(host.path("events")).unwrap();
    let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    let (event, hook) = (&last["report"], told(&host, "failed"));
    let names = |report: &Value| {
        report
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(names(event), names(&hook));
    for same in [
        "id",
        "kind",
        "trigger",
        "host",
        "started_at",
        "outcome",
        "stamp",
        "bytes",
        "skipped_paths",
    ] {
        assert_eq!(event[same], hook[same], "{same}");
        assert!(!event[same].is_null(), "{same}");
    }
    assert_eq!(event["skipped_paths"], 1);
    assert_eq!(event["skipped"][0]["path"], "hidden/place");
    assert_eq!(
        (&hook["skipped"], &hook["databases"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );
    assert_eq!(hook["left_out"][0], "bad");
    assert!(!hook.to_string().contains("hidden"), "{hook}");
}

#[test]
fn a_run_says_who_began_it() {
    let host = hooked("");
    let began = |more: &[&str], environment: &[(&str, &str)]| {
        let mut command = host.command(&[&["backup"], more].concat());
        command.envs(environment.iter().copied());
        // A session of its own, so that no terminal of the tests is there.
        let mut detached = std::process::Command::new("setsid");
        let envs = command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        detached
            .arg("-w")
            .arg(command.get_program())
            .args(command.get_args());
        let ran = detached
            .envs(envs)
            .current_dir(host.temp.path())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
        told(&host, "after")["trigger"].as_str().unwrap().to_owned()
    };
    let unit = [("INVOCATION_ID", "5c7a"), ("JOURNAL_STREAM", "8:1")];
    assert_eq!(began(&[], &[]), "manual");
    assert_eq!(began(&[], &unit[..1]), "manual");
    assert_eq!(began(&[], &unit), "timer");
    for name in ["manual", "schedule", "api", "boot", "timer"] {
        assert_eq!(began(&["--trigger", name], &unit), name);
    }
    host.exits(&["backup", "--trigger", "nobody"], 2);
}

/// Told to end in the middle of a run.
#[test]
fn after_and_failed_run_although_the_run_is_told_to_end() {
    let host = hooked("");
    let source = "[[source]]\nkind = \"command\"\nto = \"dump\"\ncommand = \"touch started; sleep 60\"\n\n[hooks]";
    host.edit_config("[hooks]", source);
    let mut running = host.command(&["backup"]).spawn().unwrap();
    let begun = Instant::now();
    while !host.path("started").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(running.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(!running.wait().unwrap().success());
    assert_eq!(order(&host), ["before", "after", "failed"]);
    assert_eq!(told(&host, "after")["outcome"], "cancelled");
    assert_eq!(told(&host, "after")["exit_code"], 1);
    assert_eq!(told(&host, "failed")["outcome"], "cancelled");
}

/// Kind: a signal comes while the last hooks run.
#[test]
fn a_run_that_is_ended_during_after_still_raises_its_alarm() {
    let host = hooked("");
    let waits = host.path("in-after").display().to_string();
    replace(&host, "after", &format!("touch {waits}; sleep 60"));
    let mut child = host.command(&["backup"]).spawn().unwrap();
    let by = Instant::now() + Duration::from_secs(30);
    while !host.path("in-after").exists() {
        assert!(Instant::now() < by, "`after` never ran");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(order(&host), ["before", "failed"]);
}

/// Kind: the disk that is full is the one of the temporary files.
#[test]
fn hooks_run_without_a_temporary_directory() {
    let host = hooked("");
    let mut backup = host.command(&["backup"]);
    let output = backup.env("TMPDIR", "/nonexistent").output().unwrap();
    assert!(output.status.code().is_some(), "{output:?}");
    let ran = order(&host);
    assert_eq!(ran[..2], ["before", "after"], "{output:?}");
}
