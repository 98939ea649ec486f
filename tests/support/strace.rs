//! What a program opens for writing, as the system sees it. By `strace`.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// `command`, traced: calls that open files go to `trace`. The process that is started is `command` itself.
pub fn traced(command: &Command, trace: &Path) -> Command {
    let mut tracer = Command::new("strace");
    tracer
        .args(["-D", "-f", "-qq", "-y", "-s", "4096", "-e", "signal=none"])
        .args(["-e", "trace=open,openat,openat2,creat,memfd_create"])
        .arg("-o")
        .arg(trace)
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(command.get_current_dir().unwrap());
    tracer
}

/// The files that a trace has as opened, or tried to open, for writing. `dir` is the working directory.
pub fn written(trace: &str, dir: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for line in trace.lines() {
        let Some((_, call)) = line
            .split_once("open")
            .filter(|_| !line.contains("resumed>"))
        else {
            assert!(
                !line.contains("memfd_create") && !line.contains("creat("),
                "{line}"
            );
            continue;
        };
        let arguments = call.split_once('(').unwrap().1;
        let (before, rest) = arguments.split_once('"').unwrap();
        let (path, flags) = rest.split_once('"').unwrap();
        let ways = [
            "O_WRONLY",
            "O_RDWR",
            "O_CREAT",
            "O_TMPFILE",
            "O_TRUNC",
            "O_APPEND",
        ];
        if !ways.iter().any(|way| flags.contains(way)) {
            continue;
        }
        // `-y` prints the directory: 3</dir>.
        let at = before
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        let base = at.map_or(dir, |(base, _)| Path::new(base));
        let mut whole = PathBuf::new();
        for part in base.join(path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => drop(whole.pop()),
                part => whole.push(part),
            }
        }
        all.insert(whole);
    }
    all
}
