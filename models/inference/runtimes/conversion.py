"""Converts a version's networks into one flatbuffer file (TensorFlow Lite), which LiteRT and OpenVINO read.

The file is made when a runtime first needs it, and kept in the user's cache folder. TensorFlow is imported only for the conversion.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version as get_release
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.inference.golden_set import load_golden_pixels
from models.registry import Version
from models.registry.manifest import SegmentationMember
from streams.atomic_file import write_atomically
from streams.errors import ModelError
from streams.user_cache import has_valid_checksum, user_cache_folder, write_checksum

# Number formats of a network:
#   float32: 32 bits
#   weights8: 8 bits, and the range of values is measured for each batch
#   static8: 8 bits, and the range of values was measured on half of the golden set
Precision = Literal["float32", "weights8", "static8"]

# The stride of AlexNet's first convolution, in pixels.
STRIDE = 4

# Increase this number when a change of this code changes the converted files. The old files in the cache are then no longer used.
REVISION = 2

log = logging.getLogger(__name__)


def flatbuffer_folder() -> Path:
    """Returns the folder of the converted networks in the user's cache."""
    return user_cache_folder() / "networks"


def get_flatbuffer(version: Version, precision: Precision) -> Path:
    """Returns the path of the version's flatbuffer. Makes the file if it is missing or damaged.

    Input shape: (n, side, side), float32, grey level 0..255. Output shape: (n, voters, classes), probabilities.
    Raises ModelError if the file cannot be made.
    """
    return _get_file(version, precision, lambda: _convert(version, precision))


def get_head_flatbuffer(version: Version, member: SegmentationMember) -> Path:
    """Returns the path of the version's segmentation head as a flatbuffer in float32. Makes the file if it is missing or damaged.

    Input shape: (n, side, side), float32, grey level 0..255. Output shape: (n, side, side, 1 + kinds), probabilities.
    Raises ModelError if the file cannot be made.
    """
    return _get_file(version, "segmentation", lambda: _convert_head(version, member))


def _get_file(version: Version, name: str, convert: Callable[[], bytes]) -> Path:
    path = flatbuffer_folder() / _build_key(version) / f"{name}.tflite"
    if has_valid_checksum(path):
        return path
    try:
        log.info("Networks of version %s are being converted (%s). This happens only once on this machine.", version.name, name)
        content = convert()
        write_atomically(path, content)
        write_checksum(path, hashlib.sha256(content).hexdigest())
    except OSError as error:
        message = f"Cannot write the converted networks of {version.name} to {path}: {error}. Set XDG_CACHE_HOME to another folder."
        raise ModelError(message) from error
    return path


