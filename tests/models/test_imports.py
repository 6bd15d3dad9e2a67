"""The registry and the decoder are used by the station and by every command, so they must not load what takes seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Libraries that take from a tenth of a second to several seconds to import.
SLOW_LIBRARIES = ("tensorflow", "keras", "scipy", "sklearn", "matplotlib")


@pytest.mark.parametrize("modules", ["models.registry, models.registry.version_report", "models.pictures.decoder, models.pictures.display"])
def test_registry_and_pictures_import_no_slow_library(modules: str) -> None:
    program = f"import json, sys, {modules}; print(json.dumps([name for name in {SLOW_LIBRARIES} if name in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ended.stdout) == []


def test_the_inference_modules_import_no_tensorflow_before_a_runtime_is_opened() -> None:
    """A worker with OpenVINO and a flatbuffer never loads TensorFlow."""
    modules = "models.inference.ensemble, models.inference.drift, models.inference.heat_map, models.inference.runtimes.conversion"
    program = f"import sys, {modules}; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["False", "False"]
