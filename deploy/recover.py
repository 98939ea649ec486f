#!/usr/bin/env python3
"""Gets a Sealift backup back without Sealift: Python 3.8, `age`, `zstd` and `ssh-keygen` will do.

    recover.py REPO_DIR --list
    recover.py REPO_DIR --identity KEY --signer SHA256:... --to NEW_DIR

REPO_DIR is a plain copy of one host's folder (manifests/, tables/, archives/), or holds one.
Nothing is believed unchecked: manifests by signature, pages and archives by their SHA-256, each
before it is used. NEW_DIR appears whole at the end, or not at all.
Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 recovered, but read the notes.
"""
import argparse, base64, hashlib, itertools, json, os, re, shutil, signal, subprocess, sys, tempfile, types

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
    """An identity file's content; a passphrase-sealed one is opened here, once."""
    key = read(path, "the identity")
    if not key.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED")):
        return key
    opened = subprocess.run(["age", "-d", path], stdout=subprocess.PIPE)
    need(opened.returncode == 0, f"the identity {path} does not open")
    return opened.stdout

def open_archive(path, row, keys, scratch):
    """The tar of an archive, as a file; its ciphertext is copied and proved genuine first."""
    there = os.path.getsize(path) if os.path.isfile(path) else None
    need(there == row[4], "it is missing" if there is None else f"it has {there} bytes instead of {row[4]}")
    digest, pipes = hashlib.sha256(), []
    with open(path, "rb") as sealed, open(scratch + "/sealed", "wb") as copy:
        for block in iter(lambda: sealed.read(1 << 20), b""):
            digest.update(block)
            copy.write(block)
    need(digest.hexdigest() == row[3], "damaged or swapped: its SHA-256 is not the signed one")
    for key in keys:  # an opened key reaches age through a pipe, never through a disk
        pipe, into = os.pipe()
        os.write(into, key)
        os.close(into)
        pipes += ["-i", f"/dev/fd/{pipe}"]
    fds = [int(word[8:]) for word in pipes[1::2]]
    with open(scratch + "/tar", "w+b") as tar:
        age = subprocess.Popen(["age", "-d", *pipes, scratch + "/sealed"], stdout=subprocess.PIPE, pass_fds=fds)
        zstd = subprocess.run(["zstd", "-dcq"], stdin=age.stdout, stdout=tar)
        age.stdout.close()
    for pipe in fds:
        os.close(pipe)
    need(age.wait() == 0, "it is genuine, but age cannot open it: is this the right identity?")
    need(zstd.returncode == 0, "it is genuine, but zstd cannot read it")
    return open(scratch + "/tar", "rb")

def fetch(folder, rows, pieces, keys, scratch, file_of):
    """Writes each archive's pieces (tar offset, length, owner, offset) into the files of their owners."""
    bad = []
    for number, (archive, wanted) in enumerate(sorted(pieces.items()), 1):
        need(archive in rows, f"archive {archive} is needed, but not in the manifest's table")
        row = rows[archive]
        path = f"{folder}/archives/{row[2][:2]}/{row[2]}.tar.zst.age"
        say(f"  archive {number} of {len(pieces)}: {archive}, {row[4] / 1e6:.1f} MB")
        try:
            with open_archive(path, row, keys, scratch) as tar:
                for offset, length, owner, at in sorted(wanted):
                    tar.seek(offset)
                    file, data = file_of(owner), tar.read(length)
                    need(len(data) == length, "its tar ends too early")
                    file.seek(at)
                    file.write(data)
        except Refused as why:
            bad.append(f"archive {archive} ({path}): {why}")
    need(not bad, "\n  ".join(bad))

# --- Files: what the index says -------------------------------------------------------------------

def add_pieces(pieces, extents, owner, size, tar_bytes):
    """Sorts extents by archive; they must cover `size` bytes, within archives that the index lists."""
    at = 0
    for archive, offset, length in extents:
        limit = 1 << 62 if tar_bytes is None or archive == "-" else tar_bytes.get(archive, 0)
        need(0 <= offset and 0 < length <= limit - offset, f"an impossible extent in archive {archive}")
        if archive != "-":  # a hole
            pieces.setdefault(archive, []).append((offset, length, owner, at))
        at += length
    need(at == size, f"extents cover {at} bytes of {size}")

def read_index(path, core):
    """Header and entries of the index, every path checked, and the pieces to fetch."""
    with open(path, "rb") as file:
        lines = (json.loads(line) for line in file)
        header = next(lines)
        need((header["format"], header["host"], header["stamp"]) == (1, core["host"], core["stamp"]), "the index is of another snapshot")
        tar_bytes = {line["archive"]: line["tar_bytes"] for line in itertools.islice(lines, header["archives"])}
        entries = list(lines)
    need(len(entries) == header["entries"], f"the index has {len(entries)} entries, {header['entries']} were promised")
    last, kinds, pieces = b"", {b"": "dir"}, {}
    for number, entry in enumerate(entries):
        for key in "path", "target":
            if key + "_b64" in entry or key in entry:
                entry[key] = base64.b64decode(entry[key + "_b64"]) if key + "_b64" in entry else entry[key].encode()
        path, kind = entry["path"], entry["type"]
        need(path > last and b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/")) and
             kinds.get(path.rpartition(b"/")[0]) == "dir", f"the index holds an unsafe path: {show(path)}")
        need(kind != "hardlink" or kinds.get(entry["target"]) == "file", f"{show(path)} links to no earlier file")
        add_pieces(pieces, entry.get("extents", []), number, entry.get("size", 0), tar_bytes)
        kinds[path], last = kind, path
    return header, entries, pieces
