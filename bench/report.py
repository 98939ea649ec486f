"""Tables, verdicts and docs/benchmarks.md, from the runs in the results file.

Units throughout: MB and kB are 10^6 and 10^3 bytes, seconds are wall time unless they are called CPU seconds.
A figure of several rounds is their median.
"""

import re
import statistics
import subprocess
from pathlib import Path

import tools
from places import Stop, read_results

TEMPLATE = Path(__file__).with_name("benchmarks.md.in")
COLUMNS = {  # heading of the comparison's table: (step, what its cell holds)
    "full": ("full", ("wall", "cpu", "peak", "stored")),
    "unchanged": ("unchanged", ("wall", "cpu", "peak", "stored")),
    "a day later": ("day", ("wall", "cpu", "peak", "stored")),
    "restore": ("restore", ("wall", "cpu", "peak")),
    "restore, until on disk": ("restore", ("on_disk",)),
    "full, cold": ("full_cold", ("wall",)),
    "restore, cold": ("restore_cold", ("wall",)),
}
KEYS = {"wall": "wall_s", "on_disk": "on_disk_s", "cpu": "cpu_s", "peak": "peak_bytes", "stored": "stored_bytes"}


def run(work, options):
    runs = read_results(work)
    latest = {}
    for one in runs:
        if not one.get("subset"):  # --tools was given: a trial
            for name in one["data"]:
                latest[one["kind"], name] = one
    blocks = {
        f"compare {name}": block(latest.get(("compare", name)), name, comparison_block) for name in ("atocore", "tree")
    }
    blocks |= {f"scale {name}": block(latest.get(("scale", name)), name, scale_block) for name in ("files", "database")}
    blocks["verdicts"] = verdict_table({name: latest.get(("compare", name)) for name in ("atocore", "tree")})
    blocks["machine"] = machine_block([latest[key] for key in latest])
    if any(kind == "scale" for kind, _ in latest):
        draw(work, [latest[key] for key in sorted(latest) if key[0] == "scale"], options.output.with_name("scale.svg"))
    text = re.sub(r"^\{\{(.+)\}\}$", lambda match: filled(blocks, match[1]), TEMPLATE.read_text(), flags=re.MULTILINE)
    options.output.write_text(text)
    print(f"written: {options.output}")
    return 0


def filled(blocks, name):
    if name not in blocks:
        raise Stop(f"{TEMPLATE.name} asks for {{{{{name}}}}}, which is none of: {', '.join(blocks)}")
    return blocks[name]


def block(result, name, make):
    return make(result, name) if result else "*Not measured yet.*"


