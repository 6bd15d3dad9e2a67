"""A version's networks as one flatbuffer that LiteRT computes and OpenVINO reads, made on this machine from the Keras weights.

Made when it is first asked for and kept in a folder outside the version, under the checksum of the version's manifest: a version
carries arrays only, never a graph to be executed. What is kept is arrays and operations too, with a checksum beside it; a file that
does not fit its checksum is made again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.inference.golden_set import golden_pixels
from models.registry.versions import MANIFEST, Version
from streams.errors import ModelError

Form = Literal["float32", "weights8", "static8"]
FOLD = 4
REVISION = 2  # raised whenever other bytes are to come out of the same weights

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where conversions are kept: `castline/networks` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "castline" / "networks"


def converted(version: Version, form: Form) -> Path:
    """The flatbuffer of `version`: grey 0..255 (n, side, side), float32 -> probabilities (n, voters, classes), any n.

    `weights8` has weights of 8 bits and computes activations in 8 bits of a range found for each batch; `static8` has ranges fixed
    beforehand, from every second picture of the golden set, so that the others test it. Raises ModelError when it cannot be made.
    """
    folder = cache_folder() / _key(version)
    path = folder / f"{form}.tflite"
    if _whole(path):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.info("converting %s to %s, once on this machine", version.name, form)
        content = convert(version, form)
        _write(path, content)
        _write(_checksum_of(path), hashlib.sha256(content).hexdigest().encode())
    except OSError as error:
        raise ModelError(f"{path}: expected to keep the converted networks of {version.name} there: {error}") from error
    return path


def convert(version: Version, form: Form) -> bytes:
    """The flatbuffer's bytes."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from models.networks.building import load_networks
    from models.networks.framework import tf

    side_px = version.manifest.preprocessing.side_px
    computed = [(network.input_shape[1], folded(network)) for network in load_networks(version)]

    def answers(pixels: Any) -> Any:
        grey = pixels[..., tf.newaxis] / 255.0
        return tf.stack([compute(_resampled(grey, side)) for side, compute in computed], axis=1)

    graph = tf.function(answers, autograph=False).get_concrete_function(tf.TensorSpec((None, side_px, side_px), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(graph)], tf.Module())
    if form != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "static8":
        converter.representative_dataset = lambda: _examples(version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns of defaults that are wanted here
        try:
            return bytes(converter.convert())
        except (RuntimeError, ValueError, tf.errors.OpError) as error:
            raise ModelError(f"{version.folder}: cannot be converted to {form}: {str(error).splitlines()[0]}") from error


def folded(network: Any) -> Callable[[Any], Any]:
    """`network` as it is computed quickest, with the same numbers: a first convolution with strides of 4 over one channel of grey, as
    AlexNet has it, is one without strides over 16 channels, which the libraries' kernels are made for."""
    from models.networks.framework import keras, tf

    first = next((layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)), None)
    if first is None or first.strides != (FOLD, FOLD) or first.padding != "same" or first.input.shape[-1] != 1:
        return lambda grey: network(grey, training=False)
    before = keras.Model(network.input, first.input, name="before")  # named: the same weights are to give the same bytes
    after = keras.Model(first.output, network.output, name="after")
    size, side = first.kernel_size[0], first.input.shape[1]
    cells, across = -(-side // FOLD), -(-size // FOLD)  # of the answer, and of the kernel
    leading = max((cells - 1) * FOLD + size - side, 0) // 2  # zeros that "same" puts before the picture
    trailing = (cells + across - 1) * FOLD - side - leading
    with tf.init_scope():
        filters = first.filters
        kernel = np.zeros((across * FOLD, across * FOLD, filters), np.float32)
        kernel[:size, :size] = first.kernel.numpy()[:, :, 0]
        kernel = kernel.reshape(across, FOLD, across, FOLD, filters).transpose(0, 2, 1, 3, 4).reshape(across, across, FOLD**2, filters)
        bias = first.bias.numpy()

    def compute(grey: Any) -> Any:
        padded = tf.pad(before(grey), ((0, 0), (leading, trailing), (leading, trailing), (0, 0)))
        maps = tf.nn.conv2d(tf.nn.space_to_depth(padded, FOLD), tf.constant(kernel), 1, "VALID")
        return after(first.activation(maps + bias), training=False)

    return compute


def _examples(version: Version) -> Iterator[list[npt.NDArray[np.float32]]]:
    for picture in golden_pixels(version)[::2]:
        yield [picture[np.newaxis].astype(np.float32)]


def _resampled(grey: Any, to_px: int) -> Any:
    """Resamples as `runtimes.tensorflow.resampled` does, by two convolutions, because a flatbuffer has no antialiased resampling."""
    from models.networks.framework import tf

    from_px = grey.shape[1]
    if from_px == to_px:
        return grey
    with tf.init_scope():
        unit = np.eye(from_px, dtype=np.float32)[..., np.newaxis]
        weights = tf.image.resize(unit, (to_px, from_px), "bilinear", antialias=True).numpy()[..., 0]
    kernel = tf.constant(weights.T[np.newaxis, np.newaxis])  # columns as channels: one more 1 x 1 convolution, quantised like all

    def across(some: Any) -> Any:
        """The columns resampled, and rows and columns exchanged."""
        rows = some.shape[1]
        narrow = tf.nn.conv2d(tf.reshape(some, (-1, rows, 1, from_px)), kernel, 1, "VALID")
        return tf.reshape(tf.transpose(narrow, (0, 3, 1, 2)), (-1, to_px, rows, 1))

    return across(across(grey))


def _key(version: Version) -> str:
    from importlib.metadata import version as release

    told = hashlib.sha256(version.file(MANIFEST).read_bytes())  # names the checksums of all weights
    voters = " ".join(voter.name for voter in version.manifest.voters)  # a cascade's stages are parts of a version
    told.update(f"{REVISION} {release('tensorflow')} {voters}".encode())
    return f"{version.name}-{told.hexdigest()[:24]}"


def _checksum_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == _checksum_of(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return False


def _write(path: Path, content: bytes) -> None:
    """There completely or not at all, also when two workers convert at once."""
    descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(staged).replace(path)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise
