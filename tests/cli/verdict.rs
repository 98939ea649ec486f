//! The verdict of `status`: what makes it, how long that lasts, and how it is printed. The truth table of its rules is a
//! test of the library.

use std::fs;

use serde_json::Value;

use crate::support::host::Host;

/// A host with a daily schedule and two targets, `folder` and `usb`, with one backup on each.
fn host_with_usb(usb: &str) -> Host {
    let mut host = Host::new();
    fs::create_dir(host.path("usb")).unwrap();
    let url = format!("file://{}", host.path("usb").display());
    let text = format!(
        "{}\n[[target]]\nname = \"usb\"\nurl = \"{url}\"\n{usb}\n[schedule]\nbackup = \"0 6 * * *\"\n",
        host.config()
    );
    fs::write(host.path("c.toml"), text).unwrap();
    on(&mut host, 1);
    host.backup();
    host
}

/// The day of November, an hour after the backup is due.
fn on(host: &mut Host, day: u32) {
    host.clock = Some(format!("2026-11-{day:02}T07:00:00Z"));
    fs::write(host.data().join("day"), day.to_string()).unwrap();
}

fn codes(status: &Value) -> Vec<&str> {
    let findings = status["verdict"]["findings"].as_array().unwrap().iter();
    findings.map(|one| one["code"].as_str().unwrap()).collect()
}

fn verdict(host: &Host, arguments: &[&str]) -> Value {
    host.json_exits(arguments, &[0, 3])["verdict"].clone()
}

fn unplug(host: &Host) {
    fs::rename(host.path("usb"), host.path("unplugged")).unwrap();
}

fn plug_in(host: &Host) {
    fs::rename(host.path("unplugged"), host.path("usb")).unwrap();
}

#[test]
fn a_host_that_never_ran_reads_well() {
    let host = Host::new();
    let (out, err) = host.exits(&["status"], 3);
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "Not safe: nothing was ever backed up to a target.",
        "RED never_backed_up",
        "  next: sealift backup",
        "host dalidou",
        "no run yet",
    ];
    assert_eq!(lines[..5], expected, "{out}{err}");
    assert!(lines[5].ends_with(": no snapshot yet"), "{out}");
    assert_eq!(lines.len(), 6, "{out}");
}

/// The verdict is the same with and without a look, because each look is recorded.
#[test]
fn it_remembers_what_the_looks_showed() {
    let mut host = host_with_usb("");
    let seen = verdict(&host, &["status", "--offline"]);
    assert_eq!(seen["state"], "green", "{seen}");
    assert_eq!(verdict(&host, &["status"]), seen);
    for archive in glob(&host, "usb/dalidou/archives/*/*") {
        fs::remove_file(archive).unwrap();
    }
    // Without another look.
    assert_eq!(verdict(&host, &["status", "--offline"]), seen);
    let lost = verdict(&host, &["status"]);
    assert_eq!(lost["findings"][0]["code"], "lost_archives", "{lost}");
    assert_eq!(lost["findings"][0]["target"], "usb");
    assert_eq!(verdict(&host, &["status", "--offline"]), lost);
    // A look at another target changes nothing, and one at this target finds them back.
    assert_eq!(verdict(&host, &["status", "--target", "folder"]), lost);
    host.exits(&["verify", "--repair"], 3);
    assert_eq!(verdict(&host, &["status", "--offline"]), seen);
    // A target without a look for an interval is not known.
    on(&mut host, 3);
    let late = host.json_exits(&["status", "--offline"], &[3]);
    assert_eq!(
        codes(&late),
        ["snapshot_stale", "target_unknown", "target_unknown"]
    );
    let late = host.json_exits(&["status"], &[3]);
    assert_eq!(codes(&late), ["snapshot_stale"]);
    host.backup();
    host.ok(&["status", "--offline"]);
    let (_, err) = host.exits(&["status", "--target", "nothing"], 2);
    assert!(err.contains("no target is named nothing"), "{err}");
}

fn glob(host: &Host, pattern: &str) -> Vec<std::path::PathBuf> {
    let (mut found, mut parts) = (vec![host.temp.path().to_owned()], pattern.split('/'));
    for part in parts.by_ref() {
        found = match part {
            "*" => {
                let entries = found.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
                entries.map(|entry| entry.unwrap().path()).collect()
            }
            name => found.iter().map(|dir| dir.join(name)).collect(),
        };
    }
    assert!(!found.is_empty());
    found
}

