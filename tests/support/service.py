"""A small service over two SQLite databases in WAL mode, below a directory: one/one.db and two.db.

Verbs: run, start, stop, stopped, each followed by the directory. `behaviour` in it has words:

  refuse-stop      it ignores that it must stop
  restart          a supervisor starts it again as soon as it has stopped
  write-late       a program writes to one.db as soon as the service has stopped
  leave-log        it ends without closing its databases, so their logs stay
  busy             it writes all the time
  refuse-start     it cannot be started
  refuse-N         it cannot be started with the content of generation N
  port             another program has its port
"""

import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

verb, root = sys.argv[1], pathlib.Path(sys.argv[2])
DATABASES = [root / "one" / "one.db", root / "two.db"]


def behaves(word):
    try:
        return word in (root / "behaviour").read_text().split()
    except FileNotFoundError:
        return False


def pid():
    try:
        number = int((root / "pid").read_text())
        os.kill(number, 0)
        state = pathlib.Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return None if state == "Z" else number
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None


def background(*arguments):
    null = subprocess.DEVNULL
    command = [sys.executable, "-B", __file__, *arguments]
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)


def connect(path):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("SELECT count(*) FROM generation").fetchone()
    return database


def run():
    databases = [connect(path) for path in DATABASES]

    def end(*_):
        if behaves("refuse-stop"):
            return
        if behaves("leave-log"):
            os._exit(0)
        for database in databases:
            database.close()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    (root / "pid.new").write_text(str(os.getpid()))
    (root / "pid.new").rename(root / "pid")
    while root.exists():
        if behaves("busy"):
            databases[0].execute("INSERT INTO work VALUES (randomblob(100))")
        time.sleep(0.02)


def start():
    if behaves("refuse-start"):
        sys.exit("it does not want to")
    if behaves("port"):
        sys.exit("OSError: [Errno 98] Address already in use")
    found = sqlite3.connect(f"file:{DATABASES[0]}?mode=ro", uri=True)
    generation = found.execute("SELECT value FROM generation").fetchone()[0]
    found.close()
    if behaves(f"refuse-{generation}"):
        sys.exit("it cannot read its database")
    if pid() is None:
        background("run", str(root))
        for _ in range(500):
            if pid() is not None:
                return
            time.sleep(0.01)
        sys.exit("it did not start")


def stop():
    running = pid()
    if running is not None:
        os.kill(running, signal.SIGTERM)
        for _ in range(500):
            if pid() is None or behaves("refuse-stop"):
                break
            time.sleep(0.01)
    if behaves("restart"):
        background("run", str(root))


def stopped():
    if behaves("write-late"):
        background("late", str(root))
        for _ in range(1000):
            if (root / "late").exists():
                return
            time.sleep(0.01)
    if behaves("refuse-stop") or behaves("restart"):
        return
    if pid() is not None:
        sys.exit("it runs")


def late():
    database = connect(DATABASES[0])
    (root / "late").touch()
    for _ in range(150):
        database.execute("INSERT INTO work VALUES (randomblob(100))")
        time.sleep(0.02)


{"run": run, "start": start, "stop": stop, "stopped": stopped, "late": late}[verb]()
