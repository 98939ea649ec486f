//! A directory in which shell commands run the program, as an operator would type them.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::host::SEALIFT;

/// The program's time, unless a command sets another.
const CLOCK: &str = "2026-04-07T06:00:00Z";

/// The content of the directory before the first command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// None.
    Nothing,
    /// The directory `data`, a file `registry.json`, and the identity `key.txt` with its recipient in `recipient.txt`.
    Keys,
    /// The same and the host `dalidou`, with its configuration `c.toml`: the tree `data`, read in place, the file
    /// `registry.json`, copied; and the folder `repo` as its target.
    Host,
    /// The same and one backup of that host.
    Backup,
}

impl Scene {
    pub fn named(text: &str) -> Self {
        match text {
            "nothing" => Self::Nothing,
            "keys" => Self::Keys,
            "host" => Self::Host,
            "backup" => Self::Backup,
            _ => panic!("no scene is called {text}"),
        }
    }

    /// The commands that make it.
    fn set_up(self) -> String {
        let steps = [
            (
                Self::Keys,
                r#"mkdir data; echo hello >data/notes.txt; echo '{"projects": []}' >registry.json
                touch -d 2026-04-06T12:00:00Z data/notes.txt data registry.json
                sealift key generate --output key.txt >recipient.txt"#,
            ),
            (
                Self::Host,
                r#"env -u SEALIFT_CLOCK sealift init --host dalidou --recipient recipient.txt --target repo --tree data
                printf '\n[[source]]\nkind = "json"\npath = "registry.json"\n' >>c.toml"#,
            ),
            (Self::Backup, "sealift --quiet backup"),
        ];
        let steps = steps.iter().filter(|(scene, _)| *scene <= self);
        let steps: Vec<&str> = steps.map(|(_, step)| *step).collect();
        format!("set -e\n{}", steps.join("\n"))
    }
}

pub struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    pub fn new(scene: Scene) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shell = Self { dir };
        shell.ok(&scene.set_up());
        shell
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `script`. Returns its exit code and what it printed to either stream.
    pub fn run(&self, script: &str) -> (i32, String) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let programs = Path::new(SEALIFT).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("umask 022\n{script}")])
            .current_dir(self.dir())
            .env_clear()
            .env("PATH", format!("{programs}:{path}"))
            .env("HOME", self.dir())
            .env("TZ", "UTC")
            .env("SEALIFT_CONFIG", "c.toml")
            .env("SEALIFT_CLOCK", CLOCK)
            .env("SEALIFT_MACHINE_ID", "machine-1")
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer);
        let mut child = command.spawn().unwrap();
        // It holds the pipe's other end.
        drop(command);
        let mut said = Vec::new();
        reader.read_to_end(&mut said).unwrap();
        let code = child.wait().unwrap().code().expect("an exit code");
        (code, String::from_utf8(said).unwrap())
    }

    /// Runs a script that must end with exit code 0. Returns what it printed.
    pub fn ok(&self, script: &str) -> String {
        let (code, said) = self.run(script);
        assert_eq!(code, 0, "{script}\n{said}");
        said
    }
}
