#!/usr/bin/env python3
"""Gets a Sealift backup back without Sealift: Python 3.8, `age`, `zstd` and `ssh-keygen` will do.

    recover.py REPO_DIR --list
    recover.py REPO_DIR --identity KEY --signer SHA256:... --to NEW_DIR

REPO_DIR is a plain copy of one host's folder (manifests/, tables/, archives/), or holds one.
Nothing is believed unchecked: manifests by signature, pages and archives by their SHA-256, each
before it is used. NEW_DIR appears whole at the end, or not at all.
Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 recovered, but read the notes.
"""
import argparse, base64, hashlib, itertools, json, os, re, shutil, signal, stat, subprocess, sys, tempfile, types

NAME = re.compile(r"(\d{8,})-(\d{8}T\d{6}Z)-([0-9a-f]{16})\.json")
NOTES = []

class Refused(Exception):
    """Why we stop, in words for whoever reads it at night."""

def need(condition, otherwise):
    if not condition:
        raise Refused(otherwise)

def say(text):
    print(text, file=sys.stderr, flush=True)

def note(text):
    """Something recovered is not as it was: exit code 3."""
    NOTES.append(text)
    say(f"NOTE: {text}")

def show(path):
    return repr(os.fsdecode(path))[1:-1]

def read(path, what):
    need(os.path.isfile(path), f"{what} is missing ({path})")
    with open(path, "rb") as file:
        return file.read()

# --- Manifests: whom to believe -------------------------------------------------------------------

def fingerprint(public_key):
    """Of a line `ssh-ed25519 AAAA...`, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

def ssh_keygen(task, path, signed, *options):
    command = ["ssh-keygen", "-Y", task, "-n", "sealift-manifest", "-s", path + ".sig", *options]
    return subprocess.run(command, input=signed, capture_output=True)

def read_manifest(folder, host, name):
    """A manifest that is what its name says and is signed, by whomever."""
    path, (sequence, stamp, hash16) = f"{folder}/manifests/{name}", NAME.fullmatch(name).groups()
    data, _ = read(path, "it"), read(path + ".sig", "its signature")
    need(hashlib.sha256(data).hexdigest()[:16] == hash16, "damaged or swapped: its name is not its SHA-256")
    checked = ssh_keygen("check-novalidate", path, data)
    signer = re.match(rb'Good "sealift-manifest" signature with ED25519 key (SHA256:\S+)', checked.stdout)
    need(signer and checked.returncode == 0, "its signature does not match it (damaged, swapped or forged)")
    line, tables, end = data.split(b"\n")
    core = json.loads(line)
    need(core["format"] == 1 and core["requires"] == [], "its format is newer: use a newer recover.py")
    need(core["host"] == host, f"it is of host {core['host']!r}, the folder of {host!r} (renamed? say --host)")
    need((core["sequence"], core["stamp"], end) == (int(sequence), stamp, b""), "its name and content disagree")
    return types.SimpleNamespace(
        name=name, path=path, data=data, sequence=int(sequence), stamp=stamp, hash16=hash16, core=core,
        core_hash=hashlib.sha256(line).hexdigest(), pages=json.loads(tables)["tables"], signer=signer[1].decode())

def read_chain(folder, host, pinned):
    """The manifests to believe, oldest first, and (sequence, why) of those to refuse."""
    good, refused, trusted, allowed = [], [], {pinned}, None
    if pinned and not pinned.startswith("SHA256:"):
        trusted, allowed = set(), read(pinned, "the allowed_signers file") and ["-f", pinned, "-I", host]
    names = [(int(name.split("-")[0]), name) for name in os.listdir(folder + "/manifests") if NAME.fullmatch(name)]
    for sequence, name in sorted(names):
        try:
            one = read_manifest(folder, host, name)
            if trusted == {None}:
                trusted = {one.signer}  # of the oldest manifest; main asks about it
            need(one.signer in trusted or allowed and not ssh_keygen("verify", one.path, one.data, *allowed).returncode,
                 f"it is signed by {one.signer}, not by a trusted signer (if that is right, name it with --signer)")
            if one.core["next_signer"]:
                trusted.add(fingerprint(one.core["next_signer"]))
            good.append(one)
        except (Refused, ValueError, KeyError, TypeError) as why:
            refused.append((sequence, f"manifest {name} is refused: {why}"))
            say("warning: " + refused[-1][1])
    need(good, f"no manifest in {folder}/manifests can be believed")
    cores = {}
    for one in good:
        cores.setdefault(one.sequence, {})[one.core_hash] = one.name
    for sequence, names in cores.items():
        if len(names) > 1:
            say(f"warning: FORK at sequence {sequence}: {' and '.join(names.values())} (two machines, one name?)")
    for sequence, stamp, _ in good[-1].core["known"]:
        if sequence not in cores:
            say(f"warning: snapshot {stamp} (sequence {sequence}) is known to the newest one, but missing here")
    return good, refused, cores

def choose(good, refused, cores, wanted):
    """The manifest of `latest`, a stamp, a sequence number or the last 16 digits of a name."""
    newest = good[-1]
    found = [one for one in good if (one.sequence == newest.sequence if wanted == "latest" else
                                     wanted in (one.stamp, one.hash16, str(one.sequence)))]
    need(found, f"there is no snapshot {wanted}; the newest is {newest.stamp} (--list shows all)")
    chosen = found[-1]
    need(len({one.core_hash for one in found}) == 1,
         f"{wanted} is forked; pick one with --snapshot: " + " or ".join(one.hash16 for one in found))
    for sequence, why in refused:
        need(wanted != "latest" or sequence < chosen.sequence, f"which snapshot is the latest is unclear: {why}\n"
             f"  To take the newest good one all the same: --snapshot {chosen.stamp}")
    for sequence, _, core in chosen.core["known"]:
        need(sequence < chosen.sequence and core in cores.get(sequence, [core]),
             f"manifest {chosen.name} does not follow from the one of sequence {sequence} that is here")
    return chosen

# --- Archives: first the hash, then the key -------------------------------------------------------

def read_table(folder, manifest):
    """{archive id: row} of all pages that the manifest names."""
    rows = {}
    for page in manifest.pages:
        data = read(f"{folder}/tables/{page}.json", "a page of the archive table")
        need(hashlib.sha256(data).hexdigest() == page, f"{folder}/tables/{page}.json is damaged or swapped")
        rows.update((row[0], row) for row in json.loads(data)["rows"])
    return rows

def load_key(path):
    """An identity file's content; a passphrase-sealed one is opened here, once, and stays in memory."""
    key = read(path, "the identity")
    if not key.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED")):
        return key
    opened = subprocess.run(["age", "-d", path], stdout=subprocess.PIPE)
    need(opened.returncode == 0, f"the identity {path} does not open")
    return opened.stdout

