"""The priority of a process that leads a session of its own, as the supervisor starts all processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AUTOGROUP = Path("/proc/self/autogroup")
PROGRAM = """
import os
from pathlib import Path
from deploy.supervisor.priority import lower_priority
lower_priority(12)
lower_priority(5)
print(os.getpriority(os.PRIO_PROCESS, 0), Path("/proc/self/autogroup").read_text())
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel does not divide the processors among sessions")
def test_a_lowered_process_has_a_low_priority_against_other_sessions_too() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, start_new_session=True)
    niceness, group = done.stdout.split(maxsplit=1)
    assert int(niceness) >= 12, "a priority is never raised"
    assert group.rstrip().endswith(f"nice {niceness}")
