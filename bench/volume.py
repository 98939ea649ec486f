"""A file system of its own for what is measured: ext4 with a journal, fresh each time, in an image file.

Why: on ext4 without a journal (many virtual machines have that), making files within five minutes after many were
deleted takes ten times the processor: inodes that were deleted lately are passed over one by one. A restore would
pay for the tree that was deleted before it. With a journal there is no such thing, and servers have one. Nor does
anything else on the machine write to this file system.
"""

import contextlib
import os
import shutil
import subprocess
import sys

from places import Stop, remove

RESERVE_BYTES = 2**30  # of the disk, left free


@contextlib.contextmanager
def scratch(work, size_bytes, inodes, own=True):
    """Yields (an empty directory, what its file system is); gone afterwards.

    `own` asks for the image; without the right to mount (root), it is a directory of the work directory instead."""
    folder = work.root / "volume"
    clear(work, folder)
    size_bytes += 2**28 + 256 * inodes  # the journal, the inodes
    free = shutil.disk_usage(work.root).free
    if free < size_bytes + RESERVE_BYTES:
        raise Stop(
            f"needs {size_bytes / 2**30:.1f} GiB of disk and {RESERVE_BYTES / 2**30:.0f} to spare; "
            f"free: {free / 2**30:.1f} GiB"
        )
    folder.mkdir(parents=True)
    failed = mount(work, folder, size_bytes, inodes) if own else "not wanted"
    if failed:
        print(
            f"no file system of its own ({failed}): on ext4 without a journal, restores take too long then",
            file=sys.stderr,
        )
    try:
        yield folder, "the work directory's file system" if failed else "ext4 with a journal, in an image of its own"
    finally:
        clear(work, folder)


def image(work):
    return work.root / "volume.img"


def mount(work, folder, size_bytes, inodes):
    """'' if the image is mounted at `folder`, else why not."""
    if os.geteuid():
        return "not root"
    file = image(work)
    try:
        with open(file, "wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, size_bytes)
        succeed(
            "mkfs.ext4", "-q", "-F", "-m0", "-N", inodes, "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", file
        )
        device = succeed("losetup", "--find", "--show", "--direct-io=on", file)
        try:
            succeed("mount", device, folder)
        except OSError:
            succeed("losetup", "--detach", device)
            raise
        # It goes with the last use of it: at umount.
        succeed("losetup", "--detach", device)
        shutil.rmtree(folder / "lost+found")
    except OSError as failed:
        file.unlink(missing_ok=True)
        return str(failed)
    return ""


def clear(work, folder):
    """Unmounts and deletes what an earlier run or this one left."""
    while os.path.ismount(folder):
        try:
            succeed("umount", folder)
        except OSError:
            succeed("umount", "--lazy", folder)  # a tool's process may still linger in it
    remove(folder)
    image(work).unlink(missing_ok=True)


def succeed(*command):
    """The command's output; raises OSError with what it said if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()
