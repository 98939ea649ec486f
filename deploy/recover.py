#!/usr/bin/env python3
"""Gets a Sealift backup back without Sealift: Python 3.8, `age`, `zstd` and `ssh-keygen` will do.

    recover.py REPO_DIR --list
    recover.py REPO_DIR --identity KEY --signer SHA256:... --to NEW_DIR

REPO_DIR is a plain copy of one host's folder (manifests/, tables/, archives/), or holds one.
Nothing is believed unchecked: manifests by signature, pages and archives by their SHA-256, each
before it is used. NEW_DIR appears whole at the end, or not at all.
Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 recovered, but read the notes.
"""
import argparse, base64, glob, hashlib, json, os, re, shutil, signal, stat, subprocess, sys, tempfile, types

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

def sha256(data):
    return hashlib.sha256(data).hexdigest()

def fingerprint(public_key):
    """Of a line `ssh-ed25519 AAAA...`, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

def ssh_keygen(task, path, signed, *options):
    command = ["ssh-keygen", "-Y", task, "-n", "sealift-manifest", "-s", path + ".sig", *options]
    return subprocess.run(command, input=signed, capture_output=True)

def read_manifest(path, host):
    """A manifest that is what its name says and is signed, by whomever."""
    sequence, stamp, hash16 = NAME.fullmatch(os.path.basename(path)).groups()
    data, _ = read(path, "it"), read(path + ".sig", "its signature")
    need(sha256(data)[:16] == hash16, "damaged or swapped: its name is not its SHA-256")
    checked = ssh_keygen("check-novalidate", path, data)
    signer = re.match(rb'Good "sealift-manifest" signature with ED25519 key (SHA256:\S+)', checked.stdout)
    need(signer and checked.returncode == 0, "its signature does not match it (damaged, swapped or forged)")
    line, tables, end = data.split(b"\n")
    core = json.loads(line)
    need(core["format"] == 1 and core["requires"] == [], "its format is newer: use a newer recover.py")
    need(core["host"] == host, f"it is of host {core['host']!r}, the folder of {host!r} (renamed? say --host)")
    need((core["sequence"], core["stamp"], end) == (int(sequence), stamp, b""), "its name and content disagree")
    return types.SimpleNamespace(**core, path=path, data=data, hash16=hash16, core_hash=sha256(line),
                                 pages=json.loads(tables)["tables"], signer=signer[1].decode())

def read_chain(folder, host, pinned):
    """The manifests to believe, oldest first, and (sequence, why) of those to refuse."""
    good, refused, trusted, allowed = [], [], {pinned}, None
    if pinned and not pinned.startswith("SHA256:"):
        trusted, allowed = set(), read(pinned, "the allowed_signers file") and ["-f", pinned, "-I", host]
    names = [name for name in os.listdir(folder + "/manifests") if NAME.fullmatch(name)]
    for name in sorted(names, key=lambda name: (len(name), name)):
        try:
            one = read_manifest(f"{folder}/manifests/{name}", host)
            if trusted == {None}:
                trusted = {one.signer}  # of the oldest manifest; main asks about it
            if one.signer not in trusted:
                need(allowed and ssh_keygen("verify", one.path, one.data, *allowed).returncode == 0,
                     f"it is signed by {one.signer}, who is not trusted (if that is wrong, name it with --signer)")
            if one.next_signer:
                trusted.add(fingerprint(one.next_signer))
            good.append(one)
        except (Refused, ValueError, KeyError, TypeError) as why:
            refused.append((int(name.split("-")[0]), f"manifest {name} is refused: {why}"))
            say(f"warning: {refused[-1][1]}")
    need(good, f"no manifest in {folder}/manifests can be believed")
    return good, refused

def choose(good, refused, wanted):
    """The manifest of `latest`, a stamp, a sequence number or the last 16 digits of a name."""
    newest, cores = good[-1], {}
    for one in good:
        cores.setdefault(one.sequence, {})[one.core_hash] = one.hash16
    for sequence, forks in cores.items():
        if len(forks) > 1:
            say(f"warning: FORK: {' and '.join(forks.values())} claim sequence {sequence} (two machines, one name?)")
    for sequence, stamp, _ in newest.known:
        if sequence not in cores:
            say(f"warning: snapshot {stamp} (sequence {sequence}) is known to the newest one, but missing here")
    names = ("latest", str(newest.sequence)) if wanted == "latest" else (wanted,)
    found = [one for one in good if {one.stamp, one.hash16, str(one.sequence)} & set(names)]
    need(found, f"there is no snapshot {wanted}; the newest is {newest.stamp} (--list shows all)")
    chosen = found[-1]
    need(len({one.core_hash for one in found}) == 1,
         f"{wanted} is forked; pick one with --snapshot: " + " or ".join(one.hash16 for one in found))
    for sequence, why in refused:
        need(wanted != "latest" or sequence < chosen.sequence, f"which snapshot is the latest is unclear: {why}\n"
             f"  To take the newest good one all the same: --snapshot {chosen.stamp}")
    for sequence, _, core in chosen.known:
        need(sequence < chosen.sequence and core in cores.get(sequence, [core]),
             f"snapshot {chosen.stamp} does not follow from the one of sequence {sequence} that is here")
    return chosen

def unseal(sealed, key, scratch):
    """The tar stream of an archive, as a file. The key reaches age without touching a disk."""
    with open(scratch + "/sealed", "wb") as file:
        file.write(sealed)
    opened = subprocess.run(["age", "-d", "-i", "-", scratch + "/sealed"], input=key, stdout=subprocess.PIPE)
    need(opened.returncode == 0, "it is genuine, but age cannot open it: is this the right identity?")
    with open(scratch + "/tar", "wb") as file:
        unpacked = subprocess.run(["zstd", "-dcq"], input=opened.stdout, stdout=file)
    need(unpacked.returncode == 0, "it is genuine, but zstd cannot unpack it (disk full?)")
    return open(scratch + "/tar", "rb")

def fetch(folder, rows, pieces, key, scratch, open_file):
    """Writes the pieces of each archive, once it has proved genuine, to the files they belong to."""
    bad = []
    for count, (archive, wanted) in enumerate(sorted(pieces.items()), 1):
        need(archive in rows, f"archive {archive} is needed, but not in the manifest's table")
        _, _, blake3, signed_sha256, size, *_ = rows[archive]
        path = f"{folder}/archives/{blake3[:2]}/{blake3}.tar.zst.age"
        say(f"  archive {count} of {len(pieces)}: {archive}, {size / 1e6:.1f} MB")
        try:
            sealed = read(path, "it")
            need(sha256(sealed) == signed_sha256, "damaged, cut short or swapped: its SHA-256 is not the signed one")
            with unseal(sealed, key, scratch) as tar:
                for number, at, offset, length in wanted:
                    with open_file(number) as file:
                        tar.seek(offset)
                        file.seek(at)
                        need(file.write(tar.read(length)) == length, "its tar ends too early")
        except Refused as why:
            bad.append(f"archive {archive} ({path}): {why}")
    need(not bad, "\n  ".join(bad))

def add_pieces(pieces, extents, number, size):
    """Sorts the extents of a file by archive: (number of the file, offset in it, offset in the tar, length)."""
    at = 0
    for archive, offset, length in extents:
        if archive != "-":  # that is a hole
            pieces.setdefault(archive, []).append((number, at, offset, length))
        at += length
    need(at == size, f"extents cover {at} bytes of {size}")
    return pieces

def read_index(path, manifest):
    """The index's header and entries, every path checked, and the pieces to fetch."""
    with open(path, "rb") as file:
        header, *lines = map(json.loads, file)
    entries, last, kinds, pieces = lines[header["archives"]:], b"", {b"": "dir"}, {}
    need((header["format"], header["host"], header["stamp"], header["entries"]) ==
         (1, manifest.host, manifest.stamp, len(entries)), "the index is not the one of this snapshot")
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

