"""The runtimes that compute a version's networks: TensorFlow, OpenVINO and LiteRT behind one interface."""

from __future__ import annotations

import sys

# The import of OpenVINO would report to its makers that it is used, from a forked process. Such a process can wait for ever for a lock that
# another thread held at the fork, and then the inspector does not end either. Without this module, OpenVINO reports nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
