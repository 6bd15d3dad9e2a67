"""The boards that the conformance suite runs against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.agents.gate.host import Host
from tests.agents.gate.rig import PythonRig, Rig
from tests.firmware.rigs import AvrRig, CoreRig

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
