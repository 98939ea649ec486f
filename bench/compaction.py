#!/usr/bin/env python3
"""Sixty simulated days of backups: what compaction keeps of restore time and of storage.

usage: compaction.py --work DIR --sealift PROGRAM --python PYTHON_WITH_CHROMADB [--generator make_atocore.py]
                     [--live DIR] [--days 60] [--chunks 60000] [--changes 300] [--rounds 3] [--keep]

Each day the deployment changes (make_atocore.py day), is copied into one directory as AtoCore's own
backup would (database by the online backup API, Chroma as files; inodes stay), and backed up with the
clock a day further. In the end the newest snapshot stands against a fresh full push of the same
directory to a new target: restore time, and stored bytes against

    the fresh full push + the sum of true changes.

A day's *true changes* are the chunks that the catalog has never seen before, at the compressed size they
take in that day's archives (an archive's bytes, shared out by the plain bytes of its chunks), and the
day's index archives. Chunks that are in the catalog already and are stored again are compaction.

Standard library only. Results: DIR/compaction.json, and a table on stdout.
"""
import argparse, json, os, pathlib, shutil, sqlite3, statistics, subprocess, sys, time

LENGTH_MASK = (1 << 40) - 1  # the catalog keeps a checksum above a length


def run(arguments, **more):
    done = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))} ended with {done.returncode}")
    return done.stdout.decode()


def timed(arguments):
    """Wall and CPU seconds."""
    started = time.monotonic()
    child = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, arguments))} ended with status {status}")
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime


def snapshot(live, to):
    """As create_runtime_backup does, over what is there: inodes stay."""
    for folder in ('db', 'config'):
        (to / folder).mkdir(parents=True, exist_ok=True)
    source, copy = sqlite3.connect(live / 'data/db/atocore.db'), sqlite3.connect(to / 'db/atocore.db')
    source.backup(copy)
    copy.close()
    source.close()
    shutil.copytree(live / 'data/chroma', to / 'chroma', dirs_exist_ok=True)
    shutil.copy(live / 'config/project-registry.json', to / 'config')


class Host:
    """A host that backs `data` up to a folder, with state and keys of its own."""

    def __init__(self, program, work, name, data, recipient):
        self.program, self.dir = program, work / name
        self.dir.mkdir()
        self.repo, self.config = self.dir / 'repo', self.dir / 'c.toml'
        said = run([program, '--config', self.config, '--json', 'init', '--host', 'dalidou', '--recipient', recipient,
                    '--target', self.repo, '--tree', data], cwd=self.dir)
        self.signer = json.loads(said)['signer_fingerprint']

    def backup(self, day):
        clock = time.strftime('%Y-%m-%dT06:00:00Z', time.gmtime(1_800_000_000 + day * 86400))
        started = time.monotonic()
        report = json.loads(run([self.program, '--config', self.config, '--json', 'backup'], cwd=self.dir,
                                env={**os.environ, 'SEALIFT_CLOCK': clock}))
        return report, time.monotonic() - started

    def stored_bytes(self):
        return sum(path.stat().st_size for path in self.repo.rglob('*') if path.is_file())

    def restore(self, identity, to):
        shutil.rmtree(to, ignore_errors=True)
        return timed([self.program, '--quiet', 'restore', 'latest', '--from', self.repo, '--identity', identity,
                      '--signer', self.signer, '--to', to])

    def catalog(self):
        path = next(self.dir.rglob('catalog.db'))
        return sqlite3.connect(f'file:{path}?mode=ro', uri=True)


