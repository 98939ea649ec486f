//! What people and programs see of a run while it goes on: lines on a terminal, `--verbose`, `--quiet`, and
//! `--events-fd`.

mod events;
pub(super) mod screen;

use std::time::{Duration, Instant};

use crate::shell::{Scene, Shell};
use screen::Frames;

/// Runs a command on a terminal of its own, `columns` wide, and prints what it wrote. Ctrl-C comes once `stop` was
/// written.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
columns, stop, command = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.execvp(command[0], command)
said, stopped = b"", not stop
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if not stopped and stop in said:
        stopped = True
        os.write(terminal, b"\x03")
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// A host whose target `folder` takes 2 MB a second, with some seconds of work for it. A second target lets the spool
/// keep its files, which the first would link otherwise.
fn slow_host() -> Shell {
    let shell = Shell::new(Scene::Host);
    shell.ok("head -c 5000000 /dev/urandom >data/noise.bin");
    shell.ok("sed -i '/^url = .*repo/a upload = \"2MB\"' c.toml && grep -q upload c.toml");
    shell.ok("mkdir second; printf '\n[[target]]\nname = \"second\"\nurl = \"file://%s/second\"\n' \"$PWD\" >>c.toml");
    std::fs::write(shell.dir().join("on_a_terminal.py"), ON_A_TERMINAL).unwrap();
    shell
}

/// Runs `sealift` on a terminal. Returns the exit code and what it wrote, byte by byte.
fn on_a_terminal(
    shell: &Shell,
    term: &str,
    columns: usize,
    stop: &str,
    args: &str,
) -> (i32, String) {
    shell.run(&format!(
        "TERM={term} NO_COLOR=1 LANG=C env -u SEALIFT_CLOCK python3 on_a_terminal.py {columns} '{stop}' sealift {args}"
    ))
}

#[test]
fn on_a_terminal_reading_and_each_target_have_a_line_and_nothing_stays_behind() {
    let shell = slow_host();
    shell.ok("printf '\n[[target]]\nname = \"usb\"\nurl = \"file:///nowhere/usb\"\n' >>c.toml");
    let (code, said) = on_a_terminal(&shell, "xterm", 80, "", "backup");
    assert_eq!(code, 3, "{said}");
    let frames = Frames::of(&said, 80);
    // One line for reading, and of each target what it does.
    assert!(
        frames.any(|line| line.starts_with("read 4 files, 5.00 MB, 5.00 MB new")),
        "{frames}"
    );
    assert!(
        frames.any(|line| line.starts_with("  usb ") && line.contains("away: ")),
        "{frames}"
    );
    let sends = |line: &str| line.starts_with("  folder") && line.contains("sending ");
    assert!(
        frames.any(|line| sends(line) && line.contains(" %, ") && line.contains("/s, ETA 0:0")),
        "{frames}"
    );
    // It moves within the one large archive.
    let percentages = frames.numbers_before(" %", sends);
    let within = percentages
        .iter()
        .filter(|percent| (1..100).contains(*percent));
    assert!(within.count() >= 3, "{percentages:?}");
    assert!(percentages.is_sorted(), "{percentages:?}");
    let drawn = [
        "read ",
        "reading ",
        "  folder  ",
        "  second  ",
        "  usb     ",
    ];
    for line in frames
        .lines()
        .filter(|line| drawn.iter().any(|start| line.starts_with(start)))
    {
        assert!(line.chars().count() < 80, "{line:?}");
    }
    // No line of progress stays.
    let last = frames.last();
    assert!(
        !last
            .iter()
            .any(|line| sends(line) || line.starts_with("read ")),
        "{last:?}"
    );
    assert!(
        last.iter().any(|line| line.starts_with("snapshot ")),
        "{last:?}"
    );
}

#[test]
fn a_narrow_terminal_gets_short_lines_and_stays_clean() {
    let shell = slow_host();
    let (code, said) = on_a_terminal(&shell, "xterm", 30, "", "backup");
    assert_eq!(code, 0, "{said}");
    let frames = Frames::of(&said, 30);
    assert!(
        frames.any(|line| line.starts_with("  folder  sending ")),
        "{frames}"
    );
    assert!(
        !frames.last().iter().any(|line| line.contains("sending")),
        "{frames}"
    );
}

