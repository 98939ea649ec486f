"""A stand-in for AtoCore: its HTTP interface over a real SQLite database (WAL, written to all the time), a registry in
JSON and a directory shaped as Chroma's.

    atocore.py init ROOT          makes the data
    atocore.py start ROOT         starts the service, and returns once it answers
    atocore.py stop ROOT          stops it, and returns once it has ended
    atocore.py stopped ROOT       exits 0 if it does not run
    atocore.py serve ROOT         is the service

ROOT/behaviour.json says how it misbehaves; it is read at each request:

    status        what /admin/backup answers instead, `times` times (without `times`: always)
    hang          seconds before /admin/backup answers
    redirect      the URL to which /admin/backup redirects
    answer        what /admin/backup answers, as text
    backup_root   what the answer has as backup_root; {stamp} and {root} are replaced
    age           seconds by which the stamp is too old
    damage        "db", "registry" or "chroma": what is wrong in the snapshot
    token         the bearer token that /admin/backup wants
    container     the directory that the answer has in the place of ROOT
    health        the status of /health
    stop          "ignore": it does not end when it is asked to
"""

import http.server
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request


class Place:
    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.database = self.root / "data/db/atocore.db"
        self.registry = self.root / "config/project-registry.json"
        self.chroma = self.root / "data/chroma"
        self.snapshots = self.root / "backups/snapshots"
        self.run = self.root / "run"
        self.pid_file = self.run / "pid"
        self.port_file = self.run / "port"
        self.requests = self.run / "requests"

    def behaviour(self):
        try:
            return json.loads((self.root / "behaviour.json").read_text())
        except FileNotFoundError:
            return {}

    def pid(self):
        try:
            pid = int(self.pid_file.read_text())
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else pid


def init(place):
    for directory in [place.database.parent, place.registry.parent, place.chroma, place.snapshots, place.run]:
        directory.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(place.database)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(
        """CREATE TABLE source_documents(id INTEGER PRIMARY KEY, path TEXT, title TEXT);
           CREATE TABLE chunks(id TEXT PRIMARY KEY, document INTEGER, project TEXT, text TEXT);
           CREATE TABLE heartbeat(id INTEGER PRIMARY KEY, at REAL);"""
    )
    vectors = sqlite3.connect(place.chroma / "chroma.sqlite3")
    vectors.execute("CREATE TABLE embeddings(id INTEGER PRIMARY KEY, chunk TEXT)")
    for number in range(1, 13):
        project = ["p04-gigabit", "p05-interferometer", "p06-polisher"][number % 3]
        path = place.root / f"sources/vault/{project}/{number}.md"
        db.execute("INSERT INTO source_documents VALUES (?, ?, ?)", (number, str(path), f"Note {number}"))
        for part in range(3):
            chunk = f"{number}-{part}"
            db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", (chunk, number, project, f"what {project} is about, part {part}"))
            vectors.execute("INSERT INTO embeddings(chunk) VALUES (?)", (chunk,))
    db.commit()
    vectors.commit()
    index = place.chroma / "0b6e3c1a-1f2e-4f0e-9d3a-5c1f1a2b3c4d"
    index.mkdir()
    for name in ["data_level0.bin", "header.bin", "length.bin", "link_lists.bin"]:
        (index / name).write_bytes(name.encode() * 400)
    projects = [{"id": name} for name in ["p04-gigabit", "p05-interferometer", "p06-polisher"]]
    place.registry.write_text(json.dumps({"projects": projects}, indent=2))
    os.chmod(place.database, 0o600)
    os.chmod(place.registry, 0o644)