/// `status` does not read archives; what `verify` read and found damaged counts until it is clean.
#[test]
fn what_verify_found_counts_until_it_is_clean() {
    let host = host_with_usb("");
    let archive = glob(&host, "usb/dalidou/archives/*/*").remove(0);
    let content = fs::read(&archive).unwrap();
    let mut damaged = content.clone();
    damaged[100] ^= 1;
    fs::write(&archive, &damaged).unwrap();
    host.ok(&["status"]);
    host.exits(&["verify", "--data"], 3);
    for arguments in [&["status"][..], &["status", "--offline"]] {
        let status = host.json_exits(arguments, &[3]);
        assert_eq!(codes(&status), ["lost_archives"], "{status}");
    }
    // A backup does not make them whole.
    fs::write(host.data().join("more"), "x").unwrap();
    host.backup();
    assert_eq!(
        codes(&host.json_exits(&["status"], &[3])),
        ["lost_archives"]
    );
    fs::write(&archive, &content).unwrap();
    host.ok(&["verify", "--data"]);
    host.ok(&["status"]);
}

#[test]
fn a_target_that_may_be_away_is_noted_until_max_age() {
    let mut host = host_with_usb("max_age = \"7d\"");
    unplug(&host);
    for day in 2..=8 {
        on(&mut host, day);
        host.json_exits(&["backup"], &[3]);
        let (out, _) = host.exits(&["status"], 0);
        assert!(out.starts_with("Safe: snapshot "), "{out}");
        assert!(
            out.contains("may be away until its newest snapshot is 7 days old"),
            "{out}"
        );
        host.ok(&["status", "--offline"]);
    }
    on(&mut host, 9);
    host.json_exits(&["backup"], &[3]);
    let status = host.json_exits(&["status"], &[3]);
    assert_eq!(codes(&status), ["target_stale"], "{status}");
    assert_eq!(status["verdict"]["state"], "red");
    plug_in(&host);
    host.backup();
    host.ok(&["status"]);
}

#[test]
fn a_target_that_is_away_has_one_finding_and_gets_worse() {
    let mut host = host_with_usb("");
    unplug(&host);
    let judged = |host: &Host| {
        let status = host.json_exits(&["status"], &[3]);
        let finding = &status["verdict"]["findings"][0];
        assert_eq!(codes(&status).len(), 1, "{status}");
        assert_eq!(finding["target"], "usb");
        let code = finding["code"].as_str().unwrap().to_owned();
        (code, finding["severity"].as_str().unwrap().to_owned())
    };
    assert_eq!(judged(&host), ("target_unknown".into(), "amber".into()));
    on(&mut host, 2);
    host.json_exits(&["backup"], &[3]);
    assert_eq!(judged(&host), ("target_behind".into(), "amber".into()));
    let (out, _) = host.exits(&["status"], 3);
    assert!(
        out.starts_with("Attention: usb is 1 snapshot behind.\n"),
        "{out}"
    );
    assert_eq!(out.matches("is the disk mounted?").count(), 1, "{out}");
    on(&mut host, 3);
    host.json_exits(&["backup"], &[3]);
    assert_eq!(judged(&host), ("target_stale".into(), "amber".into()));
    on(&mut host, 5);
    host.json_exits(&["backup"], &[3]);
    assert_eq!(judged(&host), ("target_stale".into(), "red".into()));
    let sentence = verdict(&host, &["status"])["sentence"].clone();
    let expected = "Not safe: usb has had no backup for 4 days (due every day).";
    assert_eq!(sentence, expected);
}

