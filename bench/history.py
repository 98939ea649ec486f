"""Thousands of snapshots of one small file: what the newest costs to push, to list and to restore.

    python3 bench/history.py [BINARY] [COUNT] [BINARY_BEFORE]

Pushes COUNT (2,000) snapshots an hour apart to a folder, and says what the 20th and the last one took: bytes of manifests and
pages, seconds, and seconds of the processor (the median of the eleven pushes up to them). All is in a temporary folder: with
TMPDIR=/dev/shm no disk is waited for. Then lists the folder and restores the newest as a fresh machine would
(the best of three): seconds and the largest resident set. Given BINARY_BEFORE, the same with that one.
"""
import datetime, os, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path


class Host:
    def __init__(self, binary, root):
        self.binary, self.root = os.path.abspath(binary), root
        (root / "tree").mkdir()
        made = self.run("key", "generate", "--output", "key.txt")
        recipient = next(word for word in made.split() if word.startswith("age1"))
        self.run("--config", "s.toml", "init", "--quiet", "--host", "h", "--recipient", recipient,
                 "--target", str(root / "repo"), "--tree", str(root / "tree"))

    def run(self, *arguments, clock=None):
        environment = {**os.environ, **({"SEALIFT_CLOCK": clock} if clock else {})}
        done = subprocess.run([self.binary, *arguments], cwd=self.root, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def push(self, number):
        (self.root / "tree/file").write_text(f"{number}\n")
        moment = datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=number)
        before, began, used = self.small(), time.monotonic(), processor()
        self.run("--config", "s.toml", "backup", "--quiet", clock=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
        took = time.monotonic() - began
        return took, processor() - used, self.small() - before

    def small(self):
        """Bytes of all manifests, and of all that is in tables/."""
        folder = self.root / "repo/h"
        files = [*folder.glob("manifests/*.json"), *folder.glob("tables/*.json")]
        return sum(file.stat().st_size for file in files)

    def look(self, *arguments):
        """Seconds and MB of a command, the best of three."""
        tries = []
        for _ in range(3):
            began = time.monotonic()
            process = subprocess.Popen([self.binary, *arguments], cwd=self.root, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            tries.append((time.monotonic() - began, usage.ru_maxrss * 1024 / 1e6))
            if status:
                sys.exit(f"{arguments} ended with {status}")
            subprocess.run(["rm", "-rf", str(self.root / "out")], check=True)
        return min(tries)


def processor():
    """Seconds of the processor that commands which ended have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(binary, count):
    with tempfile.TemporaryDirectory() as root:
        host = Host(binary, Path(root))
        pushes = [host.push(number) for number in range(1, count + 1)]
        median = lambda at, what: statistics.median(push[what] for push in pushes[at - 11:at])
        where = ["--from", "repo", "--accept-signer"]
        listing = host.look("list", *where)
        restore = host.look("restore", "latest", *where, "--identity", "key.txt", "--to", "out")
        manifests = sum(file.stat().st_size for file in Path(root, "repo/h/manifests").glob("*.json"))
    print(f"{binary}: {count} snapshots, manifests of {manifests / 1e6:.2f} MB in all")
    figures = [("bytes", pushes[19][2], pushes[-1][2])]
    figures += [(name, median(20, what), median(count, what)) for what, name in enumerate(["seconds", "processor"])]
    for what, early, late in figures:
        print(f"  push, {what}: {early:.3f} the 20th, {late:.3f} the last: x {late / early:.2f}")
    added = [push[2] for push in pushes[-64:]]
    print(f"  bytes over the last 64 pushes: {min(added)} to {max(added)}, as the newest page of 64 rows fills")
    for what, (took, megabytes) in [("list", listing), ("restore", restore)]:
        print(f"  {what}: {took:.2f} s, {megabytes:.0f} MB")


if __name__ == "__main__":
    binaries = [sys.argv[1] if len(sys.argv) > 1 else "target/release/sealift", *sys.argv[3:4]]
    for binary in binaries:
        measure(binary, int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
