"""The boards that the conformance suite runs against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.board.rigs import AvrRig, CoreRig
from tests.gate.host import Host
from tests.gate.rig import PythonRig, Rig

# Another board joins by a function that makes its rig.
RIGS: dict[str, Callable[[], Rig]] = {"python": PythonRig, "core": CoreRig, "avr": AvrRig}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A board just reset by power, with an empty EEPROM."""
    made = RIGS[request.param]()
    yield made
    made.close()


@pytest.fixture
def host(rig: Rig) -> Host:
    return Host(rig)