def open_archive(path, row, key, scratch):
    """The tar of an archive, as a file; its ciphertext is copied and proved genuine first."""
    there = os.path.getsize(path) if os.path.isfile(path) else None
    need(there == row[4], "it is missing" if there is None else f"it has {there} bytes instead of {row[4]}")
    digest = hashlib.sha256()
    with open(path, "rb") as sealed, open(scratch + "/sealed", "wb") as copy:
        for block in iter(lambda: sealed.read(1 << 20), b""):
            digest.update(block)
            copy.write(block)
    need(digest.hexdigest() == row[3], "damaged or swapped: its SHA-256 is not the signed one")
    pipe, command = subprocess.PIPE, ["age", "-d", "-i", "-", scratch + "/sealed"]
    with open(scratch + "/tar", "wb") as tar, subprocess.Popen(command, stdin=pipe, stdout=pipe) as age:
        age.stdin.write(key)
        age.stdin.close()
        zstd = subprocess.run(["zstd", "-dcq"], stdin=age.stdout, stdout=tar)
    need(age.returncode == 0, "it is genuine, but age cannot open it: is this the right identity?")
    need(zstd.returncode == 0, "it is genuine, but zstd cannot read it (disk full?)")
    return open(scratch + "/tar", "rb")

def fetch(folder, rows, pieces, key, scratch, open_owner):
    """Writes each archive's pieces (owner, offset in it, offset in the tar, length) into their owners."""
    bad = []
    for number, (archive, wanted) in enumerate(sorted(pieces.items()), 1):
        need(archive in rows, f"archive {archive} is needed, but not in the manifest's table")
        row = rows[archive]
        path = f"{folder}/archives/{row[2][:2]}/{row[2]}.tar.zst.age"
        say(f"  archive {number} of {len(pieces)}: {archive}, {row[4] / 1e6:.1f} MB")
        try:
            with open_archive(path, row, key, scratch) as tar:
                for owner, group in itertools.groupby(sorted(wanted), lambda piece: piece[0]):
                    with open_owner(owner) as file:
                        for _, at, offset, length in group:
                            tar.seek(offset)
                            file.seek(at)
                            need(file.write(tar.read(length)) == length, "its tar ends too early")
        except Refused as why:
            bad.append(f"archive {archive} ({path}): {why}")
    need(not bad, "\n  ".join(bad))