#[test]
fn an_acknowledgement_ends_with_the_finding() {
    let mut host = host_with_usb("");
    unplug(&host);
    on(&mut host, 2);
    host.json_exits(&["backup"], &[3]);
    host.exits(&["status"], 3);
    let said = host.ok(&[
        "ack",
        "target_behind",
        "--target",
        "usb",
        "--note",
        "holiday",
    ]);
    assert!(
        said.starts_with("acknowledged: usb is 1 snapshot behind"),
        "{said}"
    );
    let (out, _) = host.exits(&["status"], 0);
    assert!(
        out.starts_with("Safe, with 1 finding acknowledged: "),
        "{out}"
    );
    assert!(
        out.contains("\nacknowledged: target_behind: usb is 1 "),
        "{out}"
    );
    // Something else is still seen.
    let config = host.config();
    host.edit_config(&host.recipient.clone(), "age1bad");
    let status = host.json_exits(&["status"], &[3]);
    assert_eq!(codes(&status), ["backup_refused"]);
    fs::write(host.path("c.toml"), config).unwrap();
    // It came back, and is away again.
    plug_in(&host);
    host.backup();
    host.ok(&["status"]);
    unplug(&host);
    on(&mut host, 3);
    host.json_exits(&["backup"], &[3]);
    assert_eq!(
        codes(&host.json_exits(&["status"], &[3])),
        ["target_behind"]
    );
    let said = host.ok(&["ack", "fork"]);
    assert!(said.starts_with("no finding fork is open"), "{said}");
    for (arguments, expected) in [
        (&["ack", "emptied"][..], "the codes are: never_backed_up, "),
        (&["ack", "fork", "--target", "x"], "no target is named x"),
        (&["ack", "fork", "--source", "x"], "never about a source"),
    ] {
        let (_, err) = host.exits(arguments, 2);
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn it_is_printed_for_monitoring_systems() {
    let mut host = host_with_usb("");
    let nagios = ["status", "--format", "nagios"];
    let out = host.ok(&nagios);
    let expected =
        "OK - Safe: snapshot 1 of 0.0 s ago is on folder and usb. | findings=0 newest_age=0s\n";
    assert_eq!(out, expected);
    let metrics = host.ok(&["status", "--format", "prometheus", "--offline"]);
    for line in [
        "# TYPE sealift_verdict gauge",
        "sealift_verdict 0",
        "sealift_last_snapshot_sequence 1",
        "sealift_target_newest_stamp_timestamp_seconds{target=\"usb\"} 1793516400",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
    let json = host.ok(&["status", "--format", "json"]);
    assert_eq!(json, host.ok(&["--json", "status"]));
    unplug(&host);
    assert!(
        host.exits(&nagios, 1)
            .0
            .starts_with("WARNING - Attention: usb ")
    );
    let (metrics, _) = host.exits(&["status", "--format", "prometheus"], 3);
    let line = "sealift_findings{severity=\"amber\",code=\"target_unknown\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    on(&mut host, 9);
    assert!(
        host.exits(&nagios, 2)
            .0
            .starts_with("CRITICAL - Not safe: no backup for 8 days")
    );
    fs::remove_file(host.path("c.toml")).unwrap();
    let (out, _) = host.exits(&nagios, 3);
    assert!(
        out.starts_with("UNKNOWN - cannot read ") && out.contains("c.toml: "),
        "{out}"
    );
}

#[test]
fn a_third_machine_watches() {
    let mut host = host_with_usb("");
    let watch = |host: &Host, more: &[&str], code: i32| {
        let base = ["status", "--from", "./repo", "--signer", "allowed_signers"];
        let arguments: Vec<&str> = base.iter().chain(more).copied().collect();
        host.exits(&arguments, code).0
    };
    let line = "allowed_signers";
    let own = fs::read_to_string(host.path("c.signer.pub")).unwrap();
    fs::write(
        host.path(line),
        format!("dalidou namespaces=\"sealift-manifest\" {own}"),
    )
    .unwrap();
    let out = watch(&host, &["--max-age", "26h"], 0);
    assert_eq!(out, "dalidou: ok: snapshot 1 of 0.0 s ago\n");
    assert_eq!(watch(&host, &["--max-age", "26h", "--quiet"], 0), "");
    let out = watch(&host, &["--max-age", "26h", "--format", "nagios"], 0);
    assert_eq!(out, "OK - 1 host, all well | 'dalidou age'=0s\n");
    let out = watch(&host, &["--proof-max-age", "100d"], 3);
    assert_eq!(
        out,
        "dalidou: ATTENTION: no backup of dalidou was ever restored for proof\n"
    );
    on(&mut host, 4);
    let out = watch(&host, &["--max-age", "26h", "--quiet"], 3);
    let late = "the newest snapshot is 3 days old; at most 26 h are allowed";
    assert!(out.starts_with("dalidou: ATTENTION: STALE: "), "{out}");
    assert!(out.contains(late) && out.lines().count() == 1, "{out}");
    let out = watch(&host, &["--max-age", "26h", "--format", "nagios"], 2);
    assert!(
        out.starts_with("CRITICAL - 1 host, 2 findings: dalidou: "),
        "{out}"
    );
    let out = watch(&host, &["--format", "prometheus"], 3);
    assert!(
        out.contains("sealift_host_problems{host=\"dalidou\"} 1"),
        "{out}"
    );
    let nowhere = ["status", "--from", "./nowhere", "--max-age", "26h"];
    host.exits(&nowhere, 1);
    let nowhere = [&nowhere[..], &["--format", "nagios"]].concat();
    assert!(
        host.exits(&nowhere, 3)
            .0
            .starts_with("UNKNOWN - there is no folder")
    );
    host.exits(&["status", "--max-age", "26h"], 2);
}

/// Kind: the disk is full, or a file of another version is there.
#[test]
fn a_history_that_cannot_be_used_stops_nothing() {
    let host = host_with_usb("");
    for file in glob(&host, "c.state/*") {
        if file
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("history.db")
        {
            fs::remove_file(file).unwrap();
        }
    }
    fs::create_dir(host.path("c.state/history.db")).unwrap();
    host.backup();
    let (out, err) = host.exits(&["status"], 0);
    assert!(out.starts_with("Safe: snapshot 2 of "), "{out}");
    assert!(
        err.contains("only what is seen now counts for the verdict"),
        "{err}"
    );
    unplug(&host);
    let status = host.json_exits(&["status"], &[3]);
    assert_eq!(codes(&status), ["target_unknown"]);
    // Without a look nothing is known.
    let status = host.json_exits(&["status", "--offline"], &[3]);
    assert_eq!(codes(&status), ["target_unknown", "target_unknown"]);
}
