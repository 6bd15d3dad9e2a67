"""TensorFlow and Keras, imported without the optional libraries that Keras looks for and that Castline never uses through Keras.

scikit-learn (with SciPy's statistics), Matplotlib and OpenCV take a third of the import time and 100 MB in each process that
computes networks. Modules that need one of them import it themselves.
"""

from __future__ import annotations

import gc
import sys

_UNUSED_LIBRARIES = [name for name in ("sklearn", "matplotlib", "cv2") if name not in sys.modules]
# None in sys.modules makes an import fail as if the library were not installed.
sys.modules.update(dict.fromkeys(_UNUSED_LIBRARIES))  # type: ignore[arg-type]
# Nearly all objects of the import stay alive. Searching them for garbage took a seventh of the import time.
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
