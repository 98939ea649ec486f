#!/usr/bin/env python3
"""Gets a Sealift backup back without Sealift: Python 3.8, `age`, `zstd` and `ssh-keygen` will do.
    recover.py REPO_DIR --list
    recover.py REPO_DIR --identity KEY --signer SHA256:... --to NEW_DIR
REPO_DIR is a plain copy of a host's folder (manifests/, tables/, archives/), or holds it (--host NAME).
--identity - reads KEY from standard input; a passphrase is asked for once. --signer is a fingerprint, a public key, a
file of one (x.pub) or an allowed_signers file; without it you are asked, unless --accept-signer.
--snapshot is a stamp, a sequence or the last 16 digits of a manifest's name; else it is the latest, of
--at-least SEQUENCE, if newer ones may have been hidden; --devices makes device nodes too (root only). Manifests are
checked by signature, all else by SHA-256, before it is used; and as who owned the host can sign, nothing in it is
taken for granted. Another user who can write where NEW_DIR is to be cannot lead the writing elsewhere: everything is
made in a closed directory, which is opened once. Exit: 0 complete, 1 failed, 2 usage, 3 complete but for the notes.
"""
import argparse, base64, contextlib, errno, glob, hashlib, json, os, re, secrets, signal, stat, struct, subprocess, sys
import tempfile, time

NAME = re.compile(r"(\d{8,})-(\d{8}T\d{6}Z)-([0-9a-f]{16})\.json")
HASH = re.compile("[0-9a-f]{64}")
MAX_SMALL, MAX_PAGE, MAX_KNOWN_PAGE = 64 << 20, 16 << 20, 16 << 10  # bytes: a manifest; a page of archives, of snapshots
MAX_DIRECTORIES, MAX_KNOWN_PAGES = 1024, 16384
MAX_TAR, MAX_HOLES = 8 << 30, 16 << 40  # bytes: one archive's tar, or an index; all holes of a snapshot
MAX_WARNINGS = 20
MAX_SAID = 20_000  # characters of one message
UMASK = os.umask(0o077)
FEATURES = {"known-pages", "wide-times"}  # of `requires`
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
SEARCH = DIRECTORY | getattr(os, "O_PATH", 0)  # for one that we may enter and not list
NOTES, WARNINGS = [], []  # what is not as it was (exit code 3); as printed
STRANGERS, LABELS = [], []  # paths whose owner, whose label only root could set: no fault of this run
MISSED, MAX_NAMED = {}, 5  # what of the entries the disk did not keep: their paths; so many are named
ACCESS_LIST = "system.posix_acl_access"

class Refused(Exception):
    """Why the script stops, in words for the operator."""

def need(condition, otherwise):
    if not condition:
        raise Refused(otherwise)
def say(text):
    """Prints to stderr, without anything that a terminal obeys, and no more than a few screens."""
    text = text if len(text) <= MAX_SAID else text[:MAX_SAID] + " …"
    text = "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
    print(text, file=sys.stderr, flush=True)
def note(text):
    NOTES.append(text)
    say("NOTE: " + text)
def warn(text):
    WARNINGS.append(text)
    if len(WARNINGS) <= MAX_WARNINGS:
        say("warning: " + text)
def parse(line):
    """Of canonical JSON, which is UTF-8: `json` itself would guess the encoding of bytes."""
    return json.loads(line.decode())
def sha256(data):
    return hashlib.sha256(data).hexdigest()
def show(path):
    return repr(os.fsdecode(path))[1:-1]

def open_source(path, what):
    """Opens a regular file, and waits for no other end of a FIFO; a file that is looked at first could be exchanged."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as why:
        raise Refused(f"{what} is missing ({path}: {why.strerror})")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused(f"{what} is missing: {path} is no file")
    return open(fd, "rb")
def read(path, what, most=MAX_SMALL):
    with open_source(path, what) as file:
        data = file.read(most + 1)
    need(len(data) <= most, f"{what} is too large to be one ({path})")
    return data

def is_sound(key):
    """Whether the checksum of an identity's line is right: it is Bech32."""
    human, _, rest = key.lower().rpartition("1")
    values = ["qpzry9x8gf2tvdw0s3jn54khce6mua7l".find(one) for one in rest]
    check, before = 1, [ord(one) >> 5 for one in human] + [0] + [ord(one) & 31 for one in human]
    for value in before + values:
        check, top = (check & 0x1ffffff) << 5 ^ value, check >> 25
        for bit, term in enumerate((0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3)):
            check ^= term if top >> bit & 1 else 0
    return check == 1 and min(values, default=-1) >= 0
