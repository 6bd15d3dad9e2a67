"""Runs simulated hours: roles on an event loop with virtual time, over a simulated broker that fails as a seed says.

`make campaign-hours ARGS="--seeds N --first S"` runs N seeds, from S on, and prints the faults of each seed. `--of` chooses one of the two
simulations: only inspectors, which are cheap, or the whole way of a casting. The same seed gives the same run again, because the campaign
also fixes the order of Python's sets.
"""

from __future__ import annotations

# The virtual clock must be imported before Faust.
from tests.simulation.virtual_clock import real_perf_counter  # isort: split

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.simulation.inspector_hours import SeedResult, run_inspector_hours
from tests.simulation.plant_hours import run_plant_hours

_HASH_SEED = "0"
_SIMULATIONS: dict[str, Callable[[int, Path], SeedResult]] = {"inspectors": run_inspector_hours, "plant": run_plant_hours}
_FORK = multiprocessing.get_context("fork")
# A file system in memory, because the queues of gateway and sorter wait for the disk at each commit.
_MEMORY = Path("/dev/shm")


def run_seeds(name: str, seeds: Sequence[int], traces: bool) -> int:
    """Runs the seeds, prints what they found, and returns the number of seeds with a fault. Prints each checksum if `traces` is True."""
    began_s, total, failed, count = real_perf_counter(), Counter[str](), 0, 0
    for seed in _until_interrupted(seeds):
        count += 1
        result = _run_apart(_SIMULATIONS[name], seed)
        total += result.counts
        failed += bool(result.faults)
        if result.faults or traces:
            print(describe(name, result), flush=True)
    print(f"{name}: {count} seeds, {failed} of them with a fault, in {real_perf_counter() - began_s:.0f} s.")
    print(", ".join(f"{name}: {number}" for name, number in sorted(total.items())))
    return failed


def _run_apart(simulation: Callable[[int, Path], SeedResult], seed: int) -> SeedResult:
    """Runs a seed in a process of its own, because Python cannot free the greenlets that still wait when the seed ends."""
    receiver, sender = _FORK.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        child = _FORK.Process(target=lambda: sender.send(simulation(seed, Path(folder))))
        child.start()
        sender.close()
        result: SeedResult = receiver.recv()
        child.join()
    return result


def _until_interrupted(seeds: Sequence[int]) -> Iterator[int]:
    """Yields the seeds until SIGTERM or Ctrl-C, after which the campaign still prints what it has found."""
    signals = (signal.SIGTERM, signal.SIGINT)
    is_interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal is_interrupted
        is_interrupted = True

    handlers = [signal.signal(signum, interrupt) for signum in signals]
    for seed in seeds:
        if is_interrupted:
            break
        yield seed
    for signum, handler in zip(signals, handlers, strict=True):
        signal.signal(signum, handler)


def describe(name: str, result: SeedResult) -> str:
    return "\n".join((f"{name}: seed {result.seed}, checksum {result.trace}", *(f"    {fault}" for fault in result.faults)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs roles in virtual time over a simulated broker that fails as a seed says.")
    parser.add_argument("--of", choices=_SIMULATIONS, nargs="+", default=list(_SIMULATIONS), help="simulations to run (default: all)")
    parser.add_argument("--seeds", type=int, default=10_000, help="number of seeds (default: 10,000, about two hours)")
    parser.add_argument("--first", type=int, default=1, help="first seed (default: 1)")
    parser.add_argument("--only", type=int, nargs="+", help="run these seeds instead")
    parser.add_argument("--traces", action="store_true", help="print the checksum of every seed")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != _HASH_SEED:
        command = [sys.executable, "-m", "tests.hours_campaign", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": _HASH_SEED})
    logging.disable(logging.CRITICAL)
    seeds = options.only or range(options.first, options.first + options.seeds)
    return 1 if sum([run_seeds(name, seeds, options.traces) for name in options.of]) else 0


if __name__ == "__main__":
    sys.exit(main())
