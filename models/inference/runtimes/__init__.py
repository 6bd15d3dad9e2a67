"""The runtimes that compute a version's networks: TensorFlow, OpenVINO and LiteRT behind one interface."""

from __future__ import annotations

import sys

# When OpenVINO is imported, a forked process reports to the makers of OpenVINO that it is used. This process can wait for ever for a lock
# that another thread held at the fork, and then the inspector does not end. Without the module openvino_telemetry, OpenVINO reports
# nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