def attempt(entry, what, action, *arguments, **options):
    try:
        action(*arguments, **options)
        return True
    except OSError as why:
        note(f"{show(entry['path'])}: cannot {what}: {why.strerror}")

def make(root, entry):
    name, kind = enter(root, entry["path"]), entry["type"]
    if kind == "dir":
        os.mkdir(name)
    elif kind == "symlink":
        os.symlink(entry["target"], name)
    elif kind == "hardlink":
        os.link(entry["target"], name, src_dir_fd=root)
    else:
        form = {"file": stat.S_IFREG, "fifo": stat.S_IFIFO, "chardev": stat.S_IFCHR, "blockdev": stat.S_IFBLK}[kind]
        os.mknod(name, form | 0o600, os.makedev(*entry.get("rdev", (0, 0))))
        kind == "file" and os.truncate(name, entry["size"])

def dress(root, entry):
    """Owner, attributes, mode, time: in the order in which none undoes another."""
    name, link = enter(root, entry["path"]), {"follow_symlinks": False}
    if os.geteuid() == 0:
        attempt(entry, "set the owner", os.chown, name, entry["uid"], entry["gid"], **link)
    for key, value in entry.get("xattrs", {}).items():
        key = base64.b64decode(key[4:]) if key.startswith("b64:") else key.encode()
        attempt(entry, f"set {show(key)}", os.setxattr, name, key, base64.b64decode(value), **link)
    if entry["type"] != "symlink":
        attempt(entry, "set the mode", os.chmod, name, entry["mode"])
    attempt(entry, "set the time", os.utime, name, ns=(entry["mtime"], entry["mtime"]), **link)

