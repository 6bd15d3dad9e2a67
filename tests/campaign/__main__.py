"""Runs a whole plant, strikes it with faults that a seed chooses, and lets the judge say what went wrong.

    castings -> board (firmware in the AVR simulator) -> cameras -> machine A: gateway, inspector, sorter, archivist, station
                                                                    machine B: inspector;  broker: a process of its own

`make campaign ARGS="--seed N --minutes M"` needs the right to make namespaces and to mount file systems. The exit status is 1 if the judge
finds a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tests.campaign.faults import FAULTS, FaultError
from tests.campaign.plan import PlannedFault, Step, plan_steps
from tests.campaign.plant import Plant
from tests.campaign.sandbox import is_inside, run_inside
from tests.campaign.scene import GATED_LINES, write_line
from tests.campaign.watch import Watch, dump_topics

# The plant counts as healthy again after this many seconds without trouble. Then the next step begins.
_STEADY_S = 4.0
# If the plant is not healthy again after this time, the next step begins all the same.
_LONGEST_RECOVERY_S = 120.0
_REPORT_S = 20.0
# The first start converts the networks for their runtime.
_LONGEST_START_S = 300.0
# The share of the time, or of the number of faults, with one fault at a time.
_ALONE_SHARE = 0.6
# All pictures must be judged this long after the last fault. Castings come for a part of this time.
_JUDGED_AFTER_S, _CASTINGS_AFTER_S = 120.0, 40.0
# Castings a second of both lines together.
_RATE_PER_S = 1.4


class Campaign:
    """Strikes a running plant, and writes `faults.jsonl`."""

    def __init__(self, plant: Plant, watch: Watch, faults: IO[str]) -> None:
        self._plant = plant
        self._watch = watch
        self._faults = faults
        self._began_s = time.monotonic()
        self.number = 0
        self.counts: Counter[str] = Counter()
        self.last_ended_at: float | None = None

    def report(self, text: str) -> None:
        print(f"{time.monotonic() - self._began_s:6.0f} s  load {os.getloadavg()[0]:4.1f}  {text}", flush=True)

    def wait_until_healthy(self, within_s: float = _LONGEST_RECOVERY_S) -> bool:
        """Returns when the plant has been healthy for some seconds, or after `within_s` seconds with False."""
        give_up_s, healthy_since_s, report_s = time.monotonic() + within_s, time.monotonic(), time.monotonic() + _REPORT_S
        while time.monotonic() < give_up_s:
            if trouble := self._watch.find_trouble():
                healthy_since_s = time.monotonic()
            elif time.monotonic() - healthy_since_s > _STEADY_S:
                return True
            if time.monotonic() > report_s:
                report_s = time.monotonic() + _REPORT_S
                self.report(f"waiting, {self._watch.silence_s():.0f} s since the last verdict: {trouble}")
            time.sleep(0.2)
        self.report(f"the plant is not healthy after {within_s:.0f} s: {self._watch.find_trouble()}")
        return False

    def run_step(self, step: Step) -> None:
        """Begins and ends the faults of a step, each at its time, and writes them down."""
        start_s = time.monotonic()
        events = sorted(
            [(planned.delay_s, 0, index) for index, planned in enumerate(step.faults)]
            + [(planned.delay_s + planned.lasting_s, 1, index) for index, planned in enumerate(step.faults)]
        )
        entries: dict[int, dict[str, Any]] = {}
        try:
            for at_s, is_end, index in events:
                time.sleep(max(0.0, start_s + at_s - time.monotonic()))
                if is_end:
                    self._end(step.faults[index], entries.pop(index))
                else:
                    entries[index] = self._begin(step, step.faults[index])
        finally:
            for index, entry in entries.items():
                self._end(step.faults[index], entry)

    def _begin(self, step: Step, planned: PlannedFault) -> dict[str, Any]:
        fault = planned.fault
        self.number += 1
        self.report(f"fault {self.number}: {fault.KIND} at {fault.target}{'' if step.is_alone else ', one of two'}")
        entry: dict[str, Any] = {
            "number": self.number,
            "kind": fault.KIND,
            "target": fault.target,
            "began_at": time.time(),
            "load": os.getloadavg()[0],
        }
        entry |= {"ended_at": None, "alone": step.is_alone, "loses": fault.LOSES, "error": None}
        try:
            fault.begin(self._plant)
        except (FaultError, OSError, RuntimeError) as error:
            entry["error"] = str(error) or type(error).__name__
        # A fault that had to wait for its target has begun later.
        entry["began_at"] = max(entry["began_at"], fault.found_at)
        return entry

    def _end(self, planned: PlannedFault, entry: dict[str, Any]) -> None:
        if entry["error"] is None:
            try:
                planned.fault.end(self._plant)
            except (FaultError, OSError, RuntimeError) as error:
                entry["error"] = str(error) or type(error).__name__
        entry["ended_at"] = self.last_ended_at = time.time()
        self.counts[f"{entry['kind']}{' (not injected)' if entry['error'] else ''}"] += 1
        write_line(self._faults, entry)
        if entry["error"]:
            self.report(f"fault {entry['number']} could not be injected: {entry['error']}")


def _choose_steps(options: argparse.Namespace, began_s: float) -> Iterator[Step]:
    """Yields the steps of the campaign: first single faults, then two at once, as long as time and number allow."""
    number = 0
    for are_alone, share in ((True, _ALONE_SHARE), (False, 1.0)):
        for step in plan_steps(options.seed, are_alone, options.only or tuple(FAULTS)):
            if time.monotonic() - began_s > options.minutes * 60 * share:
                break
            if options.faults is not None and number >= options.faults * share:
                break
            number += len(step.faults)
            yield step


def run(options: argparse.Namespace, folder: Path) -> int:
    """Runs the campaign in `folder`, and returns the exit status."""
    with Plant(folder, options.seed, options.rate) as plant:
        _write_plan(plant, options)
        with Watch(plant) as watch, (folder / "faults.jsonl").open("a") as faults:
            campaign = Campaign(plant, watch, faults)
            campaign.report(f"seed {options.seed}, folder {folder}")
            if not campaign.wait_until_healthy(_LONGEST_START_S):
                return 2
            campaign.report("the plant runs")
            with suppress(KeyboardInterrupt):
                _strike(campaign, options)
            _finish(campaign, plant)
        end = {"last_fault_ended_at": campaign.last_ended_at, "stopped_at": time.time(), "topics_dumped": True}
        dump_topics(plant.broker_settings, folder, plant.injected)
        (folder / "end.json").write_text(json.dumps(end))
        campaign.report("the plant stops")
    for kind, number in sorted(campaign.counts.items()):
        print(f"{number:6}  {kind}")
    print(f"{campaign.counts.total():6}  faults in all", flush=True)
    return subprocess.run([sys.executable, "-m", "tests.campaign_judge", str(folder)], check=False).returncode


def _strike(campaign: Campaign, options: argparse.Namespace) -> None:
    began_s = time.monotonic()
    if options.none:
        time.sleep(options.minutes * 60)
        return
    for step in _choose_steps(options, began_s):
        campaign.run_step(step)
        recovery_s = time.monotonic()
        campaign.wait_until_healthy()
        campaign.report(f"healthy {time.monotonic() - recovery_s - _STEADY_S:.1f} s after the end")


def _finish(campaign: Campaign, plant: Plant) -> None:
    """Lets the plant run on after the last fault, stops the castings, and waits until all must be judged."""
    ended_at = campaign.last_ended_at or time.time() - _CASTINGS_AFTER_S
    with suppress(KeyboardInterrupt):
        time.sleep(max(0.0, ended_at + _CASTINGS_AFTER_S - time.time()))
    campaign.report("no more castings")
    plant.stop_world()
    # Ctrl-C ends this wait, too. The judge then finds pictures that are not judged yet.
    with suppress(KeyboardInterrupt):
        time.sleep(max(10.0, ended_at + _JUDGED_AFTER_S - time.time()))


def _write_plan(plant: Plant, options: argparse.Namespace) -> None:
    limits = {fault.KIND: dict(zip(("seconds", "after"), fault.LIMIT, strict=True)) for fault in FAULTS.values() if fault.LIMIT}
    plan = {"seed": options.seed, "minutes": options.minutes, "lines": list(GATED_LINES), "machines": [*plant.machines, "broker"]}
    plan |= {"prefix": plant.broker_settings.topics.prefix, "bootstrap": plant.bootstrap, "runtime": "openvino"}
    plan |= {"version": version("castline"), "safe": "divert", "on_review": "divert", "silence_limits": limits}
    (plant.folder / "plan.json").write_text(json.dumps(plan))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", description="Strike a running plant with faults, and judge what it did."
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--minutes", type=float, default=10.0, help="time in which faults begin")
    parser.add_argument("--faults", type=int, help="largest number of faults")
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), metavar="KIND", help=f"only these kinds: {', '.join(sorted(FAULTS))}")
    parser.add_argument("--none", action="store_true", help="no faults, to see how the memory of the roles develops")
    parser.add_argument("--rate", type=float, default=_RATE_PER_S, help="castings a second on both lines together")
    parser.add_argument("--folder", type=Path, help="new folder for everything that the run writes; the default is a temporary one")
    parser.add_argument("--plan", action="store_true", help="only print the first faults of the seed")
    options = parser.parse_args(arguments)
    if options.plan:
        for are_alone in (True, False):
            for step in islice(plan_steps(options.seed, are_alone, options.only or tuple(FAULTS)), len(FAULTS)):
                print("; ".join(f"{each.fault.KIND} at {each.fault.target}, {each.lasting_s:.1f} s" for each in step.faults))
        return 0
    if not is_inside():
        return run_inside([sys.executable, "-m", "tests.campaign", *arguments, "--seed", str(options.seed)])
    if options.folder:
        options.folder.mkdir(parents=True)
        return run(options, options.folder.resolve())
    with tempfile.TemporaryDirectory(prefix="castline-campaign-") as name:
        return run(options, Path(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
