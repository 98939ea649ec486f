"""Runs a step and takes its measure; readies the page cache for it."""

import dataclasses
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from places import Stop

ERROR_BYTES = 2000  # of a failed step's output that are kept


@dataclass(frozen=True)
class Step:
    """Programs whose outputs feed the next one's input; one program as a rule."""

    pipeline: list  # of argument lists
    cwd: Path
    environment: dict


@dataclass
class Measured:
    """wall_s: from the start to the end of the last program. cpu_s: user + system, of all programs and their
    children. peak_bytes: the largest resident set of one process; of a pipeline the sum of its programs'."""

    ok: bool
    wall_s: float
    cpu_s: float
    peak_bytes: int
    error: str = ""

    def line(self):
        if not self.ok:
            return f"FAILED: {self.error}"
        return f"{self.wall_s:8.2f} s {self.cpu_s:8.2f} CPU s {self.peak_bytes / 1e6:6.0f} MB"

    def as_dict(self):
        return dataclasses.asdict(self)


def measure(step, timeout_s):
    """Never raises for what the step does: a program that fails, hangs or is missing gives `ok` False and `error`."""
    gnu_time = shutil.which("time")
    if not gnu_time:
        raise Stop("GNU time is missing; `bench/run setup` installs it")
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "output", "w+b") as output:
        peaks = [Path(scratch) / f"peak-{i}" for i in range(len(step.pipeline))]
        # Under GNU time: a process that Python starts by itself inherits Python's own peak.
        commands = [
            [gnu_time, "--quiet", "--format", "%M", "--output", peak, *map(str, program)]
            for peak, program in zip(peaks, step.pipeline)
        ]
        late = threading.Event()
        os.sync()
        start = time.perf_counter()
        processes = start_pipeline(commands, step, output)
        alarm = threading.Timer(timeout_s, lambda: (late.set(), kill(processes)))
        alarm.start()
        try:
            cpu_s = sum(wait(process) for process in processes)
            wall_s = time.perf_counter() - start
        except BaseException:
            kill(processes)
            raise
        finally:
            alarm.cancel()
        codes = [process.returncode for process in processes]
        ok = not late.is_set() and not any(codes)
        output.seek(max(0, output.seek(0, os.SEEK_END) - ERROR_BYTES))
        said = output.read().decode(errors="replace").strip()
        ended = f"no end after {timeout_s:g} s" if late.is_set() else f"exit code {', '.join(map(str, codes))}"
        return Measured(ok, wall_s, cpu_s, sum(map(peak_bytes, peaks)), "" if ok else f"{ended}: {said}")


def flush(folder):
    """Seconds until the file system of `folder` has all that was written on disk."""
    start = time.perf_counter()
    subprocess.run(["sync", "-f", str(folder)], check=True)
    return time.perf_counter() - start


def start_pipeline(commands, step, output):
    processes = []
    for number, command in enumerate(commands):
        last = number == len(commands) - 1
        feed = processes[-1].stdout if processes else subprocess.DEVNULL
        processes.append(
            subprocess.Popen(
                command,
                cwd=step.cwd,
                env=step.environment,
                stdin=feed,
                stdout=output if last else subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        )
        if number:
            feed.close()
    return processes


def wait(process):
    """CPU seconds of the process and of the children it waited for."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def kill(processes):
    for process in processes:
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def peak_bytes(file):
    """What GNU time wrote; its last word is the peak in KiB."""
    try:
        return int(file.read_text().split()[-1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0


def files_below(folder):
    """(path, lstat) of every regular file."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                yield path, status


def stored_bytes(folder):
    """The sum of the sizes of the files in a repository; 0 where there is none."""
    return sum(status.st_size for _, status in files_below(folder))


def warm(folder):
    """Reads every file once, so that the page cache holds what it can."""
    buffer = bytearray(1 << 20)
    for path, _ in files_below(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def evict(folder):
    """Takes `folder` out of the page cache, all else with it where the kernel lets us; returns how."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return "drop_caches"
    except OSError:
        for path, _ in files_below(folder):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
        return "posix_fadvise"