def wait_for_writer(fd, path):
    """Waits for the other end of a pipe, but not for ever; returns what it had to read of it."""
    for _ in range(30):
        os.set_blocking(fd, False)
        try:
            first = os.read(fd, 1)
        except BlockingIOError:
            first = None  # there is one, which takes its time: somebody may have to type
        os.set_blocking(fd, True)
        if first != b"":
            return first or b""
        time.sleep(0.1)
    raise Refused(f"the identity {path} is empty: nobody writes to that pipe")
def read_identity(path):
    """The identity, as age takes it without a question. A passphrase is asked for here, once, and what it opens is
    kept in memory."""
    try:
        fd = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        need(is_pipe or path == "-" or stat.S_ISREG(os.fstat(fd).st_mode), f"the identity {path} is no file")
        key = wait_for_writer(fd, path) if is_pipe else b""
        with open(fd, "rb", closefd=path != "-") as file:
            key += file.read(MAX_SMALL)
    except OSError as why:
        raise Refused(f"the identity {path} cannot be read: {why.strerror}")
    need(not key.startswith((b"\xff\xfe", b"\xfe\xff")), f"the identity {path} is UTF-16: save it as UTF-8")
    key = (key[3:] if key.startswith(b"\xef\xbb\xbf") else key).lstrip()
    if key.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED")):
        opened = subprocess.run(["age", "-d"], input=key, stdout=subprocess.PIPE)
        need(opened.returncode == 0, f"the identity {path} was not opened: age says why above (wrong passphrase?)")
        key = opened.stdout.lstrip()
    try:
        lines = [line.strip() for line in key.decode().splitlines()]
    except UnicodeDecodeError:
        raise Refused(f"the identity {path} is no text: is that the right file?")
    need(any(lines), f"the identity {path} is empty")
    if lines[0].startswith("-----BEGIN "):
        return unlock(path, "".join(line + "\n" for line in lines).encode())
    need(not lines[0].startswith(("age1", "ssh-")), f"{path} holds a public key: its private half opens archives")
    keys = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    need(keys, f"the identity {path} holds no secret key")
    for number, line in keys:
        need(line.upper().startswith(("AGE-SECRET-KEY-", "AGE-PLUGIN-")),
             f"line {number} of the identity {path} is no secret key (AGE-SECRET-KEY-...)")
        need(is_sound(line), f"line {number} of the identity {path} has a typing error, or is cut short")
    return "".join(line + "\n" for _, line in keys).encode()
