"""The boards that the conformance suite runs against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.firmware.protocol_host import ProtocolHost
from tests.firmware.rigs import AvrRig, CoreRig, PythonRig, Rig

# Functions that make the rigs of all boards.
RIGS: dict[str, Callable[[], Rig]] = {"python": PythonRig, "core": CoreRig, "avr": AvrRig}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Each board in turn, just reset by power, with an empty EEPROM."""
    made = RIGS[request.param]()
    yield made
    made.close()


@pytest.fixture
def host(rig: Rig) -> ProtocolHost:
    return ProtocolHost(rig)