def draw(work, runs, output):
    """The curves, by the virtual environment's Python, which has matplotlib."""
    done = subprocess.run(
        [
            work.venv / "bin" / "python",
            Path(__file__).with_name("curves.py"),
            work.results,
            output,
            *sorted({one["date"] for one in runs}),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Stop(f"the curves could not be drawn: {done.stderr.strip()[-500:]}")


# Figures of one run.


def rows_of(result, **wanted):
    return [row for row in result["measurements"] if all(row.get(key) == value for key, value in wanted.items())]


def median(result, dataset, tool, step, figure):
    """None where the tool never finished that step."""
    rows = rows_of(result, dataset=dataset, tool=tool, step=step, ok=True)
    values = [row[KEYS[figure]] for row in rows if KEYS[figure] in row]
    return statistics.median(values) if values else None


def best(result, dataset, step, figure):
    """(the smallest median among the peers, whose it is); (None, '') where there is none."""
    found = [
        (value, peer) for peer in tools.PEERS if (value := median(result, dataset, peer, step, figure)) is not None
    ]
    return min(found, default=(None, ""))


def peak(result, dataset):
    """The largest median peak of Sealift's steps, in MB; None where one of the four main steps has none."""
    found = {step: median(result, dataset, "sealift", step, "peak") for step, _ in COLUMNS.values()}
    if None in (found[step] for step in ("full", "unchanged", "day", "restore")):
        return None
    return max(value for value in found.values() if value is not None) / 1e6


# The comparison.


def comparison(result):
    """The tables of all data sets and the verdicts, as Markdown."""
    parts = []
    for name in result["data"]:
        parts.append(f"## {name}\n\n{comparison_block(result, name)}")
    parts.append(
        "## It must show\n\n"
        + verdict_table({name: result if name in result["data"] else None for name in ("atocore", "tree")})
    )
    return "\n\n".join(parts)


def comparison_block(result, dataset):
    names = [name for name in tools.NAMES if rows_of(result, dataset=dataset, tool=name)]
    lines = [
        "| | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
        *(
            f"| {label(result, name)} | "
            + " | ".join(cell(result, dataset, name, *column) for column in COLUMNS.values())
            + " |"
            for name in names
        ),
        *(
            f"| {escaped(name)} | {why} |" + " |" * (len(COLUMNS) - 1)
            for name, why in result.get("missing", {}).items()
        ),
    ]
    return "\n".join(lines) + "\n\n" + remarks(result, dataset)


def label(result, name):
    """The tool's name and the number in its version."""
    found = re.search(r"\d+(\.\d+)+", result["versions"].get(name, ""))
    return escaped(name) if name in ("tar|zstd|age", "checked pipe") or not found else f"{escaped(name)} {found[0]}"


def escaped(name):
    return name.replace("|", r"\|")


def cell(result, dataset, tool, step, figures):
    rows = rows_of(result, dataset=dataset, tool=tool, step=step)
    if not rows:
        return "–"
    failed = sum(not row["ok"] for row in rows)
    if failed == len(rows):
        return "failed"
    values = [shown(figure, median(result, dataset, tool, step, figure)) for figure in figures]
    differs = any(row.get("difference") for row in rows)
    marks = [f"failed {failed} of {len(rows)}"] * bool(failed) + ["**differs**"] * differs
    return " / ".join(values) + "".join(f", {mark}" for mark in marks)


def shown(figure, value):
    if value is None:
        return "–"
    if figure in ("wall", "cpu", "on_disk"):
        return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
    if figure == "peak":
        return f"{value / 1e6:.0f}"
    return f"{value / 1e6:.1f}" if value >= 1e6 else f"{value / 1e6:.3f}"


def remarks(result, dataset):
    """What a reader must know of these rounds: their number, spread, failures, and whether restores were the same."""
    rounds = len({row["round"] for row in rows_of(result, dataset=dataset)})
    size = result["data"][dataset]
    lines = [
        f"{size['bytes'] / 1e6:.0f} MB in {size['files']:,} files; {rounds} round{'s' * (rounds > 1)}.",
        spread(result, dataset),
    ]
    restores = [row for row in rows_of(result, dataset=dataset, ok=True) if row["step"].startswith("restore")]
    wrong = sorted({f"{row['tool']} ({unplaced(row['difference'])})" for row in restores if row.get("difference")})
    if wrong:
        lines.append(f"Restored otherwise than it was: {'; '.join(wrong)}.")
    elif restores:
        lines.append(f"All {len(restores)} restores were the same as the live tree, byte for byte.")
    broken = sorted(
        {
            (row["tool"], row["step"], unplaced(row["error"].partition("\n")[0])[:160])
            for row in rows_of(result, dataset=dataset, ok=False)
        }
    )
    lines += [f"{tool}, {step}: failed ({error})." for tool, step, error in broken]
    cold = [row for row in rows_of(result, dataset=dataset) if "evicted" in row]
    if cold:
        ways = " and ".join(sorted({f"`{row['evicted']}`" for row in cold}))
        lines.append(f"Cold: {len({row['round'] for row in cold})} of the rounds, caches emptied by {ways}.")
    return " ".join(filter(None, lines))


def unplaced(text):
    """Without the folders of this machine."""
    return re.sub(r"(/[^\s/:]+)+/", "…/", text)


def spread(result, dataset):
    """How far the rounds of one figure lie apart, where there is more than one."""
    apart = []
    for tool in tools.NAMES:
        for step, _ in COLUMNS.values():
            walls = [row["wall_s"] for row in rows_of(result, dataset=dataset, tool=tool, step=step, ok=True)]
            if len(walls) > 1 and min(walls) > 0.2:
                apart.append(max(walls) / min(walls) - 1)
    if not apart:
        return ""
    return (
        f"Steps of 0.2 s or more took {statistics.median(apart):.0%} longer in their slowest round than in their "
        f"fastest (the median; the most: {max(apart):.0%})."
    )


# What must show.


def verdict_table(results):
    """`results` maps a data set's name to its run or None. Peers are the tools of tools.PEERS, not the pipe."""
    checks = {name: verdicts(result, name) if result else {} for name, result in results.items()}
    rows = dict.fromkeys(row for found in checks.values() for row in found)
    lines = ["| | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
    for row in rows:
        lines.append(f"| {row} | " + " | ".join(checks[name].get(row, "not measured") for name in results) + " |")
    return "\n".join(lines)


def verdicts(result, dataset):
    """{row: 'PASS or MISS: figures'} for one data set."""
    atocore = dataset == "atocore"

    def ours(step, figure):
        return median(result, dataset, "sealift", step, figure)

    def pipe(step, figure):
        return median(result, dataset, "tar|zstd|age", step, figure), "the pipe"

    def checked_pipe(step, figure):
        return median(result, dataset, "checked pipe", step, figure), "the pipe with the same checks"

    def peer(step, figure):
        return best(result, dataset, step, figure)

    restic_day = median(result, dataset, "restic", "day", "stored")
    same = [
        not row.get("difference")
        for row in rows_of(result, dataset=dataset, tool="sealift", ok=True)
        if "restore" in row["step"]
    ]
    failed = rows_of(result, dataset=dataset, tool="sealift", ok=False)
    return {
        "full, wall": verdict(
            ratio(ours("full", "wall"), *checked_pipe("full", "wall"), 1.0 if atocore else 1.1),
            ratio(ours("full", "wall"), *peer("full", "wall"), 0.9 if atocore else 0.7),
        ),
        "full, stored": verdict(ratio(ours("full", "stored"), *peer("full", "stored"), 1.0))
        + beside(ours("full", "stored"), *pipe("full", "stored")),
        "unchanged, wall": verdict(
            limit(ours("unchanged", "wall"), 0.1, "s")
            if atocore
            else ratio(ours("unchanged", "wall"), *peer("unchanged", "wall"), 0.7)
        ),
        "a day later, wall": verdict(ratio(ours("day", "wall"), *peer("day", "wall"), 0.38 if atocore else 0.5)),
        "a day later, stored": verdict(
            share(ours("day", "stored"), restic_day, "restic", 38)
            if atocore
            else ratio(ours("day", "stored"), *peer("day", "stored"), 1.0)
        ),
        "restore until it returns": verdict(
            ratio(ours("restore", "wall"), *peer("restore", "wall"), 1.0 if atocore else 0.9)
        ),
        "restore until on disk": verdict(
            ratio(ours("restore", "on_disk"), *peer("restore", "on_disk"), 0.8 if atocore else 0.85),
            *[ratio(ours("restore", "cpu"), *peer("restore", "cpu"), 0.85)] * atocore,
        ),
        "peak memory": verdict(limit(peak(result, dataset), 150, "MB")),
        "restored the same, no step failed": verdict(
            (
                all(same) and not failed if same or failed else None,
                f"{sum(same)} of {len(same)} restores, {len(failed)} failed",
            )
        ),
    }


def verdict(*checks):
    """`checks` are pairs (whether it holds, or None if unknown; its figures)."""
    outcome = (
        "no figure"
        if any(held is None for held, _ in checks)
        else "PASS" if all(held for held, _ in checks) else "**MISS**"
    )
    return f"{outcome}: " + ", ".join(text for _, text in checks)


def ratio(ours, other, whose, allowed):
    if ours is None or not other:
        return None, f"nothing to compare (≤ {allowed:g} × asked)"
    return ours <= allowed * other, f"{ours / other:.3f} × {whose} (≤ {allowed:g})"


def beside(ours, other, whose):
    """A ratio of which nothing is asked."""
    return f"; {ours / other:.3f} × {whose}" if ours and other else ""


def share(ours, other, whose, asked):
    if not ours or not other:
        return None, f"nothing to compare (≤ 1/{asked} asked)"
    return ours * asked <= other, f"1/{other / ours:.1f} of {whose}'s (≤ 1/{asked})"


def limit(ours, allowed, unit):
    if ours is None:
        return None, f"≤ {allowed:g} {unit} asked"
    return ours <= allowed, f"{ours:.3g} {unit} (≤ {allowed:g})"


# Scale.

SCALE_STEPS = {"full": "full", "unchanged": "unchanged", "day": "a day later", "restore": "restore"}


def scale_block(result, dataset):
    """One line for each size; then what must show."""
    sizes = result["data"][dataset]["sizes"]
    what = "files" if dataset == "files" else "GiB"
    lines = [
        f"| {what} | " + " | ".join(SCALE_STEPS.values()) + " | catalog | other state |",
        "| --- |" + " --- |" * (len(SCALE_STEPS) + 2),
    ]
    for size in sizes:
        cells = [scale_cell(result, dataset, size["size"], step) for step in SCALE_STEPS]
        catalog, other = (
            f"{size[key] / 1e6:.1f} MB, {size[key] / size['bytes']:.2%}" if key in size else "–"
            for key in ("catalog_bytes", "other_state_bytes")
        )
        lines.append(f"| {size['size']:,g} | " + " | ".join(cells) + f" | {catalog} | {other} |")
    return "\n".join(lines) + "\n\n" + scale_verdicts(result, dataset)


def scale_cell(result, dataset, size, step):
    rows = rows_of(result, dataset=dataset, size=size, step=step)
    if not rows:
        return "–"
    row = rows[-1]
    if not row["ok"]:
        return "failed"
    figures = [shown("wall", row["wall_s"]), shown("cpu", row["cpu_s"]), shown("peak", row["peak_bytes"])]
    if "stored_bytes" in row:
        figures.append(shown("stored", row["stored_bytes"]))
    return " / ".join(figures) + (", **differs**" if row.get("difference") else "")


def scale_verdicts(result, dataset):
    rows = rows_of(result, dataset=dataset, ok=True)
    checks = {"peak memory": limit(max((row["peak_bytes"] / 1e6 for row in rows), default=None), 300, "MB")}
    for step, name in SCALE_STEPS.items():
        if step != "unchanged":
            checks[f"{name}, linear"] = linear(rows_of(result, dataset=dataset, step=step, ok=True))
    largest = result["data"][dataset]["sizes"][-1]
    if dataset == "files":
        unchanged = rows_of(result, dataset=dataset, step="unchanged", size=largest["size"], ok=True)
        checks[f"unchanged, {largest['size']:,g} files"] = limit(unchanged[-1]["wall_s"] if unchanged else None, 8, "s")
    shares = [
        size["catalog_bytes"] / size["bytes"] * 100
        for size in result["data"][dataset]["sizes"]
        if "catalog_bytes" in size
    ]
    checks["catalog, share of the data"] = limit(max(shares, default=None), 1.5, "%")
    failed = rows_of(result, dataset=dataset, ok=False) + [row for row in rows if row.get("difference")]
    checks["restored the same, no step failed"] = (
        not failed,
        f"{len(rows)} steps" if not failed else f"{len(failed)} not",
    )
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {verdict(check)} |" for name, check in checks.items())])


def linear(rows, allowed=1.25):
    """Whether the wall time per unit of work at the largest size is at most `allowed` times that at the smallest."""
    rows = sorted(rows, key=lambda row: row["size"])
    if len(rows) < 2 or not rows[0]["wall_s"]:
        return None, "fewer than two sizes"
    growth = (rows[-1]["wall_s"] / rows[-1]["size"]) / (rows[0]["wall_s"] / rows[0]["size"])
    times = rows[-1]["size"] / rows[0]["size"]
    return growth <= allowed, f"{growth:.3g} × the time per unit at {times:g} times the work (≤ {allowed:g})"


# The report's other blocks.


def machine_block(runs):
    """Where and when each run was, and the versions in it."""
    lines = []
    for one in sorted({one["date"]: one for one in runs}.values(), key=lambda one: one["date"]):
        machine = one["machine"]
        versions = "; ".join(f"{name}: {version}" for name, version in one["versions"].items())
        at = f", Sealift's working copy at {one['commit']}" if one["commit"] else ""
        lines.append(
            f"- {one['kind']}, {one['date']}{at}: {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_bytes'] / 1e9:.0f} GB of memory, {machine['kernel']}; {one['file_system']}. {versions}."
        )
    return "\n".join(lines) or "*Nothing measured yet.*"
