"""Makes a realistic AtoCore deployment, ages it by a day, takes a snapshot of it. Needs chromadb and numpy.

usage: make_atocore.py init ROOT --chunks N [--seed S]
       make_atocore.py day  ROOT --changes N [--seed S]
       make_atocore.py snapshot ROOT TO

ROOT/data/db/atocore.db       SQLite in WAL mode: documents, chunks, interactions
ROOT/config/project-registry.json
ROOT/data/chroma/             written by the real chromadb package

Text is cut from the sources of the crates on this machine. Vectors are 384 float32, random projections of
token hashes: as incompressible as real embeddings. Ids and choices come from the seed.
"""

import argparse
import glob
import hashlib
import json
import os
import pathlib
import random
import shutil
import sqlite3
import time
import uuid

import chromadb
import numpy as np

SCHEMA = """
PRAGMA journal_mode=WAL;
CREATE TABLE IF NOT EXISTS source_documents(id TEXT PRIMARY KEY, file_path TEXT, file_hash TEXT, title TEXT, created_at TEXT);
CREATE TABLE IF NOT EXISTS source_chunks(id TEXT PRIMARY KEY, document_id TEXT REFERENCES source_documents(id), chunk_index INT, content TEXT, heading_path TEXT, char_count INT, updated_at TEXT);
CREATE INDEX IF NOT EXISTS ix_chunks_doc ON source_chunks(document_id);
CREATE TABLE IF NOT EXISTS interactions(id TEXT PRIMARY KEY, prompt TEXT, response TEXT, project TEXT, created_at TEXT);
CREATE TABLE IF NOT EXISTS memories(id TEXT PRIMARY KEY, kind TEXT, content TEXT, confidence REAL, updated_at TEXT);
"""
FOLDERS = ("data/db", "data/chroma", "data/cache", "data/tmp", "config", "logs", "backups/snapshots", "sources/vault")
WORDS = 2048  # slots of the token hash
DIMENSIONS = 384
PIECE = 1200  # characters of a chunk
BATCH = 2000  # chunks added to Chroma at once
CREATED = "2026-04-07T06:00:00Z"


def texts(rng, count):
    """`count` pairs (file, piece of its text)."""
    cargo = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    files = sorted(glob.glob(f"{cargo}/registry/src/*/*/**/*.rs", recursive=True))
    if not files:
        raise SystemExit("no crates' sources to cut text from: build the project first")
    rng.shuffle(files)
    pieces = []
    while len(pieces) < count:
        for file in files:
            try:
                with open(file, encoding="utf8") as opened:
                    text = opened.read()
            except (OSError, UnicodeDecodeError):
                continue
            for start in range(0, len(text), PIECE):
                pieces.append((file, text[start : start + PIECE]))
                if len(pieces) >= count:
                    return pieces
    return pieces


def vector(text, projection):
    counts = np.zeros(WORDS, np.float32)
    for word in text.split():
        counts[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little") % WORDS] += 1
    projected = counts @ projection
    return (projected / (np.linalg.norm(projected) + 1e-9)).astype(np.float32)


def new_id(rng):
    return str(uuid.UUID(int=rng.getrandbits(128)))


def add(root, pieces, rng):
    """Documents and chunks go to SQLite, the chunks and their vectors to Chroma."""
    projection = np.random.default_rng(7).standard_normal((WORDS, DIMENSIONS)).astype(np.float32)
    database = sqlite3.connect(root / "data/db/atocore.db")
    database.executescript(SCHEMA)
    client = chromadb.PersistentClient(
        path=str(root / "data/chroma"), settings=chromadb.Settings(anonymized_telemetry=False)
    )
    collection = client.get_or_create_collection("atocore_chunks")
    documents = {}
    batch = []

    def flush():
        if batch:
            ids, vectors, metadata, content = map(list, zip(*batch))
            collection.add(ids=ids, embeddings=vectors, metadatas=metadata, documents=content)
            batch.clear()

    for number, (file, text) in enumerate(pieces):
        if file not in documents:
            documents[file] = new_id(rng)
            database.execute(
                "INSERT INTO source_documents VALUES(?,?,?,?,?)",
                (documents[file], file, hashlib.sha256(file.encode()).hexdigest(), os.path.basename(file), CREATED),
            )
        chunk = new_id(rng)
        database.execute(
            "INSERT INTO source_chunks VALUES(?,?,?,?,?,?,?)",
            (chunk, documents[file], number, text, os.path.dirname(file), len(text), CREATED),
        )
        batch.append((chunk, vector(text, projection), {"document_id": documents[file], "i": number}, text))
        if len(batch) == BATCH:
            flush()
    flush()
    database.commit()
    database.close()


def init(root, chunks, rng):
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    projects = [{"id": f"p{number:02}", "aliases": [f"proj-{number}"], "ingest_roots": []} for number in range(9)]
    (root / "config/project-registry.json").write_text(json.dumps({"projects": projects}, indent=2))
    add(root, texts(rng, chunks), rng)


def day(root, changes, rng):
    """`changes` chunks are edited, as many interactions logged and as many chunks added."""
    pieces = texts(rng, changes)
    database = sqlite3.connect(root / "data/db/atocore.db")
    ids = [row[0] for row in database.execute("SELECT id FROM source_chunks ORDER BY id")]
    for chunk in rng.sample(ids, min(len(ids), changes)):
        database.execute(
            "UPDATE source_chunks SET content=content||?, updated_at=? WHERE id=?",
            (" edited", time.strftime("%FT%TZ"), chunk),
        )
    for _, text in pieces:
        database.execute(
            "INSERT INTO interactions VALUES(?,?,?,?,?)",
            (new_id(rng), text[:200], text, "p05", time.strftime("%FT%TZ")),
        )
    database.commit()
    database.close()
    add(root, pieces, rng)


def snapshot(root, to):
    """Copies the deployment as AtoCore's own backup does: SQLite by its backup API, the rest as files."""
    (to / "db").mkdir(parents=True)
    (to / "config").mkdir()
    source = sqlite3.connect(root / "data/db/atocore.db")
    copy = sqlite3.connect(to / "db/atocore.db")
    source.backup(copy)
    copy.close()
    source.close()
    shutil.copytree(root / "data/chroma", to / "chroma")
    shutil.copy(root / "config/project-registry.json", to / "config")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("init", "day", "snapshot"))
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("to", type=pathlib.Path, nargs="?")
    parser.add_argument("--chunks", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    if options.verb == "init":
        init(options.root, options.chunks, rng)
    elif options.verb == "day":
        day(options.root, options.changes, rng)
    else:
        snapshot(options.root, options.to)


main()
