//! What `--json` prints is what `docs/json.md` says: every field of every command, and its type. The commands run in
//! scenes in which each field has a value, so a field that is not documented fails here, and one that is gone too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::help::commands;
use super::shell::{Scene, Shell};

/// The type of a field, as the tables name it.
#[derive(Debug, Clone)]
enum Type {
    Anything,
    Boolean,
    Integer,
    Number,
    Text(Regex),
    OrNull(Box<Type>),
    List(Box<Type>),
    Map(Box<Type>),
    Object(String),
}

impl Type {
    fn parse(text: &str) -> Self {
        let pattern = |pattern: &str| Self::Text(Regex::new(pattern).unwrap());
        if let Some(values) = text.strip_prefix("map of ") {
            return Self::Map(Box::new(Self::parse(values)));
        }
        if let Some(value) = text.strip_suffix(" or null") {
            return Self::OrNull(Box::new(Self::parse(value)));
        }
        if let Some(elements) = text.strip_prefix("list of ") {
            return Self::List(Box::new(Self::parse(elements)));
        }
        match text {
            "anything" => Self::Anything,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "string" => pattern(""),
            "time" => pattern(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"),
            "metadata time" => pattern(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"),
            "date" => pattern(r"^\d{4}-\d\d-\d\d$"),
            "mode" => pattern("^[0-7]{4}$"),
            "file time" => pattern(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|@-?\d+)$"),
            "number" => Self::Number,
            "stamp" => pattern(r"^\d{8}T\d{6}Z$"),
            object => Self::Object(object.to_owned()),
        }
    }
}

/// A field of a table.
#[derive(Debug)]
struct Field {
    kind: Type,
    /// It may be absent.
    is_optional: bool,
}

/// The tables of `docs/json.md`, by their headings.
struct Schema {
    objects: BTreeMap<String, BTreeMap<String, Field>>,
    /// Headings below `## Commands`.
    sections: BTreeSet<String>,
}

impl Schema {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
        let row = Regex::new(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$").unwrap();
        let mut schema = Self {
            objects: BTreeMap::new(),
            sections: BTreeSet::new(),
        };
        let (mut chapter, mut heading) = (String::new(), String::new());
        for line in fs::read_to_string(path).unwrap().lines() {
            if let Some(text) = line.strip_prefix("## ") {
                chapter = text.to_owned();
            } else if let Some(text) = line.strip_prefix("### ") {
                heading = text.to_owned();
                if chapter == "Commands" {
                    schema.sections.insert(heading.clone());
                }
            } else if let Some(found) = row.captures(line) {
                let field = Field {
                    kind: Type::parse(&found[2]),
                    is_optional: found[3].contains("left out"),
                };
                let object = schema.objects.entry(heading.clone()).or_default();
                let before = object.insert(found[1].to_owned(), field);
                assert!(before.is_none(), "twice: {heading}: {}", &found[1]);
            } else {
                let is_frame = line.starts_with("| field |") || line.starts_with("| ---");
                assert!(!line.starts_with('|') || is_frame, "not a row: {line}");
            }
        }
        schema
    }
}

/// The comparison of outputs with the schema.
struct Comparison<'a> {
    schema: &'a Schema,
    /// Objects and fields that occurred.
    seen: BTreeSet<(String, String)>,
    wrong: Vec<String>,
}

impl Comparison<'_> {
    fn object(&mut self, place: &str, name: &str, value: &Value) {
        let Some(fields) = self.schema.objects.get(name) else {
            self.wrong
                .push(format!("{place}: docs/json.md has no table {name:?}"));
            return;
        };
        let Value::Object(members) = value else {
            self.wrong.push(format!("{place}: no object: {value}"));
            return;
        };
        for (key, value) in members {
            match fields.get(key) {
                Some(field) => {
                    self.seen.insert((name.to_owned(), key.clone()));
                    self.value(&format!("{place}.{key}"), &field.kind, value);
                }
                None => self.wrong.push(format!(
                    "{place}.{key} is not in the table {name:?}: {value}"
                )),
            }
        }
        for (key, field) in fields {
            if !field.is_optional && !members.contains_key(key) {
                self.wrong
                    .push(format!("{place} lacks {key}, which the table {name:?} has"));
            }
        }
    }

