//! The procedure of docs/operations.md, run from its code blocks as they are written, against the stand-in for AtoCore.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::atocore::AtoCore;
use crate::support::host::{Host, SEALIFT, texts};

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The commands in the code blocks of the section `heading`, in order.
fn commands(heading: &str) -> Vec<String> {
    let text = document("docs/operations.md");
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(str::to_owned).collect()
}

/// A host whose AtoCore makes the snapshots, with `[restore]` as `init` writes it, filled in for the stand-in.
fn host() -> (Host, AtoCore) {
    let mut atocore = None;
    let prepare = |dir: &Path| atocore = Some(AtoCore::started(&dir.join("ato")));
    let host = Host::prepared(prepare, &["--preset", "atocore", "--root", "ato"]);
    let atocore = atocore.unwrap();
    let tables = atocore.restore_tables();
    let (_, keys) = tables.split_once("[restore]\n").unwrap();
    host.edit_config("\n[restore]\n", &format!("\n[restore]\n{keys}"));
    let source = format!(
        "\n[[source]]\nkind = \"atocore\"\nurl = \"{}\"\n",
        atocore.url()
    );
    fs::write(host.path("c.toml"), host.config() + &source).unwrap();
    (host, atocore)
}

/// Runs a line as an operator types it. Returns the exit code and what it printed.
fn typed(host: &Host, line: &str) -> (i32, String) {
    let programs = Path::new(SEALIFT).parent().unwrap().display();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(host.temp.path())
        .env_clear()
        .env("PATH", format!("{programs}:{path}"))
        .env("HOME", host.temp.path())
        .env("SEALIFT_CONFIG", host.path("c.toml"))
        .env("SEALIFT_MACHINE_ID", &host.machine)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    (output.status.code().unwrap(), format!("{out}{err}"))
}

fn documents(atocore: &AtoCore) -> i64 {
    let db = rusqlite::Connection::open(atocore.database()).unwrap();
    db.query_row("SELECT count(*) FROM source_documents", [], |row| {
        row.get(0)
    })
    .unwrap()
}

