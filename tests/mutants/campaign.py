"""Makes one wrong change of the source code after another, called a mutant, and checks that a test fails for each change.

With `--jobs N`, N copies of the source code are changed and tested at the same time.

`make campaign-mutants` prints each mutant with the test that found it. The exit status is 1 if a mutant without an explanation survived,
or if a mutant could not be tried, because it does not fit the source code or its tests fail without it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.mutants.delivery_mutants import DELIVERY_MUTANTS
from tests.mutants.gate_mutants import GATE_MUTANTS
from tests.mutants.mutant import MisfitError, Mutant
from tests.mutants.security_mutants import SECURITY_MUTANTS

ROOT = Path(__file__).parents[2]
# The group "gate" changes the firmware, the gate link and the decisions of the sorter. The group "delivery" changes how the roles deliver
# records. The group "security" removes protections against intruders.
MUTANTS_BY_GROUP = {"gate": GATE_MUTANTS, "delivery": DELIVERY_MUTANTS, "security": SECURITY_MUTANTS}
# The exit statuses of pytest if all tests passed, and if a test failed. Any other status means that the tests could not run.
_PASSED, _FAILED = 0, 1
# A mutant can make a program hang.
_MAX_RUN_S = 600


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Yields a copy of the tracked files of this tree."""
    with tempfile.TemporaryDirectory(prefix="castline-mutants-") as name:
        folder = Path(name)
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for file in filter(None, tracked.split("\0")):
            if (ROOT / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, folder / file)
        yield folder


def run_tests(folder: Path, tests: str) -> tuple[bool, str]:
    """Runs tests in `folder` until one fails. Returns whether all passed, and the name of the failed test or the reason."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider --durations=0 --no-header {tests}"
    try:
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=_MAX_RUN_S)
    except subprocess.TimeoutExpired:
        return False, "a test hung"
    if done.returncode not in (_PASSED, _FAILED):
        raise MisfitError(f"pytest ended with status {done.returncode} for {tests}: {done.stdout[-300:]} {done.stderr[-300:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - |$)", done.stdout, re.MULTILINE)
    return done.returncode == _PASSED, failed.group(1) if failed else done.stdout[-300:]


class Campaign:
    """Runs mutants in one copy of the source code, and counts the results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._are_passing: dict[str, bool] = {}
        self.found = self.unexplained = self.misfits = 0

    def run(self, mutant: Mutant) -> None:
        """Prints the test that finds `mutant`, or that the mutant survived or does not fit."""
        try:
            self._check_unchanged(mutant.tests)
            with mutant.applied(self._folder):
                passed, test = run_tests(self._folder, mutant.tests)
        except MisfitError as error:
            self.misfits += 1
            print(f"{mutant.name}: {error}\n", end="", flush=True)
            return
        self.found += not passed
        self.unexplained += passed and not mutant.survives_because
        print(f"{mutant.name:60} {f'SURVIVED. {mutant.survives_because}' if passed else f'found by {test}'}\n", end="", flush=True)

    def _check_unchanged(self, tests: str) -> None:
        """Raises MisfitError if `tests` fail without a mutant. Such tests would seem to find every mutant."""
        if tests not in self._are_passing:
            self._are_passing[tests], _ = run_tests(self._folder, tests)
        if not self._are_passing[tests]:
            raise MisfitError(f"the tests fail without the mutant: {tests}")


def run_mutants(mutants: Sequence[Mutant], jobs: int) -> list[Campaign]:
    """Runs `mutants` in `jobs` copies of the source code at the same time, and returns one campaign for each copy.

    The tests of a mutant must first pass on the unchanged code. Mutants with the same tests run in the same copy, so that this check is
    made only once.
    """
    mutants_by_tests: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        mutants_by_tests[mutant.tests].append(mutant)
    # All jobs take their groups of mutants from this iterator.
    waiting = iter(list(mutants_by_tests.values()))
    is_stopped = threading.Event()

    def run_job() -> Campaign:
        try:
            with copied_tree() as folder:
                campaign = Campaign(folder)
                for group in waiting:
                    for mutant in group:
                        if not is_stopped.is_set():
                            campaign.run(mutant)
                return campaign
        except BaseException:
            is_stopped.set()
            raise

    # After Ctrl-C or an error, no job begins another mutant.
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run_job) for _ in range(jobs)]
        try:
            return [job.result() for job in running]
        finally:
            is_stopped.set()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", choices=("all", *MUTANTS_BY_GROUP), default="all", help="run the mutants of this group")
    parser.add_argument("--only", default="", help="run the mutants whose names contain this text")
    parser.add_argument(
        "--jobs",
        type=int,
        choices=range(1, 65),
        metavar="N",
        default=1,
        help="test N mutants at the same time, each in its own copy of the code; if N is too large for the machine, a test can fail "
        "because it is too slow, and its mutant then counts as found",
    )
    options = parser.parse_args()
    groups = MUTANTS_BY_GROUP if options.group == "all" else [options.group]
    chosen = [mutant for group in groups for mutant in MUTANTS_BY_GROUP[group] if options.only in mutant.name]
    campaigns = run_mutants(chosen, options.jobs)
    found = sum(campaign.found for campaign in campaigns)
    unexplained = sum(campaign.unexplained for campaign in campaigns)
    misfits = sum(campaign.misfits for campaign in campaigns)
    print(f"{found} of {len(chosen)} mutants found, {unexplained} survived without an explanation, {misfits} could not be tried")
    return int(bool(unexplained or misfits))


if __name__ == "__main__":
    sys.exit(main())
