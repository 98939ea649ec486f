#!/usr/bin/env python3
"""Gets a Sealift backup back without Sealift: Python 3.8, `age`, `zstd` and `ssh-keygen` will do.
    recover.py REPO_DIR --list
    recover.py REPO_DIR --identity KEY --signer SHA256:... --to NEW_DIR
REPO_DIR is a plain copy of a host's folder (manifests/, tables/, archives/), or holds it (--host NAME).
--signer is a fingerprint or an allowed_signers file; without it you are asked, unless --accept-signer.
--snapshot is a stamp, a sequence or the last 16 digits of a manifest's name; else it is the latest, of
--at-least SEQUENCE, if newer ones may have been hidden; --devices makes device nodes too (root only). Manifests are
checked by signature, all else by SHA-256, before it is used; and as who owned the host can sign, nothing in it is
taken for granted. Exit: 0 complete, 1 failed, nothing made, 2 usage, 3 complete but for the notes.
"""
import argparse, base64, functools, glob, hashlib, json, mmap, os, re, shutil, signal, stat, subprocess, sys, tempfile

NAME = re.compile(r"(\d{8,})-(\d{8}T\d{6}Z)-([0-9a-f]{16})\.json")
NOTES = []  # what is not as it was: exit code 3
MAX_SMALL, MAX_TAR, MAX_HOLES = 64 << 20, 8 << 30, 16 << 40  # bytes: manifests and pages; one archive's tar; all holes
say = functools.partial(print, file=sys.stderr, flush=True)
sha256 = lambda data: hashlib.sha256(data).hexdigest()
show = lambda path: repr(os.fsdecode(path))[1:-1]

class Refused(Exception):
    """Why we stop, in words for whoever reads it at night."""

def need(condition, otherwise):
    if not condition:
        raise Refused(otherwise)
def note(text):
    NOTES.append(text)
    say("NOTE:", text)
def read(path, what):
    need(os.path.isfile(path), f"{what} is missing ({path})")
    need(os.path.getsize(path) <= MAX_SMALL, f"{what} is too large to be one ({path})")
    with open(path, "rb") as file:
        return file.read()

def fingerprint(public_key):  # a line `ssh-ed25519 AAAA...`
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
    return argparse.Namespace(**core, path=path, data=data, hash16=hash16, core_hash=sha256(line),
                              pages=json.loads(tables)["tables"], signer=signer[1].decode())

