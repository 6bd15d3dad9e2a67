"""Waits of more than half the range of the 32-bit microsecond counter, in simulated time. The range is 71.6 minutes.

The simulated Mega needs three minutes for such a wait, so `make campaign-noise` runs this check on it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from tests.firmware.protocol_host import ProtocolHost
from tests.firmware.rigs import AvrRig, CoreRig, PythonRig

WAIT_MS = 36 * 60_000


def check_eyes_after_36_minutes(rig: PythonRig | CoreRig | AvrRig) -> None:
    """Checks that COMMIT knows an object that blocked an eye 36 minutes ago, and that a change at the other eye is seen."""
    host = ProtocolHost(rig)
    rig.set_eye(1, True)
    rig.set_eye(2, True)
    host.wait(100)
    rig.jump(WAIT_MS)
    rig.set_eye(2, False)
    rig.wait(100)
    host.greet()
    eyes = host.status("eyes")
    assert (eyes.number("eye1"), eyes.number("eye2")) == (1, 0)
    edges = host.status("edge2")
    assert edges.number("edges") == 1
    assert abs(edges.number("length_ms") - WAIT_MS - 100) <= 20
    # The lane now counts: a casting that comes later is a part.
    rig.set_eye(1, False)
    rig.wait(100)
    host.received.clear()
    rig.set_eye(1, True)
    host.wait(50)
    assert [frame.fields[2] for frame in host.received if frame.name == "PART"] == ["1"]


@pytest.mark.parametrize("make_rig", [PythonRig, pytest.param(CoreRig, marks=pytest.mark.real)])
def test_a_lane_without_settings_sees_its_photo_eyes_after_36_minutes(make_rig: Callable[[], PythonRig | CoreRig]) -> None:
    with closing(make_rig()) as rig:
        check_eyes_after_36_minutes(rig)
