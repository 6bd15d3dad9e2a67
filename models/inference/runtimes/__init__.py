"""The runtimes that compute a version's networks: TensorFlow, OpenVINO and LiteRT behind one interface."""

from __future__ import annotations

import sys

# When OpenVINO is imported, it forks a process that sends a usage report to its makers. If another thread holds a lock at this moment, the
# forked process can wait for ever, and the inspector then never ends. The next line hides the module openvino_telemetry, so that OpenVINO
# sends no report.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
