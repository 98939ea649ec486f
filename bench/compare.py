"""`bench/run compare`: all tools in turn over two days of the same tree.

A round: the live tree is day0; every tool pushes it in full to a fresh repository, then pushes it unchanged. The
live tree becomes day1, in place; every tool pushes that. Every tool restores it, and what it restored is compared
with the live tree, byte by byte. Rounds begin with another tool each time, so that no place in the order is always
the same tool's. The first rounds also measure a full push and a restore with cold caches.
"""

import sys

import data
import measure
import report
import tools
import volume
from places import Stop, new_run, remove, save_run

SPACE_PER_TOOL = 2.5  # times a data set's bytes, at most: three pushes
SPACE = 4  # times a data set's bytes: the live tree, a restore, a cold push


def run(work, options):
    folder = (options.data or work.data).resolve()
    wanted = [options.only] if options.only else data.NAMES
    names = [name for name in wanted if data.complete(folder / name)]
    for name in wanted:
        if name not in names:
            say(f"no {name} in {folder}: `bench/run data` makes it")
    if not names:
        raise Stop("no data to measure with")
    found, missing = tools.installed(work, options.sealift.resolve(), options.tools)
    for name, why in missing.items():
        say(f"{name} is left out: {why}")
    if not found:
        raise Stop("no tool to measure")
    result = new_run("compare", {tool.name: tool.version() for tool in found}, options.sealift.resolve())
    result["missing"] = missing
    result["subset"] = bool(options.tools)
    for name in names:
        files, size = data.extent(folder / name / "day0")
        result["data"][name] = {"files": files, "bytes": size}
        for number in range(options.rounds):
            try:
                space = size * (SPACE + SPACE_PER_TOOL * len(found)), files * (4 + 2 * len(found)) + 100_000
                with volume.scratch(work, *map(int, space), own=not options.no_volume) as (place, kind):
                    result["file_system"] = kind
                    Round(place, result, name, folder / name, number, found, options).go()
            finally:
                save_run(work, result)
    print(report.comparison(result))
    say(f"raw figures: {work.results}")
    return 0


def say(text):
    print(text, file=sys.stderr, flush=True)


class Round:
    """One round over one data set; adds its measurements to the run."""

    def __init__(self, folder, result, name, days, number, found, options):
        self.folder, self.result, self.name, self.days, self.number, self.options = (
            folder,
            result,
            name,
            days,
            number,
            options,
        )
        self.live = self.folder / "live"
        self.live.mkdir()
        shift = number * -(-len(found) // options.rounds) % len(found)
        self.order = found[shift:] + found[:shift]
        self.cold = number < options.cold_rounds
        self.places = {}  # of the tools that have not failed so far
        self.pushes = {tool.name: 0 for tool in found}

    def go(self):
        order = ", ".join(tool.name for tool in self.order)
        say(f"{self.name}, round {self.number + 1} of {self.options.rounds}: {order}")
        for tool in self.order:
            self.places[tool.name] = self.fresh(tool, tool.name, "full")
        data.fill(self.live, self.days / "day0")
        for tool in self.order:
            self.push(tool, "full")
            self.push(tool, "unchanged")
        if self.cold:
            for tool in self.order:
                self.cold_push(tool)
        data.fill(self.live, self.days / "day1")
        for tool in self.order:
            self.push(tool, "day")
        for tool in self.order:
            self.restore(tool, "restore")
            if self.cold:
                self.restore(tool, "restore_cold")

    def fresh(self, tool, name, step):
        """The place of a new repository; None and a failed measurement where it can't be made."""
        place = tools.Place(self.folder / name.replace("|", "-"), self.live)
        place.folder.mkdir()
        try:
            tool.init(place)
        except tools.Failed as failed:
            self.record(tool, step, measure.Measured(False, 0, 0, 0, str(failed)))
            return None
        return place

    def push(self, tool, step):
        place = self.places[tool.name]
        if not place:
            return
        self.pushes[tool.name] += 1
        before = measure.stored_bytes(place.repository)
        measured = measure.measure(tool.push(place, self.pushes[tool.name]), self.options.timeout)
        self.record(tool, step, measured, stored_bytes=measure.stored_bytes(place.repository) - before)
        if not measured.ok:
            self.places[tool.name] = None

    def cold_push(self, tool):
        place = self.fresh(tool, "cold", "full_cold")
        if place:
            evicted = measure.evict(self.live)
            measured = measure.measure(tool.push(place, 1), self.options.timeout)
            self.record(
                tool, "full_cold", measured, stored_bytes=measure.stored_bytes(place.repository), evicted=evicted
            )
        remove(self.folder / "cold")

    def restore(self, tool, step):
        place = self.places[tool.name]
        if not place:
            return
        out = self.folder / "out"
        out.mkdir()
        facts = {"evicted": measure.evict(place.repository)} if step == "restore_cold" else {}
        measured = measure.measure(tool.restore(place, self.pushes[tool.name], out), self.options.timeout)
        if measured.ok:
            facts["on_disk_s"] = measured.wall_s + measure.flush(out)
            facts["difference"] = data.difference(self.live, tool.restored(place, out))
        self.record(tool, step, measured, **facts)
        remove(out)

    def record(self, tool, step, measured, **facts):
        row = {
            "dataset": self.name,
            "round": self.number,
            "place": self.order.index(tool),
            "tool": tool.name,
            "step": step,
        }
        self.result["measurements"].append(row | measured.as_dict() | facts)
        stored = f"{facts['stored_bytes']:12d} bytes" if "stored_bytes" in facts else ""
        say(f"  {tool.name:14} {step:12} {measured.line()} {stored}{facts.get('difference', '')}")
