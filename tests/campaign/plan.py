"""The plan of a campaign: which faults strike, in which order. The same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.campaign.faults import FAULTS, Fault


@dataclass(frozen=True)
class PlannedFault:
    """A fault that begins `delay_s` seconds after its step, and that lasts `lasting_s` seconds."""

    fault: Fault
    delay_s: float
    lasting_s: float


@dataclass(frozen=True)
class Step:
    """One fault, or two at once. After the step, the plant recovers."""

    faults: tuple[PlannedFault, ...]

    @property
    def is_alone(self) -> bool:
        return len(self.faults) == 1


def plan_steps(seed: int, are_alone: bool, kinds: Sequence[str] = tuple(FAULTS)) -> Iterator[Step]:
    """Yields endlessly steps with one fault each, or with two faults each if `are_alone` is False.

    The kinds take turns in a random order, so that each of them comes before any of them comes again.
    """
    chance = random.Random(f"{seed}:{are_alone}")
    drawn = _draw_kinds(kinds, chance)
    while True:
        first = next(drawn)
        faults = [_draw(first, 0.0, chance)]
        if not are_alone:
            second = next(kind for kind in drawn if kind != first or len(kinds) == 1)
            faults.append(_draw(second, chance.uniform(0.0, 3.0), chance))
        yield Step(tuple(faults))


def _draw_kinds(kinds: Sequence[str], chance: random.Random) -> Iterator[str]:
    while True:
        yield from chance.sample(kinds, len(kinds))


def _draw(kind: str, delay_s: float, chance: random.Random) -> PlannedFault:
    fault = FAULTS[kind]
    target = chance.choice(fault.TARGETS)
    return PlannedFault(fault(target, chance.randrange(2**32)), round(delay_s, 1), round(chance.uniform(*fault.LASTING_S), 1))
