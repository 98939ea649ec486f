"""The tools that are compared: how each makes a repository, pushes a tree to it and restores the newest push.

Compression is zstd at level 3 or what the tool makes of it by default (restic's `auto` and rustic's default
are zstd's default level; vykar's default is lz4, so zstd is set). All encrypt. The number of threads is not set.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from measure import Step


class Failed(Exception):
    """An unmeasured command of a tool failed; its text says which and why."""


@dataclass(frozen=True)
class Place:
    """Where one tool works: its own folder is its HOME, so that caches are its own and fresh."""

    folder: Path
    live: Path  # the tree to push; the same path for all tools

    @property
    def repository(self):
        return self.folder / "repository"


class Tool:
    """`binaries` maps a program's name to its path; the first is the tool's own."""

    name = ""
    programs = ()

    def __init__(self, binaries):
        self.binaries = binaries

    def version(self):
        return first_line([self.binaries[self.programs[0]], "--version"])

    def environment(self, place):
        """What the tool wants beyond HOME and PATH."""
        return {}

    def step(self, place, *pipeline, cwd=None):
        """Programs are named by their bare names here."""
        located = [[self.binaries[name], *arguments] for name, *arguments in pipeline]
        environment = {"HOME": str(place.folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        return Step(located, cwd or place.folder, environment | self.environment(place))

    def output(self, place, program):
        """What a program prints; unmeasured. Raises `Failed`."""
        step = self.step(place, program)
        try:
            done = subprocess.run(
                list(map(str, step.pipeline[0])),
                cwd=step.cwd,
                env=step.environment,
                text=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=120,
            )
        except (OSError, subprocess.TimeoutExpired) as failed:
            raise Failed(f"{program[0]}: {failed}")
        if done.returncode:
            raise Failed(f"{program[0]} {program[1]}: exit code {done.returncode}: {done.stderr.strip()[-1000:]}")
        return done.stdout.strip()

    def init(self, place):
        """Makes the repository; unmeasured. Raises `Failed`."""
        raise NotImplementedError

    def push(self, place, number):
        """The step that pushes the live tree; `number` is 1 for the first push."""
        raise NotImplementedError

    def restore(self, place, number, out):
        """The step that restores push `number`, the newest, to `out`, an empty directory."""
        raise NotImplementedError

    def restored(self, place, out):
        """Where in `out` the tree stands then."""
        return out / place.live.relative_to("/")


class Sealift(Tool):
    name = "sealift"
    programs = ("sealift",)

    def init(self, place):
        recipient = self.output(place, ["sealift", "key", "generate", "--output", "key.txt"])
        self.output(
            place,
            [
                "sealift",
                "--config",
                "s.toml",
                "init",
                "--host",
                "bench",
                "--recipient",
                recipient,
                "--target",
                place.repository,
                "--tree",
                place.live,
            ],
        )

    def push(self, place, number):
        return self.step(place, ["sealift", "--quiet", "--config", "s.toml", "backup"])

    def restore(self, place, number, out):
        return self.step(
            place,
            [
                "sealift",
                "--quiet",
                "restore",
                "latest",
                "--from",
                place.repository,
                "--identity",
                "key.txt",
                "--accept-signer",
                "--to",
                out,
            ],
        )

    def restored(self, place, out):
        return out / place.live.name

    def state(self, place):
        """The host's state directory."""
        return place.folder / "s.state"


class Restic(Tool):
    name = "restic"
    programs = ("restic",)

    def version(self):
        return first_line([self.binaries["restic"], "version"])

    def environment(self, place):
        return {"RESTIC_REPOSITORY": str(place.repository), "RESTIC_PASSWORD": "x"}

    def init(self, place):
        self.output(place, ["restic", "-q", "init"])

    def push(self, place, number):
        return self.step(place, ["restic", "-q", "backup", place.live])

    def restore(self, place, number, out):
        return self.step(place, ["restic", "-q", "restore", "latest", "--target", out])


class Rustic(Tool):
    name = "rustic"
    programs = ("rustic",)

    def environment(self, place):
        return {"RUSTIC_REPOSITORY": str(place.repository), "RUSTIC_PASSWORD": "x", "RUSTIC_NO_PROGRESS": "true"}

    def init(self, place):
        self.output(place, ["rustic", "init"])

    def push(self, place, number):
        return self.step(place, ["rustic", "backup", place.live])

    def restore(self, place, number, out):
        return self.step(place, ["rustic", "restore", "latest", out])


class Borg(Tool):
    name = "borg"
    programs = ("borg",)

    def environment(self, place):
        return {"BORG_REPO": str(place.repository), "BORG_PASSPHRASE": "x"}

    def init(self, place):
        self.output(place, ["borg", "init", "--encryption=repokey-blake2"])

    def push(self, place, number):
        return self.step(place, ["borg", "create", "--compression", "zstd,3", f"::{number}", place.live])

    def restore(self, place, number, out):
        return self.step(place, ["borg", "extract", f"::{number}"], cwd=out)