def rebuild(folder, manifest, key, scratch):
    """The whole snapshot, in the directory scratch/tree."""
    rows, index, path = {}, manifest.index, scratch + "/index"
    for page in manifest.pages:
        data = read(f"{folder}/tables/{page}.json", "a page of the archive table")
        need(sha256(data) == page, f"page {folder}/tables/{page}.json is damaged or swapped")
        rows.update((row[0], row) for row in json.loads(data)["rows"])
    say(f"Reading the index of {manifest.stamp}")
    open(path, "xb").close()
    pieces = add_pieces({}, index["extents"], 0, index["bytes"])
    fetch(folder, rows, pieces, key, scratch, lambda _: open(path, "r+b"))
    header, entries, pieces = read_index(path, manifest)
    say(f"Restoring {len(entries)} entries, {sum(entry.get('size', 0) for entry in entries)} bytes")
    os.mkdir(scratch + "/tree")
    root = os.open(scratch + "/tree", os.O_RDONLY)
    made = [entry for entry in entries if attempt(entry, f"make this {entry['type']}", make, root, entry)]
    fetch(folder, rows, pieces, key, scratch, lambda number: open(enter(root, entries[number]["path"]), "r+b"))
    for entry in reversed(made):  # a directory after what is in it
        if entry["type"] != "hardlink":
            dress(root, entry)
        if entry.get("torn"):
            note(f"{show(entry['path'])} changed while it was backed up")
    for skipped in header["skipped"]:
        note(f"the snapshot itself lacks {show(skipped['path'])}: {skipped['reason']}")
    os.chdir("/")

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", metavar="REPO_DIR")
    for option, text in {
            "--identity": "age identity file, passphrase-sealed or not, or SSH private key",
            "--signer": "SHA256:... or an allowed_signers file; without it you are asked",
            "--snapshot": "latest, a stamp, a sequence number, 16 digits of a manifest's name",
            "--at-least": "refuse a snapshot of a lower sequence: newer ones may be hidden from you",
            "--host": "whose backup, if the folder's name does not tell", "--to": "a new or empty directory"}.items():
        parser.add_argument(option, help=text)
    parser.add_argument("--accept-signer", action="store_true", help="believe whoever signed, unasked")
    parser.add_argument("--list", action="store_true", help="show the snapshots and stop")
    args = parser.parse_args()
    if not args.list and not (args.identity and args.to):
        parser.error("--identity and --to are needed (or --list)")
    for command in "age", "zstd", "ssh-keygen":
        need(shutil.which(command), f"the command {command} is not installed")
    repo = glob.escape(os.path.abspath(args.repo))
    found = glob.glob(repo + "/manifests") or glob.glob(f"{repo}/{args.host or '*'}/manifests")
    need(len(found) == 1, f"{args.repo} holds no backup" if not found else "choose with --host: " + ", ".join(found))
    folder = os.path.dirname(found[0])
    host = args.host or os.path.basename(folder)
    good, refused = read_chain(folder, host, args.signer)
    if args.list:
        for one in good:
            print(one.sequence, one.stamp, one.hash16, one.totals["files"], "files", one.totals["bytes"], "bytes")
        return
    chosen = choose(good, refused, args.snapshot or "latest")
    need(chosen.sequence >= int(args.at_least or 0), f"sequence {chosen.sequence} is too old: newer ones are hidden")
    if not args.signer:
        say(f"The backups of {host} are signed by\n  {chosen.signer}\nCompare that with your paper page.")
        if not args.accept_signer:
            need(sys.stdin.isatty(), f"nobody vouches for that signer: say --signer {chosen.signer}")
            need(input(f"Is it the signer of {host}? (yes/no) ") == "yes", "the signer is not confirmed")
    key, to = read(args.identity, "the identity"), os.path.abspath(args.to)
    if key.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED")):  # by a passphrase: ask only once
        key = subprocess.run(["age", "-d", args.identity], stdout=subprocess.PIPE).stdout
    need(not os.path.lexists(to) or os.path.isdir(to) and not os.listdir(to), f"{to} is not new or empty")
    os.makedirs(os.path.dirname(to), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=f".{os.path.basename(to)}.sealift-partial-", dir=os.path.dirname(to))
    try:
        rebuild(folder, chosen, key, scratch)
        os.sync()
        os.rename(scratch + "/tree", to)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", scratch], stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", scratch])
    say(f"RECOVERED snapshot {chosen.stamp} (sequence {chosen.sequence}) of {host} into {to}")

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except (Refused, OSError, ValueError, KeyError, TypeError, EOFError, KeyboardInterrupt) as error:
        say(f"FAILED, nothing was recovered: {error if isinstance(error, (Refused, OSError)) else repr(error)}")
        sys.exit(1)
    sys.exit(3 if NOTES else 0)