def read_chain(folder, host, pinned):
    """The manifests to believe, oldest first, and {why: sequence} of those to refuse."""
    good, refused, trusted, allowed = [], {}, {pinned}, None
    if pinned and not pinned.startswith("SHA256:"):
        trusted, allowed = set(), read(pinned, "the allowed_signers file") and ["-f", pinned, "-I", host]
    names = [name for name in os.listdir(folder + "/manifests") if NAME.fullmatch(name)]
    for name in sorted(names, key=lambda name: (len(name), name)):
        try:
            one = read_manifest(f"{folder}/manifests/{name}", host)
            trusted = {one.signer} if trusted == {None} else trusted  # who signed the oldest; main asks
            if one.signer not in trusted:
                need(allowed and ssh_keygen("verify", one.path, one.data, *allowed).returncode == 0,
                     f"it is signed by {one.signer}, who is not trusted (if that is wrong, name it with --signer)")
            if one.next_signer:
                trusted.add(fingerprint(one.next_signer))
            good.append(one)
        except (Refused, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as why:
            refused[f"manifest {name} is refused: {why}"] = int(name.split("-")[0])
            say(f"warning: manifest {name} is refused: {why}")
    for name in set(os.listdir(folder + "/manifests")) - set(names) - {name + ".sig" for name in names}:
        say(f"warning: manifests/{show(name)} belongs to no manifest that is here (a push that died, or a deletion?)")
    need(good, f"no manifest in {folder}/manifests can be believed")
    return good, refused

def choose(good, refused, wanted):
    """The manifest of `latest`, a stamp, a sequence number or the last 16 digits of a name."""
    for one, other in zip(good, good[1:]):
        if one.sequence == other.sequence and one.core_hash != other.core_hash:
            say(f"warning: FORK: {one.hash16} and {other.hash16} are both sequence {one.sequence} (two machines?)")
    name = str(good[-1].sequence) if wanted == "latest" else wanted
    found = [one for one in good if name in (one.stamp, one.hash16, str(one.sequence))]
    need(found, f"there is no snapshot {wanted}; the newest is {good[-1].stamp} (--list shows all)")
    chosen = found[-1]
    need(all(one.core_hash == chosen.core_hash for one in found), f"{wanted} is forked: --snapshot takes those digits")
    for why, sequence in refused.items():
        need(wanted != "latest" or sequence < chosen.sequence, f"which snapshot is the latest is unclear: {why}\n"
             f"  To take the newest good one all the same: --snapshot {chosen.stamp}")
    sequences, cores = {one.sequence for one in good}, {one.core_hash for one in good}
    followed = {sequence for sequence, _, core in chosen.known if core in cores}  # targets may differ in siblings
    for sequence, stamp, core in chosen.known:
        if sequence not in sequences:
            say(f"warning: snapshot {stamp} (sequence {sequence}) is known to {chosen.stamp}, but missing here")
        need(sequence < chosen.sequence and (sequence in followed or sequence not in sequences),
             f"snapshot {chosen.stamp} does not follow from the one of sequence {sequence} that is here")
    return chosen

def copy(source, target, length):
    """Copies up to `length` bytes; gives how many are lacking."""
    while length > 0:
        block = source.read(min(length, 1 << 20))
        if not block:
            break
        length -= target.write(block)
    return length

def unseal(path, row, key, scratch, length):
    """The first `length` bytes of an archive's tar, as a file, once a private copy of it has proved genuine."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    need(size == row[4], f"missing or cut short: {size} bytes are there of {row[4]}")
    with open(shutil.copyfile(path, scratch + "/sealed"), "rb") as sealed:
        need(sha256(mmap.mmap(sealed.fileno(), 0, access=mmap.ACCESS_READ)) == row[3],
             "damaged or swapped: its SHA-256 is not the signed one")
    age, pipe = ["age", "-d", "-i", "-", scratch + "/sealed"], subprocess.PIPE
    with open(scratch + "/tar", "wb") as tar, subprocess.Popen(age, stdin=pipe, stdout=pipe) as age, \
            subprocess.Popen(["zstd", "-dcq"], stdin=age.stdout, stdout=pipe) as zstd:
        age.stdout.close()  # so that age sees zstd end
        age.stdin.write(key)  # which so touches no disk
        age.stdin.close()
        lacking = copy(zstd.stdout, tar, length)  # and no more: a bomb cannot swell
        zstd.stdout.close()
    need(not lacking or age.returncode == 0, "it is genuine, but age cannot open it: is this the right identity?")
    need(not lacking or zstd.returncode == 0, "it is genuine, but zstd cannot unpack it (disk full?)")
    return open(scratch + "/tar", "rb")

def locate(entries, scratch):
    """The pieces of each archive that files need; each file must be covered to its last byte, and all must fit."""
    pieces, room, holes = {}, 0, 0
    for entry in entries:
        at = 0
        for archive, offset, length in entry.get("extents", []):
            need(type(offset) is type(length) is int and offset >= 0 < length and
                 (archive == "-" or offset + length <= MAX_TAR), f"an impossible extent in {show(entry['path'])}")
            if archive != "-":  # that is a hole
                pieces.setdefault(archive, []).append((entry, at, offset, length))
            room, holes = (room, holes + length) if archive == "-" else (room + length, holes)
            at += length
        need(at == entry.get("size", 0), f"the extents of {show(entry['path'])} cover {at} bytes of it only")
    free = shutil.disk_usage(scratch).free
    need(room <= free and holes <= MAX_HOLES, f"{room} bytes, besides {holes} of holes, do not fit: {free} are free")
    return pieces

def fetch(folder, rows, pieces, key, scratch, open_file):
    """Gets the content of files, archive by archive."""
    bad = []
    for count, (archive, wanted) in enumerate(sorted(pieces.items()), 1):
        need(archive in rows, f"archive {archive} is needed, but not in the manifest's table")
        path = f"{folder}/archives/{rows[archive][2][:2]}/{rows[archive][2]}.tar.zst.age"
        say(f"  archive {count} of {len(pieces)}: {archive}, {rows[archive][4] / 1e6:.1f} MB")
        try:
            end = max(offset + length for _, _, offset, length in wanted)
            with unseal(path, rows[archive], key, scratch, end) as tar:
                for entry, at, offset, length in wanted:
                    with open_file(entry) as file:
                        tar.seek(offset)
                        file.seek(at)
                        need(copy(tar, file, length) == 0, "its tar ends too early")
        except Refused as why:
            bad.append(f"archive {archive} ({path}): {why}")
    need(not bad, "\n  ".join(bad))

def read_index(path, manifest):
    """The index's header and entries, with every path checked."""
    with open(path, "rb") as file:
        header, *lines = map(json.loads, file)
    entries, last, kinds = lines[header["archives"]:], b"", {b"": "dir"}
    told = header["format"], header["host"], header["stamp"], header["entries"]
    need(told == (1, manifest.host, manifest.stamp, len(entries)) and header["archives"] >= 0, "the index is not the one of this snapshot")
    for entry in entries:
        for key in "path", "target":
            raw = entry.get(key + "_b64")
            entry[key] = entry.get(key, "").encode() if raw is None else base64.b64decode(raw)
        path, kind = entry["path"], entry["type"]
        need(path > last and b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/")) and
             kinds.get(path.rpartition(b"/")[0]) == "dir", f"the index holds an unsafe path: {show(path)}")
        need(kind == "file" or not (entry.get("extents") or entry.get("size")), f"{show(path)} is no file, with content")
        need(kind != "hardlink" or kinds.get(entry["target"]) == "file", f"{show(path)} links to no earlier file")
        kinds[path], last = kind, path
    return header, entries

def make(name, entry, root):
    target, device = entry["target"], os.makedev(*entry.get("rdev", (0, 0)))
    return {"dir": lambda: os.mkdir(name), "file": lambda: open(name, "xb").truncate(entry["size"]),
            "symlink": lambda: os.symlink(target, name), "hardlink": lambda: os.link(target, name, src_dir_fd=root, follow_symlinks=False),
            "fifo": lambda: os.mkfifo(name), "chardev": lambda: os.mknod(name, stat.S_IFCHR, device),
            "blockdev": lambda: os.mknod(name, stat.S_IFBLK, device)}[entry["type"]]()

def enter(root, path, here=[]):
    """Goes to the directory that holds `path`, however deep, through no link; gives the name in it."""
    *parents, name = path.split(b"/")
    while here != parents[:len(here)]:
        os.chdir("..")
        here.pop()
    if not here:
        os.fchdir(root)
    for parent in parents[len(here):]:
        inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        os.fchdir(inner)
        os.close(inner)
        here.append(parent)
    return name

def attempt(entry, what, action, *arguments, **options):
    try:
        action(*arguments, **options)
        return True
    except (OSError, OverflowError, ValueError) as why:
        need(what not in ("make this dir", "make this file"), f"cannot make {show(entry['path'])}: {why}")
        note(f"{show(entry['path'])}: cannot {what}: {getattr(why, 'strerror', None) or why}")
def dress(entry, name, **link):
    """Owner, attributes, mode, time: in the order in which none undoes another."""
    if os.geteuid() == 0:
        attempt(entry, "set the owner", os.chown, name, entry["uid"], entry["gid"], **link)
    for key, value in entry.get("xattrs", {}).items():
        key = base64.b64decode(key[4:]) if key.startswith("b64:") else key.encode()
        attempt(entry, f"set {show(key)}", os.setxattr, name, key, base64.b64decode(value), **link)
    if entry["type"] != "symlink":
        attempt(entry, "set the mode", os.chmod, name, entry["mode"])
    attempt(entry, "set the time", os.utime, name, ns=(entry["mtime"], entry["mtime"]), **link)

def sweep():
    """Removes what is no directory here; gives the names of those that are."""
    with os.scandir(b".") as found:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_dir in found:
        is_dir or os.unlink(name)
    return [name for name, is_dir in found if is_dir]
def remove(path):
    """Removes a tree, however deep it is, and whatever its modes forbid."""
    os.chdir(path)
    above, inner = [], sweep()
    while inner or above:
        if inner:
            name = inner.pop()
            os.chmod(name, 0o700)
            os.chdir(name)
            above.append((name, inner))
            inner = sweep()
        else:
            os.chdir("..")
            name, inner = above.pop()
            os.rmdir(name)
    os.chdir("/")
    os.rmdir(path)

def rebuild(folder, manifest, key, scratch, devices):
    """The whole snapshot, in the directory scratch/tree."""
    rows, path = {}, scratch + "/index"
    need(len(set(manifest.pages)) == len(manifest.pages), "it names a page of the archive table twice")
    need(0 <= manifest.index["bytes"] <= MAX_TAR, "its index is too large to be one")
    for page in manifest.pages:
        data = read(f"{folder}/tables/{page}.json", "a page of the archive table")
        need(sha256(data) == page, f"page tables/{page}.json is damaged or swapped")
        rows.update((row[0], row) for row in json.loads(data)["rows"])
    open(path, "xb").close()
    index = {"path": b"index", "extents": manifest.index["extents"], "size": manifest.index["bytes"]}
    fetch(folder, rows, locate([index], scratch), key, scratch, lambda _: open(path, "r+b"))
    header, entries = read_index(path, manifest)
    pieces = locate(entries, scratch)
    say(f"Restoring {len(entries)} entries, {sum(entry.get('size', 0) for entry in entries)} bytes")
    os.mkdir(scratch + "/tree")
    root = os.open(scratch + "/tree", os.O_RDONLY)
    left_out = [entry for entry in entries if entry["type"] in ("chardev", "blockdev") and not devices]
    for entry in left_out:
        note(f"{show(entry['path'])}: left out: a device is made only with --devices")
    left_out = {entry["path"] for entry in left_out}
    made = [entry for entry in entries if entry["path"] not in left_out and attempt(  # nothing lies below a link: read_index has refused it
        entry, "make this " + entry["type"], lambda: make(enter(root, entry["path"]), entry, root))]
    fetch(folder, rows, pieces, key, scratch, lambda entry: open(  # and not through a link either
        enter(root, entry["path"]), "r+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)))
    for entry in reversed(made):  # a directory after what is in it
        if entry["type"] != "hardlink":
            dress(entry, enter(root, entry["path"]), follow_symlinks=False)
    torn = [{**entry, "reason": "it changed while it was backed up"} for entry in entries if entry.get("torn")]
    for said in torn + header["skipped"]:
        note(f"the snapshot itself says of {show(said['path'])}: {show(said['reason'])}")

def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in "REPO_DIR", "--identity", "--signer", "--snapshot", "--at-least", "--host", "--to": parser.add_argument(name)
    for name in "--accept-signer", "--devices", "--list": parser.add_argument(name, action="store_true")
    args = parser.parse_args()
    args.list or args.identity and args.to or parser.error("--identity KEY and --to NEW_DIR are needed, or --list")
    repo = glob.escape(os.path.abspath(args.REPO_DIR))
    found = glob.glob(repo + "/manifests") or glob.glob(f"{repo}/{args.host or '*'}/manifests")
    need(len(found) == 1, "choose with --host: " + ", ".join(found) if found else f"{args.REPO_DIR} holds no backup")
    folder, host = os.path.dirname(found[0]), args.host or os.path.basename(os.path.dirname(found[0]))
    good, refused = read_chain(folder, host, args.signer)
    if args.list:
        return print("\n".join(f"{one.sequence} {one.stamp} {one.hash16} {one.totals['bytes']} bytes" for one in good))
    chosen = choose(good, refused, args.snapshot or "latest")
    say(f"Snapshot {chosen.stamp} (sequence {chosen.sequence}) of {host}, signed by {chosen.signer}")
    need(chosen.sequence >= int(args.at_least or 0), f"it is older than {args.at_least}: newer ones are hidden or lost")
    agreed = args.signer or args.accept_signer or sys.stdin.isatty() and input("Is that on your paper page? (yes/no) ")
    need(args.signer or agreed in (True, "yes"), f"nobody vouches for the signer; if you do: --signer {chosen.signer}")
    key, to = read(args.identity, "the identity"), os.path.abspath(args.to)
    if key.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED")):  # by a passphrase: ask only once
        key = subprocess.run(["age", "-d", args.identity], stdout=subprocess.PIPE, check=True).stdout
    need(not os.path.lexists(to) or os.path.isdir(to) and not os.listdir(to), f"{to} is not new or empty")
    os.makedirs(os.path.dirname(to), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=os.path.basename(to) + ".partial-", dir=os.path.dirname(to))
    try:
        rebuild(folder, chosen, key, scratch, args.devices)
        os.sync()
        os.rename(scratch + "/tree", to)
    finally:
        remove(scratch)
    say(f"RECOVERED into {to}" + f", but read the {len(NOTES)} notes above" * bool(NOTES))

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except (Exception, KeyboardInterrupt) as why:
        sys.exit(f"FAILED, nothing was recovered: {why if isinstance(why, (Refused, OSError)) else repr(why)}")
    sys.exit(3 if NOTES else 0)
