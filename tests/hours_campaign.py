"""Runs simulated hours: inspectors on an event loop with virtual time, over a simulated broker that fails as a seed says.

`make campaign-hours ARGS="--seeds N --first S"` runs N seeds, from S on, and prints the faults of each seed. The same seed gives the same
run again, because the campaign also fixes the order of Python's sets.
"""

from __future__ import annotations

# The virtual clock must be imported before Faust.
from tests.simulation.virtual_clock import real_perf_counter  # isort: split

import argparse
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.inspector_hours import SeedResult, run_inspector_hours

_HASH_SEED = "0"


def run_seeds(seeds: Sequence[int], traces: bool) -> int:
    """Runs the seeds, prints what they found, and returns the number of seeds with a fault. Prints each checksum if `traces` is True."""
    began_s, total, failed = real_perf_counter(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            result = run_inspector_hours(seed, Path(folder))
            total += result.counts
            failed += bool(result.faults)
            if result.faults or traces:
                print(describe(result), flush=True)
    print(f"{len(seeds)} seeds, {failed} of them with a fault, in {real_perf_counter() - began_s:.0f} s.")
    print(", ".join(f"{name}: {number}" for name, number in sorted(total.items())))
    return failed


def describe(result: SeedResult) -> str:
    return "\n".join((f"seed {result.seed}, checksum {result.trace}", *(f"    {fault}" for fault in result.faults)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs inspectors in virtual time over a simulated broker that fails as a seed says.")
    parser.add_argument("--seeds", type=int, default=10_000, help="number of seeds (default: 10,000, about half an hour)")
    parser.add_argument("--first", type=int, default=1, help="first seed (default: 1)")
    parser.add_argument("--only", type=int, nargs="+", help="run these seeds instead")
    parser.add_argument("--traces", action="store_true", help="print the checksum of every seed")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != _HASH_SEED:
        command = [sys.executable, "-m", "tests.hours_campaign", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": _HASH_SEED})
    logging.disable(logging.CRITICAL)
    seeds = options.only or range(options.first, options.first + options.seeds)
    return 1 if run_seeds(seeds, options.traces) else 0


if __name__ == "__main__":
    sys.exit(main())
