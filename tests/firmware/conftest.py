"""The boards that the conformance suite runs against."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.firmware.protocol_host import ProtocolHost
from tests.firmware.rigs import AvrRig, CoreRig, PythonRig, Rig, StockMegaRig

# Functions that make the rigs of all boards.
RIGS: dict[str, Callable[[], Rig]] = {"python": PythonRig, "core": CoreRig, "avr": AvrRig, "stock-mega": StockMegaRig}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a conformance test against all boards. The Mega with its boot loader is left out, unless the test is marked `stock_mega`.

    With the environment variable STOCK_MEGA=all, every conformance test also runs against a Mega with its boot loader.
    """
    if "rig" in metafunc.fixturenames:
        takes_stock_mega = os.environ.get("STOCK_MEGA") == "all" or metafunc.definition.get_closest_marker("stock_mega") is not None
        metafunc.parametrize("rig", [name for name in RIGS if name != "stock-mega" or takes_stock_mega], indirect=True)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Each board in turn, just reset by power, with an empty EEPROM."""
    made = RIGS[request.param]()
    yield made
    made.close()


@pytest.fixture
def host(rig: Rig) -> ProtocolHost:
    return ProtocolHost(rig)
