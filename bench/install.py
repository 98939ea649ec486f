"""`bench/run setup`: installs what it can of the tools to compare with, and says what it could not.

Programs go below the work directory; only Debian's packages go to the system, and only as root (or with sudo).
A tool that is missing afterwards is left out of the comparison. To compare with another version of a tool, or
with one that this does not install, put its binary on PATH or into `tools/bin` of the work directory.
"""

import os
import re
import shutil
import subprocess

import tools

NAMES = ("debian", "python", "restic", "borg", "rustic", "bupstash", "vykar")
# Programs and libraries by Debian's package; hyperfine is for experiments by hand.
PROGRAMS = {
    "age": "age",
    "zstd": "zstd",
    "rsync": "rsync",
    "tar": "tar",
    "sqlite3": "sqlite3",
    "time": "time",
    "hyperfine": "hyperfine",
    "cc": "build-essential",
    "pkg-config": "pkg-config",
    "restic": "restic",
}
LIBRARIES = ("libacl1-dev", "libssl-dev", "liblz4-dev", "libzstd-dev", "libxxhash-dev", "libsodium-dev")
NEWER_DEBIAN = "trixie"  # the next release, which has a restic of this decade
BORG = "borgbackup<2"
PYTHON = ("matplotlib", "chromadb")
CRATES = {"rustic": ("rustic-rs@0.11.4", "--no-default-features"), "bupstash": ("bupstash@0.12.0",)}


def run(work, options):
    work.root.mkdir(parents=True, exist_ok=True)
    wanted = options.only or NAMES
    notes = {}
    for name in NAMES:
        if name in wanted:
            print(f"setup: {name}", flush=True)
            notes[name] = {"debian": debian, "python": python, "restic": restic, "borg": borg}.get(name, crate)(
                work, name
            )
    for name in ("debian", "python"):
        if notes.get(name):
            print(f"{name:14} {notes[name]}")
    found, missing = tools.installed(work, None, tools.NAMES[1:])
    for tool in found:
        print(f"{tool.name:14} {tool.version()}")
    for name, why in missing.items():
        print(f"{name:14} LEFT OUT, {why}. {notes.get(name, '')}")
    return 0


def attempt(command, environment=None, **options):
    """'' where the command succeeded, else the end of what it said."""
    try:
        done = subprocess.run(
            list(map(str, command)),
            env=os.environ | (environment or {}),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            **options,
        )
    except OSError as failed:
        return str(failed)
    if done.returncode == 0:
        return ""
    return "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])


def debian(work, name):
    wanted = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    wanted += [package for package in LIBRARIES if attempt(["dpkg", "-s", package])]
    if not wanted:
        return ""
    apt = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *wanted]
    if os.geteuid():
        apt = ["sudo", "-n", *apt]
    failed = attempt(apt, {"DEBIAN_FRONTEND": "noninteractive"})
    return f"please install: {' '.join(wanted)} ({failed})" if failed else ""


def python(work, name):
    """The packages that make the data and draw the curves, in a virtual environment of their own."""
    failed = venv(work)
    for package in PYTHON:
        failed = failed or pip(work, package)
    return failed


def venv(work):
    return "" if (work.venv / "bin" / "pip").exists() else attempt(["python3", "-m", "venv", work.venv])


def pip(work, package):
    return attempt([work.venv / "bin" / "pip", "install", "--quiet", package])


def borg(work, name):
    """From PyPI, which has the current one; Debian's if that can't be built."""
    failed = venv(work) or pip(work, BORG)
    if failed and not work.find("borg"):
        return f"{failed}; Debian's package: borgbackup"
    return failed


def restic(work, name):
    """The one of Debian's next release, unpacked beside the system, not installed: it is a single binary.

    Its package list is kept apart from the system's, so nothing else can come from there."""
    if (work.tools / "bin" / "restic").exists():
        return ""
    uri = (
        subprocess.run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"],
            capture_output=True,
            text=True,
        ).stdout
        if shutil.which("apt-get")
        else ""
    )
    match = re.search(r"^Debian [a-z]+ (\S+)$", uri, re.MULTILINE)
    if not match:
        return "the system's own is used"
    apt = work.scratch("apt")
    for folder in ("lists/partial", "cache/archives/partial", "unpacked"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb {match[1]} {NEWER_DEBIAN} main\n")
    apart = [
        f"-o{key}={value}"
        for key, value in {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": apt / "lists",
            "Dir::Cache": apt / "cache",
            "Dir::State::status": apt / "status",
            "APT::Sandbox::User": "root",
        }.items()
    ]
    failed = attempt(["apt-get", *apart, "-qq", "update"]) or attempt(
        ["apt-get", *apart, "-qq", "download", "restic"], cwd=apt
    )
    for package in apt.glob("restic_*.deb"):
        failed = failed or attempt(["dpkg", "-x", package, apt / "unpacked"])
    binary = apt / "unpacked/usr/bin/restic"
    if failed or not tools.first_line([binary, "version"]):
        return f"the system's own is used ({failed or 'the newer one does not run here'})"
    (work.tools / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy2(binary, work.tools / "bin" / "restic")
    return ""


def crate(work, name):
    if work.find(name):
        return ""
    if name not in CRATES:
        return (
            f"It is on no registry: build it or get its release, and put `{name}` on PATH or into {work.tools / 'bin'}."
        )
    jobs = max(1, (os.cpu_count() or 2) // 2)
    failed = attempt(
        ["nice", "-n", "19", "cargo", "install", f"-j{jobs}", "--locked", "--root", work.tools, *CRATES[name]],
        {"CARGO_TARGET_DIR": str(work.root / "build")},
    )
    shutil.rmtree(work.root / "build", ignore_errors=True)
    return failed