    fn value(&mut self, place: &str, kind: &Type, value: &Value) {
        let is_right = match (kind, value) {
            (Type::Anything, _) | (Type::OrNull(_), Value::Null) => true,
            (Type::Boolean, value) => value.is_boolean(),
            (Type::Number, value) => value.is_number(),
            (Type::Integer, value) => value.is_i64() || value.is_u64(),
            (Type::Text(pattern), Value::String(text)) => pattern.is_match(text),
            (Type::OrNull(kind), value) => return self.value(place, kind, value),
            (Type::List(kind), Value::Array(all)) => {
                return all
                    .iter()
                    .for_each(|one| self.value(&format!("{place}[]"), kind, one));
            }
            (Type::Map(kind), Value::Object(all)) => {
                return all
                    .values()
                    .for_each(|one| self.value(&format!("{place}{{}}"), kind, one));
            }
            (Type::Object(name), value) => return self.object(place, name, value),
            (Type::Text(_) | Type::List(_) | Type::Map(_), _) => false,
        };
        if !is_right {
            self.wrong.push(format!("{place} is not {kind:?}: {value}"));
        }
    }
}

/// A command in a scene.
struct Scenario {
    /// The table of what it prints.
    table: &'static str,
    scene: Scene,
    /// What happens before.
    before: &'static str,
    command: &'static str,
    code: i32,
}

const fn scenario(
    table: &'static str,
    scene: Scene,
    before: &'static str,
    command: &'static str,
    code: i32,
) -> Scenario {
    Scenario {
        table,
        scene,
        before,
        command,
        code,
    }
}

/// Two sources that lost most of what they held.
const SHRUNK: &str =
    "seq 1 100000 >data/n; { echo '['; seq -s, 1 100000; echo ']'; } >registry.json
    SEALIFT_CLOCK=2026-04-08T06:00:00.25Z sealift backup; : >data/n; echo '[]' >registry.json
    SEALIFT_CLOCK=2026-04-09T06:00:00.25Z sealift backup";

/// One source that lost most of what it held, and one that fails.
const SHRUNK_AND_BROKEN: &str =
    "seq 1 100000 >data/n; SEALIFT_CLOCK=2026-04-08T06:00:00.25Z sealift backup
    : >data/n; echo '{' >registry.json";

/// A deployment of AtoCore whose registry is broken, and a command that prints a warning.
const ATOCORE: &str = "rm -f c.toml c.signer*; mkdir -p root/config; echo '{' >root/config/project-registry.json
    env -u SEALIFT_CLOCK sealift init --host h --recipient recipient.txt --preset atocore --root root --target repo
    cat >>c.toml <<END
[[source]]
kind = \"command\"
name = \"dump\"
command = \"echo rows; echo careful >&2\"
END";

/// A second target that was away during a backup.
const AWAY: &str = "printf '[[target]]\nname = \"second\"\nurl = \"./second\"\n' >>c.toml
    sealift backup; mkdir second";
