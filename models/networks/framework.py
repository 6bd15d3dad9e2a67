"""TensorFlow and Keras, imported without the libraries that Keras looks for on its own and nothing here uses through it.

scikit-learn (with SciPy's statistics), Matplotlib and OpenCV are a third of the import's time and 100 MB of each process that judges.
Whoever needs one of them imports it himself, before or after.
"""

from __future__ import annotations

import sys

from streams.garbage_collector import garbage_collector_paused

_UNUSED = [name for name in ("sklearn", "matplotlib", "cv2") if name not in sys.modules]
# None in this place makes an import fail as if the library were not installed.
sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]
try:
    with garbage_collector_paused():
        import keras
        import tensorflow as tf
finally:
    for name in _UNUSED:
        del sys.modules[name]

__all__ = ["keras", "tf"]
