"""The data sets, each as two days of one tree; the live tree made from them; the comparison of two trees.

`atocore`: day0 and day1 of a snapshot of an AtoCore deployment, 800 MB in 9 files: SQLite and a real Chroma store.
`tree`: many small files of this machine's own (documentation, headers, sources); a day edits, deletes and adds some.
"""

import base64
import os
import random
import stat
import subprocess
import time
from pathlib import Path

import measure
from places import Stop, remove

NAMES = ("atocore", "tree")
DAYS = ("day0", "day1")
SETTLE_S = 3  # beyond the window in which a timestamp could hide a change


def run(work, options):
    folder = (options.data or work.data).resolve()
    names = [options.only] if options.only else NAMES
    for name in names:
        made = folder / name
        if complete(made):
            print(f"{name}: there already")
        elif name == "atocore":
            make_atocore(work, made, options.chunks, options.changes)
        else:
            make_tree(made, options.tree or tree_origins())
        for day in DAYS:
            files, size = extent(made / day)
            print(f"{name}/{day}: {files} files, {size / 1e6:.0f} MB")
    return 0


def complete(made):
    """Whether both days of a data set are there: day1 appears last, by a rename."""
    return (made / "day1").is_dir()


def extent(folder):
    """(number of files, bytes) of a tree."""
    sizes = [status.st_size for _, status in measure.files_below(folder)]
    return len(sizes), sum(sizes)


def make_atocore(work, made, chunks, changes):
    python = work.venv / "bin" / "python"
    script = Path(__file__).with_name("make_atocore.py")

    def maker(*arguments):
        done = subprocess.run(
            [python, script, *map(str, arguments)], env=os.environ | {"HOME": str(work.root), **cargo_home()}
        )
        if done.returncode:
            raise Stop("the AtoCore data could not be made")

    if not python.exists():
        raise Stop("no chromadb yet: `bench/run setup` installs it; or give finished data with --data")
    made.mkdir(parents=True, exist_ok=True)
    live, draft = made / "live", made / "day1.draft"
    for leftover in (live, draft, made / "day0"):
        remove(leftover)
    maker("init", live, "--chunks", chunks, "--seed", 3)
    maker("snapshot", live, made / "day0")
    maker("day", live, "--changes", changes, "--seed", 11)
    maker("snapshot", live, draft)
    draft.rename(made / "day1")
    remove(live)


def cargo_home():
    return {"CARGO_HOME": os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")}


def tree_origins():
    return [Path("/usr/share"), Path("/usr/include"), Path(cargo_home()["CARGO_HOME"]) / "registry" / "src"]


def make_tree(made, origins):
    made.mkdir(parents=True, exist_ok=True)
    first, draft = made / "day0", made / "day1.draft"
    remove(first)
    remove(draft)
    first.mkdir()
    for origin in origins:
        command(["cp", "-a", f"{origin}/.", first / origin.name])
    command(["rsync", "-a", f"{first}/", f"{draft}/"])
    change_tree(draft)
    draft.rename(made / "day1")


def change_tree(root, edited=200, deleted=100, added=200):
    """A day's work on a tree of small files: every 250th is edited, every 600th deleted, and there are new ones."""
    small = sorted(path for path, status in measure.files_below(os.fsencode(root)) if status.st_size <= 199 * 1024)
    for path in small[6::250][:edited]:
        with open(path, "ab") as file:
            file.write(b"edited\n")
    every = sorted(path for path, _ in measure.files_below(os.fsencode(root)))
    for path in every[2::600][:deleted]:
        os.unlink(path)
    rng = random.Random(1)
    (root / "new").mkdir()
    for number in range(1, added + 1):
        content = base64.encodebytes(rng.randbytes(rng.randrange(32768) * 4))
        (root / "new" / f"{number}.txt").write_bytes(content)


def fill(live, day):
    """The live tree becomes a copy of `day`, inodes and all, as a day's work leaves it; then it is read once."""
    command(["rsync", "-a", "--inplace", "--no-whole-file", "--delete", f"{day}/", f"{live}/"])
    settle()
    measure.warm(live)


def settle():
    os.sync()
    time.sleep(SETTLE_S)


def command(arguments):
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True)
    if done.returncode:
        raise Stop(f"{arguments[0]} failed: {done.stderr.strip()[-500:]}")


def difference(left, right):
    """The first difference of two trees as text, '' if there is none: names, kinds, modes, links, every byte."""
    try:
        return first_difference(left, right) if right.is_dir() else f"no folder {right.name}"
    except OSError as failed:
        return f"not comparable: {failed}"


def first_difference(left, right):
    for parent, folders, names in os.walk(os.fsencode(left)):
        other = os.path.join(os.fsencode(right), os.path.relpath(parent, os.fsencode(left)))
        if set(os.listdir(other)) != {*folders, *names}:
            return f"other names in {os.fsdecode(parent)}"
        for name in [*folders, *names]:
            what = different(os.path.join(parent, name), os.path.join(other, name))
            if what:
                return f"{what} of {os.fsdecode(os.path.join(parent, name))}"
    return ""


def different(left, right):
    """What differs between two entries of one name: 'kind', 'mode', 'link', 'content' or ''."""
    one, two = os.lstat(left), os.lstat(right)
    if stat.S_IFMT(one.st_mode) != stat.S_IFMT(two.st_mode):
        return "kind"
    if stat.S_ISLNK(one.st_mode):
        return "link" if os.readlink(left) != os.readlink(right) else ""
    if one.st_mode != two.st_mode:
        return "mode"
    if stat.S_ISREG(one.st_mode) and (one.st_size != two.st_size or not same_content(left, right)):
        return "content"
    return ""


def same_content(left, right):
    with open(left, "rb", buffering=0) as one, open(right, "rb", buffering=0) as two:
        while True:
            block = one.read(1 << 20)
            if block != two.read(1 << 20):
                return False
            if not block:
                return True
