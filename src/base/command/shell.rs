//! Chooses the shell that runs command lines: one that reports a failed first part of a pipeline,
//! if the host has one.
//!
//! `dump | gzip` exits as `gzip` does: a plain shell reports half a dump as a success. So lines are
//! run by `bash -o pipefail`, or by a `/bin/sh` that knows `pipefail`.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use rustix::fs::{Access, access};

const SH: &str = "/bin/sh";
const PLACES_OF_BASH: [&str; 3] = ["/bin", "/usr/bin", "/usr/local/bin"];
/// A shell adds this to the number of the signal that ended its command.
const BY_SIGNAL: i32 = 128;

/// A shell of this host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shell {
    program: PathBuf,
    pipefail: bool,
}

impl Shell {
    /// Returns the shell that this host runs command lines with.
    pub(crate) fn get() -> &'static Self {
        static SHELL: OnceLock<Shell> = OnceLock::new();
        SHELL.get_or_init(|| {
            let usual = PLACES_OF_BASH.iter().map(PathBuf::from);
            let path = std::env::var_os("PATH").unwrap_or_default();
            let others = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
            Self::among(usual.chain(others), Path::new(SH))
        })
    }

    fn among(places: impl Iterator<Item = PathBuf>, sh: &Path) -> Self {
        let mut bashes = places.map(|dir| dir.join("bash"));
        let bash =
            bashes.find(|bash| access(bash, Access::EXEC_OK).is_ok() && knows_pipefail(bash));
        match bash {
            Some(program) => Self {
                program,
                pipefail: true,
            },
            None => Self {
                program: sh.to_owned(),
                pipefail: knows_pipefail(sh),
            },
        }
    }

    /// Returns the command that runs `line`.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        if self.pipefail {
            command.args(["-o", "pipefail"]);
        }
        command.args(["-c", line]);
        command
    }

    /// Returns a warning if a part of `line`, shown as `brief`, may fail unnoticed.
    pub(crate) fn warning(&self, line: &str, brief: &str) -> Option<String> {
        (!self.pipefail && has_pipe(line)).then(|| {
            format!(
                "`{brief}` is a pipeline, and {} on this host does not report a failed part of it: install bash",
                self.program.display()
            )
        })
    }
}

fn knows_pipefail(shell: &Path) -> bool {
    let mut asked = Command::new(shell);
    asked.args(["-o", "pipefail", "-c", ":"]);
    let asked = asked
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

/// Whether `line` has a `|` outside of quotes that is not part of `||`.
fn has_pipe(line: &str) -> bool {
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => drop(chars.next()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('|', None) if chars.next_if_eq(&'|').is_none() => return true,
            _ => {}
        }
    }
    false
}

/// Describes how a command ended, with the meaning of a shell's exit status.
pub(super) fn explain(status: ExitStatus, is_shell: bool) -> String {
    let killed = "it was killed, as the system does when memory runs out";
    let meaning = match (status.signal(), status.code()) {
        (Some(9), _) => killed.to_owned(),
        (None, Some(126)) if is_shell => "the program is not executable".to_owned(),
        (None, Some(127)) if is_shell => "the program is not found".to_owned(),
        (None, Some(code)) if is_shell && code > BY_SIGNAL && code < BY_SIGNAL + 65 => {
            match code - BY_SIGNAL {
                9 => killed.to_owned(),
                13 => "a later part of the pipeline, such as head, ended before it had read all input; let it read \
                       to the end, or begin the line with `set +o pipefail;`"
                    .to_owned(),
                signal => format!("signal {signal} ended it"),
            }
        }
        _ => return status.to_string(),
    };
    format!("{status} ({meaning})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn pipes_are_distinguished_from_other_bars() {
        for (line, expected) in [
            ("a | b", true),
            ("a|b", true),
            ("a |& b", true),
            ("a || b | c", true),
            ("a || b", false),
            ("grep 'x|y' f", false),
            ("grep \"x|y\" f", false),
            ("grep x\\|y f", false),
            ("a 'it' | b", true),
        ] {
            assert_eq!(has_pipe(line), expected, "{line}");
        }
    }

    #[test]
    fn a_failing_part_fails_the_line_if_the_shell_knows_pipefail() {
        let shell = Shell::get();
        let failed = |line: &str| !shell.command(line).status().unwrap().success();
        assert!(failed("exit 3"));
        assert_eq!(failed("false | true"), shell.pipefail);
        assert_eq!(shell.warning("a | b", "a …").is_some(), !shell.pipefail);
    }

    #[test]
    fn without_bash_a_pipeline_is_warned_of_unless_sh_knows_pipefail() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: &str, script: &str| {
            let path = temp.path().join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        // Like dash, which refuses the option, and like busybox, which knows it.
        let plain = write(
            "plain",
            "#!/bin/sh\n[ \"$1\" != -o ] || exit 2\nexec /bin/sh \"$@\"\n",
        );
        let knowing = write(
            "knowing",
            "#!/bin/sh\n[ \"$1\" != -o ] || shift 2\nexec /bin/sh \"$@\"\n",
        );
        let shell = Shell::among(std::iter::empty(), &plain);
        assert!(!shell.pipefail && shell.warning("a || b", "a …").is_none());
        assert!(
            shell
                .warning("a | b", "a …")
                .unwrap()
                .contains("install bash")
        );
        assert!(shell.command("exit 0").status().unwrap().success());
        let shell = Shell::among(std::iter::once(temp.path().to_owned()), &knowing);
        assert!(shell.pipefail && shell.program == knowing);
        let bash = write("bash", "#!/bin/sh\nexit 0\n");
        let shell = Shell::among(std::iter::once(temp.path().to_owned()), &plain);
        assert_eq!(shell.program, bash);
    }

    #[test]
    fn exit_statuses_are_explained() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        for (status, is_shell, expected) in [
            (exit(3), true, "exit status: 3"),
            (
                exit(127),
                true,
                "exit status: 127 (the program is not found)",
            ),
            (exit(127), false, "exit status: 127"),
            (exit(143), true, "exit status: 143 (signal 15 ended it)"),
            (ExitStatus::from_raw(15), false, "signal: 15 (SIGTERM)"),
        ] {
            assert_eq!(explain(status, is_shell), expected);
        }
        assert!(explain(exit(141), true).contains("a later part of the pipeline"));
        assert!(explain(ExitStatus::from_raw(9), false).contains("memory"));
    }
}