/// One channel that works, and one that does not.
const CHANNELS: &str = "cat >>c.toml <<END
[[notify]]
name = \"ok\"
kind = \"command\"
command = [\"true\"]
[[notify]]
name = \"broken\"
kind = \"command\"
command = [\"false\"]
END";

const DAMAGED: &str = "for f in repo/dalidou/archives/*/*.age; do printf x >>$f; done";

use Scene::{Backup, Host, Keys, Nothing};

const SCENARIOS: &[Scenario] = &[
    scenario("backup", Backup, SHRUNK_AND_BROKEN, "backup", 3),
    scenario("backup", Backup, "", "push", 0),
    scenario("push --spooled", Backup, AWAY, "push --spooled", 0),
    scenario(
        "backup and error",
        Backup,
        "mv repo away; touch repo",
        "backup",
        1,
    ),
    scenario("backup --dry-run", Backup, MARKED, "backup --dry-run", 0),
    scenario(
        "backup --dry-run and error",
        Backup,
        REQUIRED,
        "backup --dry-run",
        1,
    ),
    scenario("snapshot", Keys, ATOCORE, "snapshot --tag t --note n", 3),
    scenario("snapshot", Host, "", "snapshot", 0),
    scenario("validate", Keys, "ATOCORE", "validate", 3),
    scenario("list", Backup, INVALID, "list", 0),
    scenario("ls", Backup, "", "ls latest", 0),
    scenario("ls --identity", Backup, LINKED, LS_REMOTE, 0),
    scenario("find", Backup, CHANGED, FIND, 0),
    scenario("find", Backup, DATABASE, FIND_ROWS, 0),
    scenario("find", Backup, LOST_INDEX, FIND, 3),
    scenario("versions", Backup, LOST_INDEX, VERSIONS, 3),
    scenario("diff", Backup, CHANGED, DIFF, 0),
    scenario("diff", Backup, DATABASE, DIFF_ROWS, 0),
    scenario("sql", Backup, QUERIED, SQL, 0),
    scenario("list", Backup, "sealift snapshot", "list", 0),
    scenario(
        "list --from",
        Backup,
        "",
        "list --from repo --accept-signer",
        0,
    ),
    scenario("status", Backup, SHRUNK, "status", 3),
    scenario("status", Host, "", "status", 3),
    scenario(
        "ack",
        Backup,
        "mv repo elsewhere; sealift status",
        "ack target_unknown",
        0,
    ),
    scenario("status --from", Backup, "", "status --from ./repo", 0),
    scenario("stats", Backup, "", "stats", 0),
    scenario("stats", Backup, "sealift backup", STATS_FROM, 0),
    scenario(
        "ack",
        Backup,
        SHRUNK,
        "ack shrunk --source data --note n",
        0,
    ),
    scenario("notify test", Backup, CHANNELS, "notify test ok", 0),
    scenario("notify test and error", Backup, CHANNELS, "notify test", 1),
    scenario("verify", Backup, "", "verify --data --identity key.txt", 0),
    scenario(
        "verify",
        Backup,
        DAMAGED,
        "verify --data --identity key.txt",
        3,
    ),
    scenario("verify and error", Backup, "rm -r repo", "verify", 1),
    scenario("prune", Backup, "sealift backup", "prune --dry-run", 0),
    scenario("prune", Backup, "sealift backup", "prune --forget 1", 0),
    scenario("prune --local", Backup, "", "prune --local --dry-run", 0),
    scenario("pin", Backup, "", "pin 20260407T060000Z", 0),
    scenario("sync", Backup, "", "sync ./repo ./other --dry-run", 0),
    scenario("sync and error", Backup, DAMAGED, "sync ./repo ./other", 1),
    scenario("restore", Backup, "", RESTORE, 0),
    scenario("restore --dry-run", Backup, "", RESTORE_DRY, 0),
    scenario("restore --via", Backup, "", RESTORE_VIA, 0),
    scenario(
        "restore --resume",
        Backup,
        "mkdir out",
        "restore --resume --to out",
        0,
    ),
    scenario(
        "restore --in-place",
        Backup,
        CHECKED,
        "restore --in-place --yes",
        3,
    ),
    scenario(
        "restore --in-place and error",
        Backup,
        FAILING,
        "restore --in-place --yes",
        1,
    ),
    scenario(
        "refused restore in place and error",
        Backup,
        "sed -i 's/^host = .*/host = \"other\"/' c.toml",
        "restore --in-place --yes",
        1,
    ),
    scenario(
        "restore --in-place --dry-run",
        Backup,
        CHECKED,
        "restore --in-place --dry-run",
        0,
    ),
    scenario("nothing to resume", Backup, "", "restore --resume", 0),
    scenario("restore --in-place", Backup, RESTORED, "rollback --yes", 0),
    scenario("rollback --list", Backup, RESTORED, "rollback --list", 0),
    scenario("rollback --list", Backup, PLANLESS, "rollback --list", 3),
    scenario("rollback --clean", Backup, CLEANABLE, "rollback --clean", 0),
    scenario("status", Backup, OPEN, "status --offline", 3),
    scenario("status", Backup, CLEANABLE, "status --offline", 0),
    scenario(
        "catalog rebuild",
        Backup,
        "",
        "catalog rebuild --identity key.txt",
        0,
    ),
    scenario("adopt", Backup, "", "adopt --yes", 0),
    scenario("adopt", Host, "", "adopt --after 0", 0),
    scenario(
        "init",
        Keys,
        "unset SEALIFT_CLOCK",
        "init --recipient recipient.txt --target repo --tree data",
        0,
    ),
    scenario(
        "target add",
        Backup,
        "unset SEALIFT_CLOCK",
        "target add second=other",
        0,
    ),
    scenario("target remove", Backup, "", "target remove folder", 0),
    scenario(
        "target test",
        Backup,
        "unset SEALIFT_CLOCK",
        "target test",
        0,
    ),
    scenario("target list", Backup, "", "target list", 0),
    scenario(
        "source add",
        Backup,
        "mkdir photos",
        "source add --tree photos",
        0,
    ),
    scenario("source add", Backup, "", "source remove data", 0),
    scenario("source list", Backup, "", "source list", 0),
    scenario("runs", Backup, "", "runs", 0),
    scenario("runs ID", Backup, "mkdir c.state/logs", "runs 0", 0),
    scenario("incident", Backup, "", "incident --note moved", 0),
    scenario("pause", Backup, "", "pause --note moved", 0),
    scenario("pause", Backup, "sealift pause", "resume", 0),
    scenario("unit", Backup, "", "unit --name backup", 0),
    scenario("config check", Backup, "", "config check --show", 0),
    scenario(
        "config check and error",
        Backup,
        "rm c.signer",
        "config check",
        2,
    ),
    scenario(
        "config check with [drill]",
        Backup,
        DRILLER,
        "config check",
        0,
    ),
    scenario("remote list", Backup, "", "remote add r repo", 0),
    scenario("remote list", Backup, REMEMBERED, "remote list", 0),
    scenario("remote test", Backup, REMEMBERED, "remote test r", 0),
    scenario("remote remove", Backup, REMEMBERED, "remote remove r", 0),
    scenario("remote trust", Backup, REMEMBERED, REMOTE_TRUST, 0),
    scenario("remote forget", Backup, REMEMBERED, "remote forget r", 0),
    scenario("key generate", Nothing, "", "key generate --output k", 0),
    scenario("key show", Keys, "", "key show key.txt", 0),
    scenario(
        "key check",
        Keys,
        "",
        "key check --identity key.txt recipient.txt",
        0,
    ),
    scenario(
        "key check and error",
        Keys,
        "sealift key generate --output k",
        "key check --identity k recipient.txt",
        1,
    ),
    scenario(
        "key paper",
        Keys,
        "",
        "key paper --identity key.txt --output page.html",
        0,
    ),
    scenario("key recipients", Backup, "", "key recipients", 0),
    scenario("key prove", Backup, DRILLER, PROVE, 0),
    scenario("key prove --collect", Backup, "", COLLECT, 0),
    scenario(
        "key prove",
        Backup,
        COLLECTED,
        "key prove --archive stick --output receipt",
        0,
    ),
    scenario("drill", Backup, DRILLER, DRILL, 0),
    scenario("drill", Backup, FAILING_DRILL, DRILL, 3),
    scenario("status", Backup, DRILLED, "status", 0),
    scenario("any command that fails", Nothing, "", "list", 2),
    scenario("any command that fails", Nothing, "", "list --nothing", 2),
    scenario("any command that fails", Nothing, "", "restore", 2),
    scenario("any command that fails", Nothing, "", "forget", 2),
    scenario("any command that fails", Nothing, "", "key list", 2),
    scenario("any command that fails", Nothing, "", "nonsense", 2),
    scenario("any command that fails", Nothing, "", "", 2),
    scenario(
        "any command that fails",
        Keys,
        "",
        "key show recipient.txt",
        1,
    ),
    scenario(
        "any command that fails",
        Nothing,
        "export SEALIFT_CLOCK=noon",
        "list",
        2,
    ),
];

/// The configuration of a machine that drills, and its key on the host.
const DRILLER: &str = "ssh-keygen -q -t ed25519 -N '' -f drill
    { printf 'drill@laptop namespaces=\"sealift-receipt\" '; cat drill.pub; } >>allowed_signers
    printf '[drill]\nfrom = \"./repo\"\nidentity = \"key.txt\"\nsigner = \"drill\"\nprincipal = \"drill@laptop\"\n' >d.toml
    printf '[[check]]\nname = \"c\"\ncommand = [\"true\"]\n' >>d.toml
    export SEALIFT_CONFIG=$PWD/d.toml";

const FAILING_DRILL: &str = "ssh-keygen -q -t ed25519 -N '' -f drill
    printf '[drill]\nfrom = \"./repo\"\nidentity = \"key.txt\"\nsigner = \"drill\"\ncheck_timeout = \"0s\"\n' >d.toml
    printf '[[check]]\nname = \"c\"\ncommand = [\"false\"]\n' >>d.toml; export SEALIFT_CONFIG=$PWD/d.toml";

const DRILL: &str = "drill --signer allowed_signers --keep --scratch .";
const PROVE: &str = "key prove --signer allowed_signers";
const COLLECT: &str = "key prove --from ./repo --accept-signer --collect stick";

const COLLECTED: &str = "ssh-keygen -q -t ed25519 -N '' -f drill
    printf '[drill]\nfrom = \"./repo\"\nidentity = \"key.txt\"\nsigner = \"drill\"\n' >d.toml
    sealift key prove --from ./repo --accept-signer --collect stick; export SEALIFT_CONFIG=$PWD/d.toml";

/// A drill that the host believes, and one that it does not.
const DRILLED: &str = "ssh-keygen -q -t ed25519 -N '' -f drill
    { printf 'drill@laptop namespaces=\"sealift-receipt\" '; cat drill.pub; } >>allowed_signers
    drill='sealift drill --from ./repo --identity key.txt --signer allowed_signers --signer-key drill'
    (unset SEALIFT_CONFIG; $drill --by drill@laptop; $drill --by drill@other)";

/// A directory that is left out.
const MARKED: &str = "mkdir data/scratch; touch data/scratch/.nobackup; echo x >data/scratch/x";

/// A source that is required, and fails.
const REQUIRED: &str = "echo 'required = true' >>c.toml; rm registry.json";

const STATS_FROM: &str = "stats --from ./repo --accept-signer";

/// A named place whose signer is known.
const REMEMBERED: &str = "sealift remote add r repo; sealift list --from r --accept-signer";

const REMOTE_TRUST: &str = "remote trust r --signer allowed_signers";

const LS_REMOTE: &str = "ls latest --from repo --accept-signer --identity key.txt --extents";

/// A source that failed its check, and a snapshot of a run that was killed.
const INVALID: &str =
    "echo '{' >registry.json; sealift snapshot; mkdir c.state/snapshots/.partial-20260401T000000Z";

const FIND: &str = "find '*' --from repo --accept-signer --identity key.txt";
const FIND_ROWS: &str = "find --rows 't>0' --from repo --accept-signer --identity key.txt";
const VERSIONS: &str = "versions data/link --from repo --accept-signer --identity key.txt";
const DIFF: &str = "diff 1 2 --from repo --accept-signer --identity key.txt";
const DIFF_ROWS: &str = "diff 1 2 --rows --from repo --accept-signer --identity key.txt";

/// A file with another content, and a symbolic link.
const CHANGED: &str = "echo more >data/notes.txt; ln -s notes.txt data/link; sealift backup";

/// The same, and one more snapshot whose index archive is gone.
const LOST_INDEX: &str =
    "ln -s notes.txt data/link; sealift backup; ls repo/dalidou/archives/* >old
    echo more >data/notes.txt; SEALIFT_CLOCK=2026-04-11T06:00:00Z sealift backup
    for f in repo/dalidou/archives/*/*.age; do grep -qF ${f##*/} old || rm -f $f; done";

/// A database that is new.
const DATABASE: &str = "printf '\n[[source]]\nkind = \"sqlite\"\npath = \"t.db\"\n' >>c.toml
    sqlite3 t.db 'create table t(a); insert into t values (1)'; sealift backup";
/// A database in a snapshot.
const QUERIED: &str = "python3 -c \"import sqlite3; sqlite3.connect('data/a.db').execute('create table t(a)')\"; sealift backup";
const SQL: &str =
    "sql latest data/a.db 'SELECT 1 AS COLUMN' --from repo --accept-signer --identity key.txt";

/// A symbolic link.
const LINKED: &str = "ln -s notes.txt data/link; sealift backup";

/// A check that fails before a restore and after it.
const CHECKED: &str = "printf '\n[[check]]\nname = \"c\"\ncommand = [\"false\"]\n[restore]\ncheck_timeout = \"1s\"\n' >>c.toml
    echo '{\"projects\": [1]}' >registry.json";

/// A check that fails with what is restored.
const FAILING: &str = "echo '{\"projects\": [1]}' >registry.json
    printf '\n[[check]]\nname = \"c\"\nfile = { path = \"registry.json\", contains = \"1\" }\n[restore]\ncheck_timeout = \"1s\"\n' >>c.toml";

const RESTORED: &str =
    "echo '{\"projects\": [1]}' >registry.json; sealift restore --in-place --yes";

/// A restore in place whose plan is damaged.
const PLANLESS: &str = "sealift restore --in-place --yes
    for plan in c.state/restores/*/plan.json; do echo >>$plan; done";

/// One safety copy that may be deleted, and one that stays.
const CLEANABLE: &str = "SEALIFT_CLOCK=2026-04-01T06:00:00.25Z sealift restore --in-place --yes
    sealift restore --in-place --yes";

/// A restore that was killed while it waited for the service to stop.
const OPEN: &str = "printf '\n[restore]\nstop = \"kill -9 $PPID\"\nstart = [\"true\"]\n' >>c.toml
    sealift restore --in-place --yes";

const RESTORE: &str = "restore latest --from repo --accept-signer --identity key.txt --to out";
/// Another host that is this one.
const RESTORE_VIA: &str =
    "restore latest --from repo --accept-signer --identity key.txt --in-place --via env";
const RESTORE_DRY: &str =
    "restore latest --from repo --accept-signer --identity key.txt --to out --dry-run";

/// Fields that need more than a scene: cold storage, a forged archive, another user, a power cut. They are compared whenever they occur.
const NOT_STAGED: &[(&str, &[&str])] = &[
    (
        "proven snapshot",
        &[
            "stamp",
            "sequence",
            "proven_at",
            "by",
            "target",
            "seconds",
            "bytes",
        ],
    ),
    ("key alive", &["recipient", "alive_after"]),
    (
        "trial restore",
        &["frozen_archives", "frozen_bytes", "what"],
    ),
    ("version", &["path_b64", "target_b64"]),
    ("versions", &["path_b64"]),
    ("content version", &["target_b64", "target"]),
    ("change", &["path_b64"]),
    ("compared side", &["dir"]),
    ("diff", &["skipped"]),
    (
        "ls --identity",
        &["path_b64", "xattrs", "target_b64", "rdev", "torn"],
    ),
    ("not kept", &["kind", "count", "paths", "why", "expected"]),
    ("resumed restore", &["stamp", "to", "moved_aside"]),
];

/// Runs a scenario and returns what it printed on stdout.
fn run(scenario: &Scenario) -> Value {
    let shell = Shell::new(scenario.scene);
    let before = match scenario.before {
        "ATOCORE" => format!("{ATOCORE}\nsealift snapshot"),
        before => before.to_owned(),
    };
    if before.contains("--preset atocore") {
        let dir = shell.dir().join("root/data/db");
        fs::create_dir_all(&dir).unwrap();
        let db = rusqlite::Connection::open(dir.join("atocore.db")).unwrap();
        db.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
            .unwrap();
    }
    // A time with a fraction, which no report shows.
    let script = format!(
        "export SEALIFT_CLOCK=2026-04-10T06:00:00.75Z\n{{ :; {before}\n}} >/dev/null 2>&1\nsealift --json {} 2>/dev/null",
        scenario.command
    );
    let (code, said) = shell.run(&script);
    let told = || {
        shell
            .run(&format!("sealift --json {} 2>&1", scenario.command))
            .1
    };
    assert_eq!(
        code,
        scenario.code,
        "{}: {said}\n{}",
        scenario.command,
        told()
    );
    serde_json::from_str(&said).unwrap_or_else(|error| {
        panic!("{}: {error}: {said}\n{}", scenario.command, told());
    })
}

#[test]
fn every_command_prints_what_the_document_says() {
    let schema = Schema::read();
    let mut comparison = Comparison {
        schema: &schema,
        seen: BTreeSet::new(),
        wrong: Vec::new(),
    };
    let printed = std::thread::scope(|scope| {
        let half = SCENARIOS.len() / 2;
        let first = scope.spawn(move || SCENARIOS[..half].iter().map(run).collect::<Vec<_>>());
        let second: Vec<_> = SCENARIOS[half..].iter().map(run).collect();
        [first.join().unwrap(), second].concat()
    });
    for (scenario, mut value) in SCENARIOS.iter().zip(printed) {
        let place = scenario.command;
        let table = match scenario.table.strip_suffix(" and error") {
            Some(table) => {
                let error = value
                    .as_object_mut()
                    .and_then(|object| object.remove("error"));
                comparison.object(
                    &format!("{place}: error"),
                    "error",
                    &error.unwrap_or_default(),
                );
                table
            }
            None => scenario.table,
        };
        match &value {
            Value::Array(all) => all
                .iter()
                .for_each(|one| comparison.object(place, table, one)),
            value => comparison.object(place, table, value),
        }
        let code = value.pointer("/error/exit_code").and_then(Value::as_i64);
        assert!(
            code.is_none_or(|code| code == i64::from(scenario.code)),
            "{place}"
        );
    }
    assert!(
        comparison.wrong.is_empty(),
        "{}",
        comparison.wrong.join("\n")
    );
    let is_staged = |object: &str, field: &str| {
        let found = NOT_STAGED.iter().find(|(name, _)| *name == object);
        found.is_none_or(|(_, fields)| !fields.contains(&field))
    };
    let mut unseen = Vec::new();
    for (object, fields) in &schema.objects {
        for field in fields.keys() {
            let seen = comparison.seen.contains(&(object.clone(), field.clone()));
            if !seen && is_staged(object, field) {
                unseen.push(format!("{object}: {field}"));
            }
        }
    }
    assert!(
        unseen.is_empty(),
        "documented, and no scenario has it:\n{}",
        unseen.join("\n")
    );
}

#[test]
fn every_command_has_a_section_or_prints_no_json() {
    let schema = Schema::read();
    let commands = commands(&Shell::new(Nothing));
    for command in &commands {
        let is_group = commands
            .iter()
            .any(|other| other.starts_with(&format!("{command} ")));
        let same = match command.as_str() {
            "push" => "backup",
            "resume" => "pause",
            command => command,
        };
        let prints_none = [
            "cat",
            "demo",
            "serve",
            "mount",
            "open",
            "completions",
            "man",
            "help",
        ]
        .contains(&same);
        let is_documented = schema.sections.contains(same);
        assert!(
            is_group || prints_none || is_documented,
            "docs/json.md lacks `### {command}`"
        );
    }
}

#[test]
fn a_failure_is_one_object_on_stdout_and_text_on_stderr() {
    let shell = Shell::new(Scene::Nothing);
    let (code, out) = shell.run("sealift --json list 2>err");
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &object["error"]["exit_code"]), (2, &Value::from(2)));
    let text = object["error"]["text"].as_str().unwrap();
    assert!(shell.ok("cat err").contains(text));
    // A usage error is an object too, wherever the option is, and only if it is one.
    for (line, is_json) in [
        ("list --nothing --json", true),
        ("list --nothing", false),
        ("list --nothing -- --json", false),
    ] {
        let (_, out) = shell.run(&format!("sealift {line} 2>/dev/null"));
        assert_eq!(
            serde_json::from_str::<Value>(&out).is_ok(),
            is_json,
            "{line}: {out}"
        );
    }
    // Commands that print no JSON print none for a failure either.
    let (_, out) = shell.run("sealift --json open none.age --identity none.txt 2>/dev/null");
    assert_eq!(out, "");
}