def unlock(path, key):
    """An SSH private key without its passphrase, for which ssh-keygen asks, unless it has none."""
    if not hasattr(os, "memfd_create"):  # not Linux: age asks, for each archive, as a file would be on a disk
        return key
    try:
        terminal = open("/dev/tty", "rb", buffering=0)
    except OSError:
        terminal = None
    with open(os.memfd_create("key"), "r+b") as held:
        os.fchmod(held.fileno(), 0o600)
        held.write(key)
        held.flush()
        run = lambda *how: subprocess.run(["ssh-keygen", *how, "-f", f"/dev/fd/{held.fileno()}"], stdin=terminal,
                                          pass_fds=[held.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if run("-y", "-P", "").returncode == 0:
            return key
        say(f"ssh-keygen asks, once, for what locks {path}:")
        unlocked = run("-p", "-N", "")
        said = unlocked.stderr.decode(errors="replace").strip().rpartition(": ")[2]
        need(unlocked.returncode == 0, f"the identity {path} was not opened: {said or 'ssh-keygen could not open it'}")
        held.seek(0)
        return held.read()

def fingerprint(public_key):  # a line `ssh-ed25519 AAAA...`
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
def ssh_keygen(task, signed, signature, *options, allowed=b""):
    """Runs ssh-keygen on what was read already, by descriptors: a path could lead to another file by now."""
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        for file, data in (first, signature), (second, allowed):
            file.write(data)
            file.seek(0)
        files = first.fileno(), second.fileno()
        command = ["ssh-keygen", "-Y", task, "-n", "sealift-manifest", "-s", f"/dev/fd/{files[0]}", *options]
        command += ["-f", f"/dev/fd/{files[1]}"] if allowed else []
        return subprocess.run(command, input=signed, capture_output=True, pass_fds=files, timeout=60)

def read_manifest(path, host, is_trusted):
    """A manifest that is what its name says, signed by a signer whom `is_trusted` accepts."""
    sequence, stamp, hash16 = NAME.fullmatch(os.path.basename(path)).groups()
    data, signature = read(path, "it"), read(path + ".sig", "its signature")
    need(sha256(data)[:16] == hash16, "damaged or swapped: its name is not its SHA-256")
    checked = ssh_keygen("check-novalidate", data, signature)
    signer = re.match(rb'Good "sealift-manifest" signature with ED25519 key (SHA256:\S+)', checked.stdout)
    need(signer and checked.returncode == 0, "its signature does not match it (damaged, swapped or forged)")
    signer = signer[1].decode()
    need(is_trusted(signer, data, signature),
         f"it is signed by {signer}, who is not trusted (if that is wrong, name it with --signer)")
    line, tables, end = data.split(b"\n")
    core = parse(line)
    need(core["format"] == 1, "its format is newer: use a newer recover.py")
    unknown = set(core["requires"]) - FEATURES
    need(not unknown, f"it requires {', '.join(sorted(unknown))}, which this recover.py does not know: use a newer one")
    need(isinstance(core["known"], dict) == ("known-pages" in core["requires"]), "its `known` is malformed")
    need(core["host"] == host, f"it is of host {core['host']!r}, the folder of {host!r} (renamed? say --host)")
    need((core["sequence"], core["stamp"], end) == (int(sequence), stamp, b""), "its name and content disagree")
    return argparse.Namespace(**core, path=path, hash16=hash16, core_hash=sha256(line),
                              pages=parse(tables)["tables"], signer=signer)

def read_signers(pinned):
    """Of --signer: the fingerprints of public keys, or the content of an allowed_signers file."""
    data = pinned.encode() if re.match("ssh-[a-z0-9]+ ", pinned) else read(pinned, "the file of --signer")
    lines = [line.strip() for line in data.decode("utf-8-sig", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not all(line.startswith("ssh-") for line in lines):
        return set(), data[3:] if data.startswith(b"\xef\xbb\xbf") else data
    try:
        return {fingerprint(line) for line in lines}, b""
    except (LookupError, ValueError):
        raise Refused(f"--signer {pinned} holds no whole public key")

def read_chain(folder, host, pinned):
    """The manifests to believe, oldest first, and {why: sequence} of those to refuse."""
    good, refused, trusted, allowed = [], {}, {pinned}, b""
    if pinned and not pinned.startswith("SHA256:"):
        trusted, allowed = read_signers(pinned)
    def is_trusted(signer, data, signature):
        if signer in trusted or trusted == {None}:  # without --signer: the signer of the oldest; main asks
            return True
        return allowed and ssh_keygen("verify", data, signature, "-I", host, allowed=allowed).returncode == 0
    there = os.listdir(folder + "/manifests")
    names = [name for name in there if NAME.fullmatch(name)]
    for name in sorted(names, key=lambda name: (len(name), name)):
        try:
            one = read_manifest(f"{folder}/manifests/{name}", host, is_trusted)
            trusted = {one.signer} if trusted == {None} else trusted
            if one.next_signer:
                trusted.add(fingerprint(one.next_signer))
            kept = "path", "hash16", "core_hash", "signer", "sequence", "stamp", "totals"  # no more: there may be many
            good.append(argparse.Namespace(**{key: getattr(one, key) for key in kept}))
        except (Refused, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
                subprocess.SubprocessError) as why:
            refused[f"manifest {name} is refused: {why}"] = int(name.split("-")[0])
            warn(f"manifest {name} is refused: {why}")
    for name in set(there) - set(names) - {name + ".sig" for name in names}:
        warn(f"manifests/{show(name)} belongs to no manifest that is here (a push that died, or a deletion?)")
    need(good, f"no manifest in {folder}/manifests can be believed")
    return good, refused

def choose(good, refused, wanted):
    """The manifest of `latest`, a stamp, a sequence number or the last 16 digits of a name."""
    for one, other in zip(good, good[1:]):
        if one.sequence == other.sequence and one.core_hash != other.core_hash:
            warn(f"FORK: {one.hash16} and {other.hash16} are both sequence {one.sequence} (two machines?)")
    name = str(good[-1].sequence) if wanted == "latest" else wanted
    found = [one for one in good if name in (one.stamp, one.hash16, str(one.sequence))]
    need(found, f"there is no snapshot {wanted}; the newest is {good[-1].stamp} (--list shows all)")
    chosen = found[-1]
    need(all(one.core_hash == chosen.core_hash for one in found), f"{wanted} is forked: --snapshot takes those digits")
    for why, sequence in refused.items():
        need(wanted != "latest" or sequence < chosen.sequence, f"which snapshot is the latest is unclear: {why}\n"
             f"  To take the newest good one all the same: --snapshot {chosen.stamp}")
    return chosen

def read_page(folder, page, what, most=MAX_PAGE):
    """A page of a table, which its name proves."""
    need(HASH.fullmatch(page), f"the name of {what} is no hash")
    data = read(f"{folder}/tables/{page}.json", what, most)
    need(sha256(data) == page, f"page tables/{page}.json is damaged or swapped")
    return parse(data)

def read_known(folder, chosen):
    """The earlier snapshots that the chosen one knows: [sequence, stamp, core hash], in this order."""
    if isinstance(chosen.known, list):  # in manifests of before November 2026
        return chosen.known
    directories, pages, rows = chosen.known["directories"], [], []
    need(len(directories) <= MAX_DIRECTORIES, "it has too many directories of earlier snapshots")
    for name in directories:
        pages += read_page(folder, name, "a directory of earlier snapshots", MAX_KNOWN_PAGE)["directory"]
    pages += chosen.known["pages"]
    need(len(pages) <= MAX_KNOWN_PAGES, "it has too many pages of earlier snapshots")
    for name in pages:
        rows += read_page(folder, name, "a page of earlier snapshots", MAX_KNOWN_PAGE)["known"]
    need(all(list(map(type, row)) == [int, str, str] for row in rows) and
         all(one < other for one, other in zip(rows, rows[1:])), "its pages of earlier snapshots are malformed")
    return rows

def check_lineage(folder, chosen, good):
    """The snapshots that the chosen one knows are those that are here."""
    try:
        known = read_known(folder, chosen)
    except (Refused, AttributeError, LookupError, TypeError, ValueError) as why:
        return warn(f"whether earlier snapshots are missing or swapped could not be checked: {why}")
    sequences, cores = {one.sequence for one in good}, {one.core_hash for one in good}
    followed = {sequence for sequence, _, core in known if core in cores}  # targets may differ in siblings
    for sequence, stamp, core in known:
        if sequence not in sequences:
            warn(f"snapshot {stamp} (sequence {sequence}) is known to {chosen.stamp}, but missing here")
        need(sequence < chosen.sequence and (sequence in followed or sequence not in sequences),
             f"snapshot {chosen.stamp} does not follow from the one of sequence {sequence} that is here")

def unnamed(scratch):
    """A new file in the closed directory, to write and then to read, of which no name is left."""
    file = open("work", "x+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=scratch))
    os.unlink("work", dir_fd=scratch)
    return file
def copy(source, target, length, digest=None):
    """Copies up to `length` bytes; returns how many are lacking."""
    while length > 0:
        block = source.read(min(length, 1 << 20))
        if not block:
            break
        if digest:
            digest.update(block)
        length -= target.write(block)
    return length

def unseal(path, row, key, scratch, length):
    """The first `length` bytes of an archive's tar, as a file, once a private copy of it has proved genuine."""
    sealed, tar, digest, pipe = unnamed(scratch), unnamed(scratch), hashlib.sha256(), subprocess.PIPE
    with sealed:
        with open_source(path, "it") as source:
            size = os.fstat(source.fileno()).st_size
            lacking = size != row[4] or copy(source, sealed, size, digest)
        need(not lacking, f"missing or cut short: {size} bytes are there of {row[4]}")
        need(digest.hexdigest() == row[3], "damaged or swapped: its SHA-256 is not the signed one")
        sealed.seek(0)  # this writes the rest of it out, too
        age = ["age", "-d", "-i", "-", f"/dev/fd/{sealed.fileno()}"]
        with subprocess.Popen(age, stdin=pipe, stdout=pipe, pass_fds=[sealed.fileno()]) as age, \
                subprocess.Popen(["zstd", "-dcq"], stdin=age.stdout, stdout=pipe) as zstd:
            age.stdout.close()  # so that age sees zstd end
            age.stdin.write(key)  # which so touches no disk
            age.stdin.close()
            lacking = copy(zstd.stdout, tar, length)  # and no more: a bomb cannot swell
            zstd.stdout.close()
    need(not lacking or age.returncode == 0, "it is genuine, but age cannot open it: is this the right identity?")
    need(not lacking or zstd.returncode == 0, "it is genuine, but zstd cannot unpack it (disk full?)")
    return tar

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
    disk = os.fstatvfs(scratch)
    free = disk.f_bavail * disk.f_frsize if disk.f_blocks else room  # some file systems report nothing
    need(room <= free and holes <= MAX_HOLES, f"{room} bytes, besides {holes} of holes, do not fit: {free} are free")
    return pieces

def fetch(folder, rows, pieces, key, scratch, open_file):
    """Gets the content of files, archive by archive."""
    bad = []
    for count, (archive, wanted) in enumerate(sorted(pieces.items()), 1):
        need(archive in rows, f"archive {archive} is needed, but not in the manifest's table")
        row = rows[archive]
        need(HASH.fullmatch(row[2]), f"the name of archive {archive} is no hash")
        path = f"{folder}/archives/{row[2][:2]}/{row[2]}.tar.zst.age"
        say(f"  archive {count} of {len(pieces)}: {archive}, {row[4] / 1e6:.1f} MB")
        try:
            end = max(offset + length for _, _, offset, length in wanted)
            with unseal(path, row, key, scratch, end) as tar:
                for entry, at, offset, length in wanted:
                    with open_file(entry) as file:
                        tar.seek(offset)
                        file.seek(at)
                        need(copy(tar, file, length) == 0, "its tar ends too early")
        except Refused as why:
            bad.append(f"archive {archive} ({path}): {why}")
    need(not bad, "\n  ".join(bad))

def read_index(file, manifest):
    """The index's header and entries, with every path checked."""
    file.seek(0)
    header, *lines = map(parse, file)
    entries, last, kinds = lines[header["archives"]:], b"", {b"": "dir"}
    told = header["format"], header["host"], header["stamp"], header["entries"]
    need(told == (1, manifest.host, manifest.stamp, len(entries)) and header["archives"] >= 0,
         "the index is not the one of this snapshot")
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

# From here on everything is made in the closed directory: by a descriptor, or by a single name in the current
# directory, which `enter` goes to by descriptors. Nothing is reached by a path that leads through NEW_DIR's parents.

def open_parent(path):
    """Opens the directory `path`, component by component, and makes what is missing of it. A link is followed only if
    it is in a directory where root and we alone can put one: another user's may lead anywhere, and be exchanged."""
    at, left, links = os.open("/", SEARCH), path.split("/")[::-1], 0
    while left:
        name = left.pop()
        if not name:
            continue
        here = os.fstat(at)
        is_closed = here.st_uid in (0, os.geteuid()) and not here.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        try:
            if is_closed and stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                target, links = os.readlink(name, dir_fd=at), links + 1
                need(links <= 40, f"{path} leads in a circle of links")
                left += target.split("/")[::-1]
                inner = os.open("/", SEARCH) if target.startswith("/") else os.dup(at)
            else:
                inner = os.open(name, SEARCH, dir_fd=at)
        except FileNotFoundError:
            os.mkdir(name, 0o777 & ~UMASK, dir_fd=at)
            inner = os.open(name, SEARCH, dir_fd=at)
        except OSError as why:
            raise Refused(f"cannot enter {show(name)} in {show(path)}: {why.strerror} (a link where other users can "
                          "exchange it? Then say where it leads)")
        os.close(at)
        at = inner
    return at

def make_closed(home, name):
    """Makes a directory in `home` that only we can enter; returns its name and a descriptor."""
    name = os.fsencode(name)[:200] + b".partial-" + secrets.token_hex(8).encode()
    os.mkdir(name, 0o700, dir_fd=home)
    scratch = os.open(name, DIRECTORY, dir_fd=home)
    found = os.fstat(scratch)
    need(found.st_uid == os.geteuid() and not found.st_mode & 0o077 and not os.listdir(scratch),
         f"another user has exchanged {show(name)}: restore to where no other user can write")
    # What it has of a set-group-ID directory or of a default access list, its content would inherit.
    os.chown(scratch, -1, os.getegid())
    for attribute in getattr(os, "listxattr", lambda _: [])(scratch):
        if attribute.startswith("system.posix_acl_"):
            os.removexattr(scratch, attribute)
    os.chmod(scratch, 0o700)
    return name, scratch

def step(name):
    """Goes into a directory of the current one, through no link."""
    inner = os.open(name, DIRECTORY)
    os.fchdir(inner)
    os.close(inner)
def enter(root, path, here=[]):
    """Goes to the directory that holds `path`, however deep, through no link; returns the name in it."""
    *parents, name = path.split(b"/")
    while here != parents[:len(here)]:
        os.chdir("..")
        here.pop()
    if not here:
        os.fchdir(root)
    for parent in parents[len(here):]:
        step(parent)
        here.append(parent)
    return name

def make_link(entry, root):
    first = enter(root, entry["target"])
    held = os.open(".", DIRECTORY)
    try:
        os.link(first, enter(root, entry["path"]), src_dir_fd=held, follow_symlinks=False)
    finally:
        os.close(held)
def make(name, entry, root):
    """Makes an entry, for nobody but us until `dress`."""
    target, device = entry["target"], os.makedev(*entry.get("rdev", (0, 0)))
    return {"dir": lambda: os.mkdir(name, 0o700), "file": lambda: open(name, "xb").truncate(entry["size"]),
            "symlink": lambda: os.symlink(target, name), "hardlink": lambda: make_link(entry, root),
            "fifo": lambda: os.mkfifo(name, 0o600), "chardev": lambda: os.mknod(name, stat.S_IFCHR | 0o600, device),
            "blockdev": lambda: os.mknod(name, stat.S_IFBLK | 0o600, device)}[entry["type"]]()

def attempt(entry, what, action, *arguments, **options):
    try:
        action(*arguments, **options)
        return True
    except (OSError, OverflowError, ValueError) as why:
        need(what not in ("make this dir", "make this file"), f"cannot make {show(entry['path'])}: {why}")
        miss(entry, f"cannot {what}: {getattr(why, 'strerror', None) or why}")
def miss(entry, what):
    MISSED.setdefault(what, []).append(entry["path"])
def note_missed():
    for what, paths in sorted(MISSED.items()):
        more = f" and {len(paths) - MAX_NAMED} more" * (len(paths) > MAX_NAMED)
        note(f"of {len(paths)}: {what}: {', '.join(map(show, paths[:MAX_NAMED]))}{more}")

def mode_without(access_list, mode):
    """The mode that grants nobody more, now that the access list is lost: beside it the group's bits were the mask, and
    a named user or group may have been shut out."""
    if access_list[:4] != b"\2\0\0\0":  # a version that nobody knows
        return mode & 0o7700
    entries = [struct.unpack_from("<HH", access_list, at) for at in range(4, len(access_list) - 7, 8)]
    mask = next((rights for tag, rights in entries if tag == 16), 7)
    group = other = 7 if any(tag == 4 for tag, _ in entries) else 0
    for tag, rights in entries:
        group &= rights & mask if tag in (2, 4) else 7  # a named user, the group
        other &= rights & mask if tag in (2, 8) else 7  # a named user, a named group
    return mode & (0o7700 | group << 3 | other)
def set_attributes(entry, it, is_owned, link):
    """Returns the mode that goes with the attributes that could be set."""
    mode, put = entry["mode"], getattr(os, "setxattr", None)
    for key, value in entry.get("xattrs", {}).items():
        key = base64.b64decode(key[4:]) if key.startswith("b64:") else key.encode()
        value = base64.b64decode(value)
        def action():
            if not put:
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
            if key == b"security.capability" and not is_owned:  # it would hand out rights that the file never had
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            put(it, key, value, **link)
        is_label = key.startswith((b"security.", b"trusted.")) and key != b"security.capability"
        if is_label and os.geteuid() != 0:
            with contextlib.suppress(OSError):
                action()
                continue
            LABELS.append(entry["path"])
        elif not attempt(entry, f"set {show(key)}", action) and key == ACCESS_LIST.encode():
            mode = mode_without(value, mode)
    return mode
def dress(entry, name):
    """Owner, attributes, mode, time: in the order in which none undoes another."""
    if entry["type"] in ("symlink", "chardev", "blockdev"):  # opening a device does something
        return dress_opened(entry, name, follow_symlinks=False)
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        dress_opened(entry, opened)
    finally:
        os.close(opened)
def dress_opened(entry, it, **link):
    if os.geteuid() == 0:
        attempt(entry, "set the owner", os.chown, it, entry["uid"], entry["gid"], **link)
    elif entry["gid"] in os.getgroups():
        attempt(entry, "set the group", os.chown, it, -1, entry["gid"], **link)
    now = os.stat(it, **link)
    if (now.st_uid, now.st_gid) != (entry["uid"], entry["gid"]):
        STRANGERS.append(entry["path"])
    mode = set_attributes(entry, it, now.st_uid == entry["uid"], link)
    # Of another owner these bits would hand out rights that the file never had.
    lost = (stat.S_ISUID if now.st_uid != entry["uid"] else 0) | (stat.S_ISGID if now.st_gid != entry["gid"] else 0)
    is_link = entry["type"] == "symlink"
    if mode & lost and not is_link:
        miss(entry, "restored without set-user-ID or set-group-ID, since the owner is another one")
    # The mode of a device by its name: nobody else is here.
    is_set = is_link or attempt(entry, "set the mode", os.chmod, it, mode & ~lost)
    is_timed = attempt(entry, "set the time", os.utime, it, ns=(entry["mtime"], entry["mtime"]), **link)
    now = os.stat(it, **link)  # some file systems keep less than they are told
    if is_set and not is_link and stat.S_IMODE(now.st_mode) != mode & ~lost:
        miss(entry, "the file system keeps another mode")
    if is_timed and now.st_mtime_ns != entry["mtime"]:
        miss(entry, "the file system keeps another time")

def sweep():
    """Removes what is no directory here; returns the names of those that are."""
    with os.scandir(b".") as found:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_dir in found:
        is_dir or os.unlink(name)
    return [name for name, is_dir in found if is_dir]
def remove(home, name, scratch):
    """Removes the closed directory and a tree in it, however deep it is, and whatever its modes forbid."""
    os.fchdir(scratch)
    above, inner = [], sweep()
    while inner or above:
        if inner:
            outer = inner.pop()
            os.chmod(outer, 0o700)
            step(outer)
            above.append((outer, inner))
            inner = sweep()
        else:
            os.chdir("..")
            outer, inner = above.pop()
            os.rmdir(outer)
    try:
        os.rmdir(name, dir_fd=home)
    except OSError as why:
        say(f"warning: {show(name)}, which is empty, cannot be removed: {why.strerror}")

def read_rows(folder, manifest):
    """The archive table, by id."""
    need(len(set(manifest.pages)) == len(manifest.pages), "it names a page of the archive table twice")
    pages = (read_page(folder, page, "a page of the archive table") for page in manifest.pages)
    return {row[0]: row for page in pages for row in page["rows"]}

def rebuild(folder, manifest, key, scratch, devices):
    """The whole snapshot, in the directory `tree` of the closed one; returns its descriptor."""
    need(0 <= manifest.index["bytes"] <= MAX_TAR, "its index is too large to be one")
    rows = read_rows(folder, manifest)
    with unnamed(scratch) as file:
        index = {"path": b"index", "extents": manifest.index["extents"], "size": manifest.index["bytes"]}
        again = lambda _: open(os.dup(file.fileno()), "r+b")
        fetch(folder, rows, locate([index], scratch), key, scratch, again)
        header, entries = read_index(file, manifest)
    pieces = locate(entries, scratch)
    say(f"Restoring {len(entries)} entries, {sum(entry.get('size', 0) for entry in entries)} bytes")
    os.mkdir("tree", 0o700, dir_fd=scratch)
    root = os.open("tree", DIRECTORY, dir_fd=scratch)
    left_out = [entry for entry in entries if entry["type"] in ("chardev", "blockdev") and not devices]
    for entry in left_out:
        note(f"{show(entry['path'])}: left out: a device is made only with --devices")
    left_out = {entry["path"] for entry in left_out}
    # Nothing is below a link: read_index has refused it.
    made = [entry for entry in entries if entry["path"] not in left_out and attempt(
        entry, "make this " + entry["type"], lambda: make(enter(root, entry["path"]), entry, root))]
    fetch(folder, rows, pieces, key, scratch, lambda entry: open(
        enter(root, entry["path"]), "r+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)))
    for entry in reversed(made):  # a directory after what is in it
        if entry["type"] != "hardlink":
            dress(entry, enter(root, entry["path"]))
    note_missed()
    if LABELS:
        say(f"{len(LABELS)} security labels are not as recorded: only root can set those")
    if STRANGERS:
        say(f"{len(STRANGERS)} entries have not the owner or group that was recorded, but yours: only root can set those")
    torn = [{**entry, "reason": "it changed while it was backed up"} for entry in entries if entry.get("torn")]
    for said in torn + header["skipped"]:
        note(f"the snapshot itself says of {show(said['path'])}: {show(said['reason'])}")
    return root

def look(home, name, to):
    """The mode for NEW_DIR, which must be new or empty: no wider than the one that is there."""
    try:
        there = os.open(name, DIRECTORY, dir_fd=home)
    except FileNotFoundError:
        return 0o700
    except OSError as why:
        raise Refused(f"{to} is not new or empty ({why.strerror})")
    need(not os.listdir(there), f"{to} is not new or empty")
    mode = os.fstat(there).st_mode & 0o777 & ~UMASK
    if ACCESS_LIST in getattr(os, "listxattr", lambda _: [])(there):  # the new one has none
        mode = mode_without(os.getxattr(there, ACCESS_LIST), mode)
    os.close(there)
    return mode
def place(home, scratch, root, name, mode):
    """Moves the finished tree to its name, where nothing or an empty directory may be."""
    os.chmod(root, mode)
    os.sync()
    os.rename("tree", name, src_dir_fd=scratch, dst_dir_fd=home)
    found = os.stat(name, dir_fd=home, follow_symlinks=False)
    need(os.path.samestat(found, os.fstat(root)), "all was restored, but another user has moved it elsewhere since")

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
        return print("\n".join(f"{one.sequence} {one.stamp} {one.hash16} {one.totals['bytes']!r} bytes" for one in good))
    chosen = choose(good, refused, args.snapshot or "latest")
    chosen = read_manifest(chosen.path, host, lambda signer, *_: signer == chosen.signer)
    check_lineage(folder, chosen, good)
    if len(WARNINGS) > MAX_WARNINGS:
        say(f"warning: and {len(WARNINGS) - MAX_WARNINGS} more of these")
    say(f"Snapshot {chosen.stamp} (sequence {chosen.sequence}) of {host}, signed by {chosen.signer}")
    need(chosen.sequence >= int(args.at_least or 0), f"it is older than {args.at_least}: newer ones are hidden or lost")
    agreed = args.signer or args.accept_signer or sys.stdin.isatty() and input("Is that on your paper page? (yes/no) ")
    need(args.signer or agreed in (True, "yes"), f"the signer is not confirmed. If it is right, add: --signer {chosen.signer}")
    key, to = read_identity(args.identity), os.path.abspath(args.to)
    home, name = open_parent(os.path.dirname(to)), os.path.basename(to)
    mode = look(home, name, to)
    closed, scratch = make_closed(home, name)
    try:
        place(home, scratch, rebuild(folder, chosen, key, scratch, args.devices), name, mode)
    finally:
        remove(home, closed, scratch)
    say(f"RECOVERED into {to}" + f", but read the {len(NOTES)} notes above" * bool(NOTES))

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except (Exception, KeyboardInterrupt) as why:
        kind = "" if isinstance(why, (Refused, OSError)) else type(why).__name__ + ": "
        say(f"FAILED, nothing was recovered: {kind}{why}")
        sys.exit(1)
    sys.exit(3 if NOTES else 0)