#[test]
fn the_procedure_runs_as_it_is_written() {
    let (host, atocore) = host();
    let commands = commands("The procedure");
    let verbs: Vec<&str> = commands
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(
        verbs,
        [
            "backup", "list", "validate", "restore", "restore", "rollback", "rollback"
        ]
    );
    for command in &commands {
        if command.contains("--in-place") && command.contains("--dry-run") {
            // What the restore is to undo.
            let db = rusqlite::Connection::open(atocore.database()).unwrap();
            db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
            db.execute("DELETE FROM source_documents WHERE id > 9", [])
                .unwrap();
        }
        let before = atocore.requests().len();
        let (code, said) = typed(&host, command);
        println!("$ {command}\n{said}");
        let is_restore = command.contains("--in-place") && !command.contains("--dry-run");
        // The snapshot has no Chroma, which is a warning.
        let expected: &[i32] = if is_restore { &[3] } else { &[0] };
        assert!(
            expected.contains(&code),
            "{command} ended with {code}\n{said}"
        );
        let asked = atocore.requests()[before..].join("\n");
        match command.as_str() {
            "sealift backup" => assert_eq!(asked, "POST /admin/backup"),
            _ if is_restore => {
                assert_eq!(documents(&atocore), 12);
                for request in [
                    "GET /health",
                    "GET /stats",
                    "GET /projects",
                    "POST /context/build",
                ] {
                    assert!(asked.contains(request), "{request}\n{asked}");
                }
            }
            _ if command.contains("--list") => assert!(said.contains("pre-restore-"), "{said}"),
            _ if command.contains("rollback") => assert_eq!(documents(&atocore), 9),
            _ => {}
        }
    }
    // AtoCore runs, and the next backup takes what is there now.
    atocore.run("stop");
    let (code, said) = typed(&host, "sealift --quiet backup");
    assert_eq!(code, 3, "{said}");
    let restored = host.restore_exits("latest", "restored", &[0, 3]);
    let db = rusqlite::Connection::open(restored.join("db/atocore.db")).unwrap();
    let found: i64 = db
        .query_row("SELECT count(*) FROM source_documents", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(found, 9);
}

/// The key holder's machine: a home, a configuration and keys of its own. Only the folder is the host's.
struct SecondMachine {
    dir: tempfile::TempDir,
}

impl SecondMachine {
    /// Runs a line as its operator types it; `docker` is a stand-in that starts AtoCore on what was restored.
    fn typed(&self, line: &str) -> (i32, String) {
        let programs = Path::new(SEALIFT).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap();
        let bin = self.dir.path().join("bin");
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", format!("{}:{programs}:{path}", bin.display()))
            .env("HOME", self.dir.path())
            .env("SEALIFT_MACHINE_ID", "laptop")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = texts(&output);
        (output.status.code().unwrap(), format!("{out}{err}"))
    }

    fn ok(&self, line: &str) -> String {
        let (code, said) = self.typed(line);
        assert_eq!(code, 0, "{line}\n{said}");
        said
    }
}

/// A container has the data at the path that AtoCore knows; this one has no container.
const MOVE: &str = "import sqlite3, sys
c = sqlite3.connect('drilled/data/db/atocore.db')
c.execute('UPDATE source_documents SET path = replace(path, ?, ?)', sys.argv[1:])
c.commit()";

/// A port that is free now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The drill of "Test restores", with its configuration and its commands as they are written, on a second machine;
/// its receipt is shown by the host.
#[test]
fn the_drill_of_the_procedure_runs_as_it_is_written() {
    let (host, atocore) = host();
    let (code, said) = typed(&host, "sealift --quiet backup");
    assert_eq!(code, 0, "{said}");
    let second = SecondMachine {
        dir: tempfile::tempdir().unwrap(),
    };
    let at = |name: &str| second.dir.path().join(name);
    fs::create_dir(at("bin")).unwrap();
    let (port, script) = (free_port(), crate::support::atocore::script());
    let docker = format!(
        "#!/bin/sh\nset -e\nMOVE=\"{MOVE}\"\ncase \"$*\" in\n\
         'compose -p drill -f drill.yaml up -d')\n\
           mkdir -p drilled/data/chroma drilled/backups/snapshots drilled/run drilled/config\n\
           cp -r \"$SEALIFT_RESTORED/db\" drilled/data/db\n\
           cp -r \"$SEALIFT_RESTORED/config/.\" drilled/config/\n\
           python3 -c \"$MOVE\" '{root}' \"$PWD/drilled\"\n\
           echo {port} >drilled/run/port\n\
           python3 -B {script} start drilled ;;\n\
         'compose -p drill -f drill.yaml down -v')\n\
           python3 -B {script} stop drilled; cp drilled/run/requests requests; rm -r drilled ;;\n\
         *) exit 9 ;;\nesac\n",
        script = script.display(),
        root = atocore.root.display(),
    );
    fs::write(at("bin/docker"), docker).unwrap();
    second.ok("chmod 755 bin/docker; ssh-keygen -q -t ed25519 -N '' -f drill");
    // What the two operators exchange: the public key, the host's signer, the identity of the key holder.
    let public = fs::read_to_string(at("drill.pub")).unwrap();
    let mut allowed = fs::read_to_string(host.path("allowed_signers")).unwrap();
    let principal = second.ok("uname -n");
    allowed += &format!(
        "drill@{} namespaces=\"sealift-receipt\" {public}",
        principal.trim()
    );
    fs::write(host.path("allowed_signers"), allowed).unwrap();
    fs::copy(host.path("key.txt"), at("atocore.txt")).unwrap();
    for name in ["s3", "laptop"] {
        let repo = host.path("repo");
        let add = format!(
            "sealift remote add {name} {} --signer '{}'",
            repo.display(),
            host.signer
        );
        second.ok(&add);
    }
    // The section's blocks, without the table of the commands.
    let lines = commands("Test restores");
    let (sealift, settings): (Vec<String>, Vec<String>) = lines
        .into_iter()
        .partition(|line| line.starts_with("sealift "));
    let settings = settings.join("\n");
    assert!(settings.starts_with("[drill]"), "{settings}");
    let url = "http://127.0.0.1:18100";
    assert!(settings.contains(url), "{settings}");
    let settings = settings.replace(url, &format!("http://127.0.0.1:{port}"));
    fs::write(at("drill.toml"), settings).unwrap();
    let (on_host, on_second): (Vec<String>, Vec<String>) = sealift
        .into_iter()
        .partition(|line| line == "sealift status");
    assert_eq!((on_second.len(), on_host.len()), (2, 1));
    let asked = atocore.requests().len();
    for command in &on_second {
        let said = second.ok(command);
        println!("$ {command}\n{said}");
    }
    // The drill asked the AtoCore that it started, and not the host's.
    let requests = fs::read_to_string(at("requests")).unwrap();
    assert!(requests.contains("GET /stats"), "{requests}");
    assert_eq!(atocore.requests().len(), asked);
    assert!(!at("drilled").exists());
    let (_, said) = typed(&host, &on_host[0]);
    let expected = format!("by drill@{}", principal.trim());
    assert!(
        said.contains("restored for proof: ") && said.contains(&expected),
        "{said}"
    );
}

#[test]
fn recovery_at_3_am_fits_on_a_printed_page() {
    let page = document("docs/recovery.md");
    assert!(page.lines().count() <= 60);
    for line in page.lines() {
        assert!(line.chars().count() <= 140, "{line}");
    }
}
