"""Where things lie, and what a run has in common: the work directory, the results, the machine."""

import datetime
import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


class Stop(Exception):
    """Ends the command; its text says why and what to do."""


def default_work():
    return Path(os.environ.get("SEALIFT_BENCH_DIR") or Path(tempfile.gettempdir()) / "sealift-bench")


@dataclass(frozen=True)
class Work:
    """The work directory; nothing is written elsewhere, but for the report."""

    root: Path

    @property
    def tools(self):
        return self.root / "tools"

    @property
    def venv(self):
        return self.root / "venv"

    @property
    def data(self):
        return self.root / "data"

    @property
    def results(self):
        return self.root / "results.json"

    def scratch(self, name):
        """An empty directory of that name."""
        folder = self.root / name
        remove(folder)
        folder.mkdir(parents=True)
        return folder

    def find(self, binary):
        """The path of an installed program, or None. What `setup` installed goes before the system's."""
        folders = [self.tools / "bin", self.venv / "bin", *map(Path, os.get_exec_path())]
        found = shutil.which(binary, path=os.pathsep.join(map(str, folders)))
        return Path(found) if found else None


def remove(folder):
    if folder.exists():
        shutil.rmtree(folder)


def read_results(work):
    """All runs ever measured in this work directory, oldest first."""
    try:
        return json.loads(work.results.read_text())
    except FileNotFoundError:
        return []
    except ValueError as broken:
        raise Stop(f"{work.results} is no JSON ({broken}); move it aside")


def save_run(work, run):
    """Adds `run` to the results, or replaces the one with its date: called again whenever it has grown."""
    runs = [other for other in read_results(work) if other["date"] != run["date"]] + [run]
    draft = work.results.with_suffix(".tmp")
    draft.write_text(json.dumps(runs, indent=1) + "\n")
    draft.replace(work.results)


def new_run(kind, versions, sealift):
    """A run's head: what was measured, when, on what. `versions` maps a tool's name to its version."""
    return {
        "kind": kind,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "commit": commit(sealift),
        "file_system": "",
        "versions": versions,
        "data": {},
        "measurements": [],
    }


def machine():
    """The CPU's name, cores, memory in bytes, kernel."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit(sealift):
    """The commit of the working copy that holds the binary, '+' if it was changed since; '' where there is none."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", sealift.parent, *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=10", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return head + ("+" if head and changed else "")