def fold_first_convolution(network: Any) -> Callable[[Any], Any]:
    """Returns a function that computes the same as `network`, but faster if `network` is an AlexNet.

    Each block of 4 x 4 pixels becomes one point with 16 channels. The first convolution then moves by 1 point instead of 4 pixels.
    """
    from models.networks.framework import keras, tf

    first = next((layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)), None)
    if first is None or first.strides != (STRIDE, STRIDE) or first.padding != "same" or first.input.shape[-1] != 1:
        return lambda grey: network(grey, training=False)
    # The models get fixed names. Otherwise Keras numbers them, and the same weights give different files.
    before = keras.Model(network.input, first.input, name="before")
    after = keras.Model(first.output, network.output, name="after")
    kernel_size, side_px = first.kernel_size[0], first.input.shape[1]
    output_size, kernel_blocks = -(-side_px // STRIDE), -(-kernel_size // STRIDE)
    # The padding "same" of Keras adds zeros around the picture. `leading` is the number of rows that it adds above the picture, and also
    # the number of columns that it adds on the left side.
    leading = max((output_size - 1) * STRIDE + kernel_size - side_px, 0) // 2
    trailing = (output_size + kernel_blocks - 1) * STRIDE - side_px - leading
    with tf.init_scope():
        filters = first.filters
        kernel = np.zeros((kernel_blocks * STRIDE, kernel_blocks * STRIDE, filters), np.float32)
        kernel[:kernel_size, :kernel_size] = first.kernel.numpy()[:, :, 0]
        kernel = kernel.reshape(kernel_blocks, STRIDE, kernel_blocks, STRIDE, filters).transpose(0, 2, 1, 3, 4)
        kernel = kernel.reshape(kernel_blocks, kernel_blocks, STRIDE**2, filters)
        bias = first.bias.numpy()

    def compute(grey: Any) -> Any:
        padded = tf.pad(before(grey), ((0, 0), (leading, trailing), (leading, trailing), (0, 0)))
        maps = tf.nn.conv2d(tf.nn.space_to_depth(padded, STRIDE), tf.constant(kernel), 1, "VALID")
        return after(first.activation(maps + bias), training=False)

    return compute


def _convert(version: Version, precision: Precision) -> bytes:
    from models.networks.factory import load_networks
    from models.networks.framework import tf

    networks = [(network.input_shape[1], fold_first_convolution(network)) for network in load_networks(version)]

    def compute(pixels: Any) -> Any:
        grey = pixels[..., tf.newaxis] / 255.0
        return tf.stack([network(_resample(grey, network_px)) for network_px, network in networks], axis=1)

    return _write_flatbuffer(version, compute, precision)


def _convert_head(version: Version, member: SegmentationMember) -> bytes:
    from models.networks.framework import tf
    from models.networks.segmentation import load_segmentation_network

    side_px, network = version.manifest.preprocessing.side_px, load_segmentation_network(version, member)

    def compute(pixels: Any) -> Any:
        probabilities = network(_resample(pixels[..., tf.newaxis] / 255.0, member.side_px), training=False)
        return tf.image.resize(probabilities, (side_px, side_px)) if side_px != member.side_px else probabilities

    return _write_flatbuffer(version, compute, "float32")


def _write_flatbuffer(version: Version, compute: Callable[[Any], Any], precision: Precision) -> bytes:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from models.networks.framework import tf

    side_px = version.manifest.preprocessing.side_px
    graph = tf.function(compute, autograph=False).get_concrete_function(tf.TensorSpec((None, side_px, side_px), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(graph)], tf.Module())
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "static8":
        converter.representative_dataset = lambda: _representative_pictures(version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The converter warns that it uses default values. They are right here.
        try:
            return bytes(converter.convert())
        except (RuntimeError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            message = f"The networks of {version.folder} cannot be converted to {precision}: {reason}. Choose another runtime."
            raise ModelError(message) from error


def _representative_pictures(version: Version) -> Iterator[list[npt.NDArray[np.float32]]]:
    for picture in load_golden_pixels(version)[::2]:
        yield [picture[np.newaxis].astype(np.float32)]


def _resample(grey: Any, side_px: int) -> Any:
    """Resamples with two convolutions. The result is the same as from `models.networks.preprocessing.resample`.

    TensorFlow Lite cannot compute that function, because it has no antialiased resampling.
    """
    from models.networks.framework import tf

    from_px = grey.shape[1]
    if from_px == side_px:
        return grey
    with tf.init_scope():
        unit = np.eye(from_px, dtype=np.float32)[..., np.newaxis]
        weights = tf.image.resize(unit, (side_px, from_px), "bilinear", antialias=True).numpy()[..., 0]
    # The picture is resampled with a 1 x 1 convolution, because TensorFlow Lite can compute convolutions with 8-bit numbers. Such a
    # convolution mixes only channels. So the columns of the picture are first turned into channels.
    kernel = tf.constant(weights.T[np.newaxis, np.newaxis])

    def resample_and_transpose(some: Any) -> Any:
        rows = some.shape[1]
        narrow = tf.nn.conv2d(tf.reshape(some, (-1, rows, 1, from_px)), kernel, 1, "VALID")
        return tf.reshape(tf.transpose(narrow, (0, 3, 1, 2)), (-1, side_px, rows, 1))

    return resample_and_transpose(resample_and_transpose(grey))


def _build_key(version: Version) -> str:
    # The key names the folder of the converted networks. The two stages of a cascade belong to the same version, but have different
    # networks. They need different folders, so the key depends on the networks.
    text = f"{REVISION} {get_release('tensorflow')} {version.manifest.model_dump_json(by_alias=True)}"
    return f"{version.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