# --- Files: what the index says -------------------------------------------------------------------

def add_pieces(pieces, extents, owner, size):
    at = 0
    for archive, offset, length in extents:
        need(offset >= 0 and length > 0, "the index holds an impossible extent")
        if archive != "-":  # that is a hole
            pieces.setdefault(archive, []).append((owner, at, offset, length))
        at += length
    need(at == size, f"extents cover {at} bytes of {size}")

def read_index(path, core):
    """Header and entries of the index, every path checked, and the pieces to fetch."""
    with open(path, "rb") as file:
        header, *lines = map(json.loads, file)
    entries, last, kinds, pieces = lines[header["archives"]:], b"", {b"": "dir"}, {}
    need((header["format"], header["host"], header["stamp"], header["entries"]) ==
         (1, core["host"], core["stamp"], len(entries)), "the index is not the one of this snapshot")
    for number, entry in enumerate(entries):
        for key in "path", "target":
            raw = entry.get(key + "_b64")
            entry[key] = entry.get(key, "").encode() if raw is None else base64.b64decode(raw)
        path, kind = entry["path"], entry["type"]
        need(path > last and b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/")) and
             kinds.get(path.rpartition(b"/")[0]) == "dir", f"the index holds an unsafe path: {show(path)}")
        need(kind != "hardlink" or kinds.get(entry["target"]) == "file", f"{show(path)} links to no earlier file")
        add_pieces(pieces, entry.get("extents", []), number, entry.get("size", 0))
        kinds[path], last = kind, path
    return header, entries, pieces

def enter(root, path):
    """Goes to the directory that holds `path`, however deep; gives the name in it."""
    os.fchdir(root)
    *parents, name = path.split(b"/")
    for parent in parents:
        os.chdir(parent)
    return name

def make(root, entry):
    """A link, FIFO or device; files and directories are there by now."""
    name, kind = enter(root, entry["path"]), entry["type"]
    if kind == "symlink":
        os.symlink(entry["target"], name)
    elif kind == "hardlink":
        os.link(entry["target"], name, src_dir_fd=root, follow_symlinks=False)
    elif kind == "fifo":
        os.mkfifo(name)
    elif kind in ("chardev", "blockdev"):
        os.mknod(name, stat.S_IFCHR if kind == "chardev" else stat.S_IFBLK, os.makedev(*entry["rdev"]))

def dress(root, entry):
    """Owner, attributes, mode, time: in the order in which none undoes another."""
    name, link = enter(root, entry["path"]), {"follow_symlinks": False}
    def attempt(what, action, *arguments, **options):
        try:
            action(*arguments, **options)
        except OSError as why:
            note(f"{show(entry['path'])}: cannot set its {what}: {why.strerror}")
    if os.geteuid() == 0:
        attempt("owner", os.chown, name, entry["uid"], entry["gid"], **link)
    for key, value in entry.get("xattrs", {}).items():
        key = base64.b64decode(key[4:]) if key.startswith("b64:") else key.encode()
        attempt(f"attribute {show(key)}", os.setxattr, name, key, base64.b64decode(value), **link)
    if entry["type"] != "symlink":
        attempt("mode", os.chmod, name, entry["mode"])
    attempt("time", os.utime, name, ns=(entry["mtime"], entry["mtime"]), **link)

