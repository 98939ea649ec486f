"""`bench/run scale`: how Sealift's time, memory, stored bytes and catalog grow with the work.

`files`: trees of N/8, N/4, N/2 and N files of up to 16 KiB; a day rewrites 1 %, deletes and adds 0.1 %.
`database`: SQLite databases of an eighth, a quarter, half and all of the size; a day updates rows on 1 % of the pages.
Each is made, measured and deleted before the next; only the two smaller databases are restored too, for the
disk's sake.
"""

import os
import random
import shutil
import sqlite3
import sys

import data
import measure
import report
import tools
import volume
from places import Stop, new_run, save_run

PARTS = (8, 4, 2, 1)
FOLDER_FILES = 1000
FILE_BYTES = 16 << 10  # at most
POOL_BYTES = 64 << 20  # of text that files are cut from: many times zstd's window
DISK_PER_FILE = 26_000  # its blocks live and restored, and the repository
DISK_PER_DATABASE = 2.2  # times its size: live, repository, spool
DISK_PER_RESTORED = 3.2
PAGE = 4096
ROW_BYTES = 4000  # fills a page, with its record's head
BATCH = 10_000


def run(work, options):
    found, missing = tools.installed(work, options.sealift.resolve(), ["sealift"])
    if missing:
        raise Stop(f"sealift is {missing['sealift']}: build it, or name it with --sealift")
    sealift = found[0]
    result = new_run("scale", {"sealift": sealift.version()}, options.sealift.resolve())
    subjects = [Files(options.files // part) for part in PARTS if options.files >= part] + [
        Database(options.gib / part, restored=part >= 4) for part in PARTS if options.gib > 0
    ]
    work.root.mkdir(parents=True, exist_ok=True)
    needed = max((subject.disk_bytes() for subject in subjects), default=0) + volume.RESERVE_BYTES + 2**29
    free = shutil.disk_usage(work.root).free
    say(f"needs {needed / 2**30:.0f} GiB of disk at its largest; free: {free / 2**30:.0f} GiB")
    if free < needed:
        raise Stop("too little disk: smaller --files or --gib, or another work directory ($SEALIFT_BENCH_DIR)")
    for subject in subjects:
        try:
            with volume.scratch(work, subject.disk_bytes(), subject.inodes(), own=not options.no_volume) as (
                folder,
                kind,
            ):
                result["file_system"] = kind
                Size(folder, result, sealift, subject, options.timeout).go()
        finally:
            save_run(work, result)
    for name in result["data"]:
        print(f"## {name}\n\n{report.scale_block(result, name)}\n")
    return 0


def say(text):
    print(text, file=sys.stderr, flush=True)


class Size:
    """All steps over one size of one subject; adds its measurements to the run. A step that fails is the last."""

    def __init__(self, folder, result, sealift, subject, timeout_s):
        self.folder, self.result, self.sealift, self.subject, self.timeout_s = (
            folder,
            result,
            sealift,
            subject,
            timeout_s,
        )
        self.live = folder / "live"
        self.place = tools.Place(folder / "sealift", self.live)

    def go(self):
        say(f"{self.subject.name}, {self.subject.size:,g}: making the data")
        self.live.mkdir()
        self.place.folder.mkdir()
        self.subject.make(self.live)
        data.settle()
        facts = {"size": self.subject.size, "bytes": measure.stored_bytes(self.live)}
        self.result["data"].setdefault(self.subject.name, {"sizes": []})["sizes"].append(facts)
        try:
            self.sealift.init(self.place)
        except tools.Failed as failed:
            self.record("full", measure.Measured(False, 0, 0, 0, str(failed)))
            return
        if not (self.push("full") and self.push("unchanged")):
            return
        self.subject.age(self.live)
        data.settle()
        if self.push("day"):
            facts.update(state_bytes(self.sealift.state(self.place)))
            if self.subject.restored:
                self.restore()

    def push(self, step):
        before = measure.stored_bytes(self.place.repository)
        measured = measure.measure(self.sealift.push(self.place, 1), self.timeout_s)
        self.record(step, measured, stored_bytes=measure.stored_bytes(self.place.repository) - before)
        return measured.ok

    def restore(self):
        out = self.folder / "out"
        out.mkdir()
        measured = measure.measure(self.sealift.restore(self.place, 1, out), self.timeout_s)
        differs = data.difference(self.live, self.sealift.restored(self.place, out)) if measured.ok else ""
        self.record("restore", measured, difference=differs)

    def record(self, step, measured, **facts):
        row = {"dataset": self.subject.name, "size": self.subject.size, "tool": "sealift", "step": step}
        self.result["measurements"].append(row | measured.as_dict() | facts)
        say(f"  {step:12} {measured.line()} {facts.get('stored_bytes', '')}{facts.get('difference', '')}")


def state_bytes(state):
    """Of the host's state directory: the catalog (with its journal) and all else that stays."""
    files = [(os.path.relpath(path, state), status.st_size) for path, status in measure.files_below(state)]
    catalog = sum(size for path, size in files if path.startswith("catalog.db"))
    return {"catalog_bytes": catalog, "other_state_bytes": sum(size for _, size in files) - catalog}


class Files:
    """`size` files in folders of 1000, each of up to 16 KiB of text."""

    name = "files"
    restored = True

    def __init__(self, size):
        self.size = size
        self.rng = random.Random(size)
        letters = "abcdefghijklmnopqrstuvwxyz"
        vocabulary = ["".join(self.rng.choices(letters, k=self.rng.randint(2, 9))) for _ in range(4000)]
        self.pool = " ".join(self.rng.choices(vocabulary, k=POOL_BYTES // 6)).encode()

    def disk_bytes(self):
        return self.size * DISK_PER_FILE

    def inodes(self):
        return int(self.size * 2.1) + 10_000

    def make(self, root):
        for number in range(self.size):
            self.write(root, number)

    def path(self, root, number):
        folder = number // FOLDER_FILES
        return root / f"{folder // 100:03}" / f"{folder % 100:02}" / f"{number:07}.txt"

    def write(self, root, number):
        path = self.path(root, number)
        if number % FOLDER_FILES == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        length = self.rng.randrange(FILE_BYTES)
        start = self.rng.randrange(len(self.pool) - length)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(handle, self.pool[start : start + length])
        finally:
            os.close(handle)

    def age(self, root):
        changed = self.rng.sample(range(self.size), max(2, self.size // 100 + self.size // 1000))
        deleted = max(1, self.size // 1000)
        for number in changed[deleted:]:
            self.write(root, number)
        for number in changed[:deleted]:
            os.unlink(self.path(root, number))
        for number in range(self.size, self.size + deleted):
            self.write(root, number)


class Database:
    """A SQLite database of `size` GiB: one row a page, hexadecimal digits, which zstd halves."""

    name = "database"

    def __init__(self, size, restored):
        self.size = size
        self.restored = restored
        self.rows = int(size * 2**30 / PAGE)
        self.rng = random.Random(self.rows)

    def disk_bytes(self):
        return int(self.size * 2**30 * (DISK_PER_RESTORED if self.restored else DISK_PER_DATABASE))

    def inodes(self):
        return 10_000 + int(self.size * 100)

    def body(self):
        return self.rng.randbytes(ROW_BYTES // 2).hex()

    def connect(self, root):
        database = sqlite3.connect(root / "big.db", isolation_level=None)
        database.executescript(
            f"PRAGMA page_size={PAGE}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
        )
        return database

    def make(self, root):
        database = self.connect(root)
        database.execute("CREATE TABLE pages(id INTEGER PRIMARY KEY, body TEXT)")
        database.execute("BEGIN")
        for start in range(0, self.rows, BATCH):
            ids = range(start, min(start + BATCH, self.rows))
            database.executemany("INSERT INTO pages VALUES(?,?)", ((number, self.body()) for number in ids))
        database.execute("COMMIT")
        database.close()

    def age(self, root):
        database = self.connect(root)
        database.execute("BEGIN")
        changed = sorted(self.rng.sample(range(self.rows), max(1, self.rows // 100)))
        database.executemany("UPDATE pages SET body=? WHERE id=?", ((self.body(), number) for number in changed))
        database.execute("COMMIT")
        database.close()