class Bupstash(Tool):
    name = "bupstash"
    programs = ("bupstash",)

    def version(self):
        return first_line([self.binaries["bupstash"], "version"])

    def environment(self, place):
        return {"BUPSTASH_REPOSITORY": str(place.repository), "BUPSTASH_KEY": str(place.folder / "key")}

    def init(self, place):
        self.output(place, ["bupstash", "init"])
        self.output(place, ["bupstash", "new-key", "-o", "key"])

    def push(self, place, number):
        return self.step(place, ["bupstash", "put", "--quiet", f"push={number}", "::", place.live])

    def restore(self, place, number, out):
        return self.step(place, ["bupstash", "restore", "--quiet", "--ownership", "--into", out, f"push={number}"])

    def restored(self, place, out):
        return out


class Vykar(Tool):
    name = "vykar"
    programs = ("vykar",)

    def environment(self, place):
        return {"VYKAR_CONFIG": str(place.folder / "vykar.yaml"), "VYKAR_PASSPHRASE": "x"}

    def init(self, place):
        (place.folder / "vykar.yaml").write_text(
            f"sources:\n  - {place.live}\nrepositories:\n  - label: bench\n    url: {place.repository}\n"
            "compression:\n  algorithm: zstd\n  zstd_level: 3\n"
        )
        self.output(place, ["vykar", "init"])

    def push(self, place, number):
        return self.step(place, ["vykar", "backup"])

    def restore(self, place, number, out):
        return self.step(place, ["vykar", "restore", "latest", out])

    def restored(self, place, out):
        return out


class Pipe(Tool):
    """What a careful shell script does: everything, every time."""

    name = "tar|zstd|age"
    programs = ("age", "zstd", "tar", "age-keygen")

    def version(self):
        age = first_line([self.binaries["age"], "--version"])
        zstd = first_line([self.binaries["zstd"], "--quiet", "--version"])
        return f"age {age}, zstd {zstd}"

    def init(self, place):
        place.repository.mkdir()
        self.output(place, ["age-keygen", "-o", "key.txt"])

    def push(self, place, number):
        recipient = (place.folder / "key.txt").read_text().partition("public key: ")[2].split()[0]
        return self.step(
            place,
            ["tar", "c", "-C", place.live, "."],
            ["zstd", "-3", "-T0", "--quiet"],
            ["age", "-r", recipient, "-o", self.archive(place, number)],
        )

    def restore(self, place, number, out):
        return self.step(
            place,
            ["age", "-d", "-i", "key.txt", self.archive(place, number)],
            ["zstd", "-d", "--quiet"],
            ["tar", "x", "-C", out],
        )

    def restored(self, place, out):
        return out

    def archive(self, place, number):
        return place.repository / f"{number}.tar.zst.age"


class CheckedPipe(Pipe):
    """The same script with the checks that Sealift makes: of each database before it is packed, and of what was compressed
    before it is encrypted. It takes a file for that, since `zstd -t` reads it again."""

    name = "checked pipe"
    programs = ("age", "zstd", "tar", "age-keygen", "sqlite3", "bash")
    CHECK = """set -e -o pipefail
        find "$1" -type f \\( -name '*.db' -o -name '*.sqlite3' \\) | while read -r database; do
            test "$(head -c 15 "$database" | tr -d '\\0')" = "SQLite format 3" || continue
            # Opened for reading alone, a database in WAL mode would be left with two files more.
            test "$("$2" "$database" 'pragma quick_check')" = ok
        done
    """
    PUSH = CHECK + """
        "$3" c -C "$1" . | "$4" -3 -T0 --quiet -o "$5.zst"
        "$4" -t --quiet "$5.zst"
        "$6" -r "$7" -o "$5" "$5.zst"
        rm "$5.zst"
    """

    def push(self, place, number):
        recipient = (place.folder / "key.txt").read_text().partition("public key: ")[2].split()[0]
        sqlite3, tar, zstd, age = (self.binaries[name] for name in ("sqlite3", "tar", "zstd", "age"))
        archive = self.archive(place, number)
        return self.step(place, ["bash", "-c", self.PUSH, "bash", place.live, sqlite3, tar, zstd, archive, age, recipient])


TOOLS = (Sealift, Restic, Rustic, Borg, Bupstash, Vykar, Pipe, CheckedPipe)
NAMES = tuple(tool.name for tool in TOOLS)
PEERS = tuple(tool.name for tool in TOOLS if tool not in (Sealift, Pipe, CheckedPipe))


def first_line(command):
    """What a program prints first, or '' if it does not run."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def installed(work, sealift, wanted=None):
    """(tools, missing): the tools that can run, in the order of TOOLS, and {name: what is not there}.

    `sealift` is the binary's path, or None to leave it out."""
    found, missing = [], {}
    for tool in TOOLS:
        if wanted and tool.name not in wanted:
            continue
        binaries = {program: work.find(program) for program in tool.programs}
        if tool is Sealift:
            binaries = {"sealift": sealift if sealift and sealift.exists() else None}
        absent = [program for program, path in binaries.items() if path is None]
        made = tool(binaries)
        if absent:
            missing[tool.name] = f"not installed: {', '.join(absent)}"
        elif not made.version():
            missing[tool.name] = f"does not run: {binaries[tool.programs[0]].name}"
        else:
            found.append(made)
    return found, missing