def rebuild(folder, manifest, key, scratch):
    """The whole snapshot in scratch/tree."""
    rows, pieces, index = read_table(folder, manifest), {}, manifest.core["index"]
    say(f"Reading the index of {manifest.stamp}")
    with open(scratch + "/index", "wb") as file:
        file.truncate(index["bytes"])
    add_pieces(pieces, index["extents"], 0, index["bytes"])
    fetch(folder, rows, pieces, key, scratch, lambda _: open(scratch + "/index", "r+b"))
    header, entries, pieces = read_index(scratch + "/index", manifest.core)
    os.mkdir(scratch + "/tree")
    root = os.open(scratch + "/tree", os.O_RDONLY)
    for entry in entries:
        if entry["type"] == "dir":
            os.mkdir(enter(root, entry["path"]))
        elif entry["type"] == "file":
            with open(enter(root, entry["path"]), "xb") as file:
                file.truncate(entry["size"])
    say(f"Reading {sum(entry.get('size', 0) for entry in entries)} bytes of {len(entries)} entries")
    fetch(folder, rows, pieces, key, scratch, lambda number: open(enter(root, entries[number]["path"]), "r+b"))
    for entry in entries:
        try:
            make(root, entry)
        except OSError as why:
            note(f"{show(entry['path'])}: left out, cannot make this {entry['type']}: {why.strerror}")
            entry["type"] = "missing"
    for entry in reversed(entries):  # a directory after what is in it
        if entry["type"] not in ("hardlink", "missing"):
            dress(root, entry)
        if entry.get("torn"):
            note(f"{show(entry['path'])} changed while it was backed up: it may not fit together")
    for skipped in header["skipped"]:
        note(f"the snapshot itself lacks {show(skipped['path'])}: {skipped['reason']}")
    os.chdir("/")

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", metavar="REPO_DIR")
    parser.add_argument("--identity", metavar="KEY", help="age identity file, passphrase-sealed or not, or SSH key")
    parser.add_argument("--signer", metavar="SIGNER", help="SHA256:... or an allowed_signers file; else you are asked")
    parser.add_argument("--accept-signer", action="store_true", help="believe whoever signed, without asking")
    parser.add_argument("--snapshot", default="latest", help="latest, a stamp, a sequence or 16 digits of a manifest's name")
    parser.add_argument("--at-least", type=int, default=0, metavar="SEQ", help="refuse what is older: newer ones are hidden")
    parser.add_argument("--host", help="whose backup, where the folder's name does not tell")
    parser.add_argument("--to", metavar="DIR", help="a new or empty directory")
    parser.add_argument("--list", action="store_true", help="show the snapshots and stop")
    args = parser.parse_args()
    if not args.list and not (args.identity and args.to):
        parser.error("--identity and --to are needed (or --list)")
    for command in "age", "zstd", "ssh-keygen":
        need(shutil.which(command), f"the command {command} is not installed")
    folder, host = os.path.abspath(args.repo), args.host
    if not os.path.isdir(folder + "/manifests"):
        hosts = [name for name in sorted(os.listdir(folder)) if os.path.isdir(f"{folder}/{name}/manifests")]
        need(hosts, f"{folder} holds no backup: there is no manifests directory in it")
        need(host in hosts or len(hosts) == 1 and not host, f"choose with --host: {folder} holds {', '.join(hosts)}")
        folder += "/" + (host or hosts[0])
    host = host or os.path.basename(folder)
    good, refused, cores = read_chain(folder, host, args.signer)
    if args.list:
        for one in good:
            total = one.core["totals"]
            print(f"{one.sequence:6} {one.stamp} {one.hash16} {total['files']:8} files {total['bytes']:14} bytes")
        return
    chosen = choose(good, refused, cores, args.snapshot)
    need(chosen.sequence >= args.at_least, f"the newest here has sequence {chosen.sequence}: newer ones are hidden or lost")
    if not args.signer:
        say(f"The backups of {host} are signed by\n  {chosen.signer}\nCompare that with your paper page.")
        need(args.accept_signer or sys.stdin.isatty(), f"nobody vouches for that signer: give --signer {chosen.signer}")
        need(args.accept_signer or input(f"Is it the signer of {host}? (yes/no) ") == "yes", "the signer is not confirmed")
    target = os.path.abspath(args.to)
    there = os.path.exists(target)
    need(not os.path.ismount(target) and not os.path.islink(target) and
         (not there or os.path.isdir(target) and not os.listdir(target)), f"{target} must be a new or an empty directory")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    key, mode = load_key(args.identity), os.stat(target).st_mode & 0o7777 if there else 0o755
    scratch = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.sealift-partial-", dir=os.path.dirname(target))
    os.umask(0o077)
    try:
        rebuild(folder, chosen, key, scratch)
        os.chmod(scratch + "/tree", mode)
        os.sync()
        os.rename(scratch + "/tree", target)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", scratch], stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", scratch])
    say(f"RECOVERED snapshot {chosen.stamp} (sequence {chosen.sequence}) of {host} into {target}")

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except (Refused, OSError, ValueError, KeyError, TypeError, EOFError, KeyboardInterrupt) as error:
        say(f"FAILED, nothing was recovered: {error if isinstance(error, (Refused, OSError)) else repr(error)}")
        sys.exit(1)
    sys.exit(3 if NOTES else 0)