#[test]
fn a_dumb_terminal_gets_one_line_without_escapes() {
    let shell = slow_host();
    let (code, said) = on_a_terminal(&shell, "dumb", 80, "", "backup");
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains('\x1b'), "{said:?}");
    let frames = Frames::of(&said, 80);
    assert!(
        said.contains("\rread 4 files, 5.00 MB, 5.00 MB new; folder  sending "),
        "{said:?}"
    );
    assert!(
        !frames.last().iter().any(|line| line.contains("read 4")),
        "{frames}"
    );
}

#[test]
fn an_interrupted_run_leaves_a_clean_terminal_and_says_so() {
    let shell = slow_host();
    let (code, said) = on_a_terminal(
        &shell,
        "xterm",
        80,
        " sending ",
        "backup --events-fd 3 3>events",
    );
    assert_eq!(code, 1, "{said}");
    let frames = Frames::of(&said, 80);
    let last = frames.last();
    assert!(
        last.iter()
            .any(|line| line.contains("interrupted; finished work is kept")),
        "{last:?}"
    );
    assert!(
        !last.iter().any(|line| line.contains("sending ")),
        "{last:?}"
    );
}

#[test]
fn a_restore_and_a_reading_of_all_archives_show_bytes_and_percent() {
    let shell = slow_host();
    shell.ok("sealift -q backup && sed -i 's/^upload = .*/download = \"2MB\"/' c.toml");
    for (args, verb) in [
        ("verify --data", "reading archives: dalidou on folder, "),
        (
            "restore --identity key.txt --to out --accept-signer",
            "restoring, ",
        ),
    ] {
        let (code, said) = on_a_terminal(&shell, "xterm", 80, "", args);
        assert_eq!(code, 0, "{said}");
        let frames = Frames::of(&said, 80);
        let percentages = frames.numbers_before(" %", |line| line.starts_with(verb));
        let within = percentages
            .iter()
            .filter(|percent| (1..100).contains(*percent));
        assert!(within.count() >= 3, "{args}: {percentages:?}\n{frames}");
        assert!(
            !frames.last().iter().any(|line| line.starts_with(verb)),
            "{frames}"
        );
    }
}

#[test]
fn without_a_terminal_only_verbose_says_what_is_done_and_quiet_says_nothing() {
    let shell = Shell::new(Scene::Host);
    let usual = shell.ok("env -u SEALIFT_CLOCK sealift backup 2>&1 >/dev/null");
    assert_eq!(usual, "");
    let verbose = shell.ok("env -u SEALIFT_CLOCK sealift -v backup 2>&1 >/dev/null");
    let stages = [
        "copying the sources: data",
        "looking at the targets",
        "packing",
        "sending",
        "publishing: folder",
    ];
    let mut places = stages.iter().map(|stage| {
        verbose
            .find(stage)
            .unwrap_or_else(|| panic!("{stage}: {verbose}"))
    });
    assert!(places.by_ref().is_sorted(), "{verbose}");
    assert!(!verbose.contains('\x1b'), "{verbose:?}");
    assert_eq!(shell.ok("env -u SEALIFT_CLOCK sealift -q backup 2>&1"), "");
    let (code, both) = shell.run("sealift -q -v backup");
    assert_eq!(code, 2, "{both}");
    std::fs::write(shell.dir().join("on_a_terminal.py"), ON_A_TERMINAL).unwrap();
    let (code, said) = on_a_terminal(&shell, "xterm", 80, "", "-q backup");
    assert_eq!((code, said.as_str()), (0, ""));
}

#[test]
fn a_command_that_waits_for_a_target_is_not_silent() {
    let shell = Shell::new(Scene::Host);
    std::fs::write(shell.dir().join("on_a_terminal.py"), ON_A_TERMINAL).unwrap();
    // A server that accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", silent.local_addr().unwrap());
    shell.ok(&format!(
        "sed -i 's|^url = .*|url = \"{url}\"\\ntimeout = \"2s\"\\nretry = \"2s\"|' c.toml"
    ));
    let began = Instant::now();
    let (_, said) = on_a_terminal(&shell, "xterm", 80, "", "status");
    assert!(began.elapsed() > Duration::from_secs(1), "{said}");
    let frames = Frames::of(&said, 80);
    assert!(
        frames.any(|line| line.starts_with("looking at the targets: folder, 0:01")),
        "{frames}"
    );
    assert!(
        !frames.last().iter().any(|line| line.starts_with("looking")),
        "{frames}"
    );
}