class Account:
    """Which chunks were ever seen, and in which archive each lies now."""

    def __init__(self):
        self.place, self.archives = {}, 0

    def day(self, host):
        db = host.catalog()
        new_archives = {n: (kind, size) for n, kind, size in
                        db.execute('SELECT n, kind, bytes FROM archives WHERE n > ?', [self.archives])}
        first, again = dict.fromkeys(new_archives, 0), dict.fromkeys(new_archives, 0)
        rows = db.execute('SELECT hash, archive, length FROM chunks WHERE archive > ?', [self.archives])
        for chunk, archive, length in rows:
            (again if chunk in self.place else first)[archive] += length & LENGTH_MASK
            self.place[chunk] = archive
        self.archives = max(new_archives, default=self.archives)
        found = {'true_bytes': 0, 'index_bytes': 0, 'compacted_bytes': 0,
                 'true_plain': 0, 'compacted_plain': 0}
        for n, (kind, size) in new_archives.items():
            if kind == 'index':
                found['index_bytes'] += size
                continue
            part = first[n] / ((first[n] + again[n]) or 1)
            found['true_bytes'] += round(size * part)
            found['compacted_bytes'] += size - round(size * part)
            found['true_plain'] += first[n]
            found['compacted_plain'] += again[n]
        live = db.execute('SELECT live_bytes, tar_bytes FROM archives WHERE kind = ? AND live_bytes > 0', ['data'])
        live = [(a, b & LENGTH_MASK) for a, b in live]
        db.close()
        return found, live


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work', type=pathlib.Path, required=True, help='made, and removed in the end')
    parser.add_argument('--sealift', type=pathlib.Path, required=True)
    parser.add_argument('--python', default=sys.executable, help='a Python that has chromadb and numpy')
    parser.add_argument('--generator', type=pathlib.Path, default=here / 'make_atocore.py')
    parser.add_argument('--live', type=pathlib.Path, help='a deployment made before, to be copied')
    parser.add_argument('--days', type=int, default=60)
    parser.add_argument('--chunks', type=int, default=60000)
    parser.add_argument('--changes', type=int, default=300)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--keep', action='store_true', help='do not remove the data in the end')
    a = parser.parse_args()
    work = a.work.resolve()
    work.mkdir(parents=True)
    # A rebuild meanwhile must not change the program half-way.
    program = work / 'sealift'
    shutil.copy2(a.sealift, program)
    live, snap = work / 'live', work / 'snap'
    if a.live:
        shutil.copytree(a.live, live)
    else:
        run([a.python, a.generator, 'init', live, '--chunks', a.chunks, '--seed', 3])
    snapshot(live, snap)
    identity = work / 'key.txt'
    recipient = run([program, 'key', 'generate', '--output', identity]).strip()
    host, account, days = Host(program, work, 'host', snap, recipient), Account(), []
    print('day      data  new stored  true  compacted  index |  needed  archives  on target | backup s', flush=True)
    mb = lambda count: f'{count / 1e6:.1f}'
    for day in range(a.days + 1):
        if day:
            run([a.python, a.generator, 'day', live, '--changes', a.changes, '--seed', 1000 + day])
            snapshot(live, snap)
        report, seconds = host.backup(day)
        found, archives = account.day(host)
        totals = report['totals']
        row = {'day': day, 'data_bytes': totals['bytes'], 'new_bytes': report['new_archive_bytes'],
               'needed_bytes': totals['archive_bytes'], 'needed_archives': totals['archives'],
               'stored_bytes': host.stored_bytes(), 'backup_s': seconds,
               'live_share': sum(l for l, _ in archives) / sum(t for _, t in archives), **found}
        days.append(row)
        (work / 'days.json').write_text(json.dumps(days, indent=1))
        print(f"{day:3} {mb(row['data_bytes']):>9} {mb(row['new_bytes']):>11} {mb(row['true_bytes']):>5} "
              f"{mb(row['compacted_bytes']):>10} {mb(row['index_bytes']):>6} | {mb(row['needed_bytes']):>7} "
              f"{row['needed_archives']:>9} {mb(row['stored_bytes']):>10} | {seconds:.1f}", flush=True)
    fresh = Host(program, work, 'fresh', snap, recipient)
    fresh.backup(a.days + 1)
    runs = {'newest': [], 'fresh': []}
    for number in range(a.rounds + 1):
        for name, one in (('newest', host), ('fresh', fresh)):
            took = one.restore(identity, work / 'out')
            if number == 0:  # warms the page cache, and is compared
                run(['diff', '-r', work / 'out' / snap.name, snap])
            else:
                runs[name].append(took)
    shutil.rmtree(work / 'out')
    median = {name: [statistics.median(column) for column in zip(*took)] for name, took in runs.items()}
    first, last = days[0], days[-1]
    fresh_bytes = fresh.stored_bytes()
    true_bytes = sum(row['true_bytes'] + row['index_bytes'] for row in days[1:])
    bound = fresh_bytes + true_bytes
    result = {
        'days': a.days, 'data_bytes': last['data_bytes'], 'fresh_bytes': fresh_bytes, 'true_bytes': true_bytes,
        'true_data_bytes': sum(row['true_bytes'] for row in days[1:]),
        'index_bytes': sum(row['index_bytes'] for row in days[1:]),
        'compacted_bytes': sum(row['compacted_bytes'] for row in days[1:]),
        'needed_bytes': last['needed_bytes'], 'stored_bytes': last['stored_bytes'],
        'restore_s': median['newest'], 'fresh_restore_s': median['fresh'], 'runs': runs,
        'restore_ratio': median['newest'][0] / median['fresh'][0],
        'needed_ratio': last['needed_bytes'] / bound, 'stored_ratio': last['stored_bytes'] / bound,
        'needed_against_fresh': last['needed_bytes'] / fresh_bytes,
    }
    text = json.dumps({**result, 'per_day': days}, indent=1)
    (work.parent / f'{work.name}.json').write_text(text)
    print(json.dumps(result, indent=1))
    print(f"restore {result['restore_ratio']:.2f} x fresh (bound 1.3); on the target {result['stored_ratio']:.2f} x, "
          f"needed by the newest {result['needed_ratio']:.2f} x fresh push + true changes (bound 1.5)")
    if not a.keep:
        shutil.rmtree(work)
    return 0 if result['restore_ratio'] <= 1.3 and result['stored_ratio'] <= 1.5 else 1


if __name__ == '__main__':
    sys.exit(main())
