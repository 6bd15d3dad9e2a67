"""Imports TensorFlow and Keras without optional libraries: scikit-learn, Matplotlib and OpenCV.

These libraries would take a third of the import time, and 100 MB of memory in each process.
"""

from __future__ import annotations

import gc
import sys

_UNUSED_LIBRARIES = [name for name in ("sklearn", "matplotlib", "cv2") if name not in sys.modules]
# With None in sys.modules, the import of a library fails as if the library were not installed.
sys.modules.update(dict.fromkeys(_UNUSED_LIBRARIES))  # type: ignore[arg-type]
# The garbage collector is off during the import. Collecting would take a seventh of the import time and free almost nothing.
_IS_COLLECTING = gc.isenabled()
gc.disable()
try:
    import keras
    import tensorflow as tf
finally:
    if _IS_COLLECTING:
        gc.enable()
    for name in _UNUSED_LIBRARIES:
        del sys.modules[name]

__all__ = ["keras", "tf"]