class Service:
    def __init__(self, place):
        self.place = place
        self.lock = threading.Lock()
        self.refusals = 0
        # As AtoCore does: what cannot be opened to be written is no start.
        self.writer = sqlite3.connect(f"file:{place.database}?mode=rw", uri=True, check_same_thread=False, timeout=10)
        self.writer.execute("INSERT INTO heartbeat(at) VALUES (?)", (time.time(),))
        self.writer.commit()

    def beat(self):
        while True:
            time.sleep(0.05)
            with self.lock:
                self.writer.execute("INSERT INTO heartbeat(at) VALUES (?)", (time.time(),))
                self.writer.commit()

    def read(self, sql, *values):
        db = sqlite3.connect(f"file:{self.place.database}?mode=ro", uri=True, timeout=10)
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def stats(self):
        [[documents]] = self.read("SELECT count(*) FROM source_documents WHERE substr(path, 1, ?) = ?",
                                  len(str(self.place.root)), str(self.place.root))
        [[chunks]] = self.read("SELECT count(*) FROM chunks")
        return {"documents": documents, "chunks": chunks}

    def context(self, body):
        known = {row[0] for row in self.read("SELECT id FROM chunks WHERE project = ?", body.get("project", ""))}
        vectors = sqlite3.connect(f"file:{self.place.chroma}/chroma.sqlite3?mode=ro", uri=True)
        try:
            found = {row[0] for row in vectors.execute("SELECT chunk FROM embeddings")}
        finally:
            vectors.close()
        return {"chunks_used": len(known & found), "prompt": body.get("prompt")}

    def backup(self, body, behaviour):
        stamp = time.gmtime(time.time() - behaviour.get("age", 0))
        stamp = time.strftime("%Y%m%dT%H%M%SZ", stamp)
        root = self.place.snapshots / stamp
        while root.exists():
            time.sleep(0.2)
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            root = self.place.snapshots / stamp
        (root / "db").mkdir(parents=True)
        (root / "config").mkdir()
        copy = root / "db/atocore.db"
        target = sqlite3.connect(copy)
        source = sqlite3.connect(f"file:{self.place.database}?mode=ro", uri=True)
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")
        target.close()
        source.close()
        registry = ""
        if self.place.registry.exists():
            registry = root / "config/project-registry.json"
            shutil.copy2(self.place.registry, registry)
        with_chroma = bool(body.get("include_chroma"))
        if with_chroma:
            shutil.copytree(self.place.chroma, root / "chroma")
        damage = behaviour.get("damage")
        if damage == "db":
            with open(copy, "r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * 4096)
        elif damage == "registry":
            pathlib.Path(registry).write_text('{"projects": [')
        elif damage == "chroma":
            shutil.rmtree(root / "chroma")
        shown = str(root)
        if "container" in behaviour:
            shown = shown.replace(str(self.place.root), behaviour["container"], 1)
        metadata = {
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            "backup_root": shown,
            "db_snapshot_path": f"{shown}/db/atocore.db",
            "db_size_bytes": copy.stat().st_size,
            "registry_snapshot_path": f"{shown}/config/project-registry.json" if registry else "",
            "chroma_snapshot_included": with_chroma and damage != "chroma",
            "chroma_snapshot_path": f"{shown}/chroma" if with_chroma and damage != "chroma" else "",
            "vector_store_note": "",
        }
        (root / "backup-metadata.json").write_text(json.dumps(metadata, indent=2))
        if "backup_root" in behaviour:
            other = behaviour["backup_root"].replace("{stamp}", stamp).replace("{root}", str(self.place.root))
            metadata["backup_root"] = other
        return metadata

    def backups(self):
        found = []
        for directory in sorted(self.place.snapshots.iterdir()):
            if not directory.name.startswith((".", "invalid-")):
                entry = {"stamp": directory.name}
                metadata = directory / "backup-metadata.json"
                if metadata.exists():
                    entry.update(json.loads(metadata.read_text()))
                found.append(entry)
        return {"backup_dir": str(self.place.snapshots), "backups": found}

    def validate(self, stamp):
        root = self.place.snapshots / stamp
        errors = []
        if not root.is_dir():
            return {"stamp": stamp, "valid": False, "errors": ["snapshot_missing"]}
        try:
            db = sqlite3.connect(f"file:{root}/db/atocore.db?mode=ro&immutable=1", uri=True)
            if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                errors.append("db_integrity_check_failed")
            db.close()
        except sqlite3.Error:
            errors.append("db_integrity_check_failed")
        registry = root / "config/project-registry.json"
        if registry.exists():
            try:
                json.loads(registry.read_text())
            except ValueError:
                errors.append("registry_invalid_json")
        return {"stamp": stamp, "valid": not errors, "errors": errors}


def handler(service):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def say(self, status, body, **headers):
            text = body if isinstance(body, str) else json.dumps(body)
            text = text.encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def body(self):
            length = int(self.headers.get("Content-Length") or 0)
            return json.loads(self.rfile.read(length) or b"{}")

        def do_GET(self):
            self.answer(lambda: self.get(self.path))

        def do_POST(self):
            self.answer(lambda: self.post(self.path))

        def answer(self, work):
            with open(service.place.requests, "a") as log:
                log.write(f"{self.command} {self.path}\n")
            try:
                work()
            except Exception as error:  # As a web framework does.
                self.say(500, {"detail": f"{type(error).__name__}: {error}"})

        def get(self, path):
            behaviour = service.place.behaviour()
            if path == "/health":
                status = behaviour.get("health", 200)
                service.read("SELECT count(*) FROM chunks")
                self.say(status, {"status": "ok" if status == 200 else "degraded"})
            elif path == "/stats":
                self.say(200, service.stats())
            elif path == "/projects":
                self.say(200, json.loads(service.place.registry.read_text()))
            elif path == "/admin/backup":
                self.say(200, service.backups())
            elif path.startswith("/admin/backup/") and path.endswith("/validate"):
                self.say(200, service.validate(path.split("/")[3]))
            else:
                self.say(404, {"detail": "Not Found"})

        def post(self, path):
            behaviour = service.place.behaviour()
            body = self.body()
            if path == "/context/build":
                self.say(200, service.context(body))
            elif path == "/admin/backup":
                self.backup(body, behaviour)
            else:
                self.say(404, {"detail": "Not Found"})

        def backup(self, body, behaviour):
            token = behaviour.get("token")
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                return self.say(401, {"detail": "not authorised"})
            time.sleep(behaviour.get("hang", 0))
            if "redirect" in behaviour:
                return self.say(307, {}, Location=behaviour["redirect"])
            if "answer" in behaviour:
                return self.say(200, behaviour["answer"])
            if "status" in behaviour and service.refusals < behaviour.get("times", 1 << 30):
                service.refusals += 1
                return self.say(behaviour["status"], {"detail": "ingestion is running"})
            self.say(200, service.backup(body, behaviour))

    return Handler


def serve(place):
    service = Service(place)
    port = int(place.port_file.read_text()) if place.port_file.exists() else 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler(service))
    place.port_file.write_text(str(server.server_address[1]))
    if place.behaviour().get("stop") == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=service.beat, daemon=True).start()
    place.pid_file.write_text(str(os.getpid()))
    server.serve_forever()


def start(place):
    if place.pid():
        return
    place.pid_file.unlink(missing_ok=True)
    log = open(place.run / "log", "ab")
    child = subprocess.Popen([sys.executable, "-B", __file__, "serve", str(place.root)], start_new_session=True,
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for _ in range(400):
        if child.poll() is not None:
            sys.exit(f"it ended at once: {(place.run / 'log').read_text()[-600:]}")
        if place.pid_file.exists() and place.pid_file.read_text() == str(child.pid):
            try:
                port = place.port_file.read_text()
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                opener.open(f"http://127.0.0.1:{port}/projects", timeout=5)
                return
            except OSError:
                if child.poll() is None:
                    return
        time.sleep(0.05)
    sys.exit("it did not answer")


def stop(place):
    pid = place.pid()
    if not pid:
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(40):
        if place.pid() is None:
            return
        time.sleep(0.05)


def main():
    verb, root = sys.argv[1:]
    place = Place(root)
    if verb == "stopped":
        sys.exit(1 if place.pid() else 0)
    {"init": init, "start": start, "stop": stop, "serve": serve}[verb](place)


main()
