"""AlexNet for grey castings, the large member of the ensemble."""

from __future__ import annotations

from typing import Literal

from models.networks.framework import keras
from models.networks.head import Head, add_head

layers = keras.layers

# The smallest side of the input, in pixels. With a smaller side, nothing would be left after AlexNet's third pooling.
MIN_SIDE_PX = 64


def alexnet(
    classes: int,
    side_px: int = 224,
    dense_width: int = 4096,
    dense_layers: int = 2,
    head: Head = "softmax",
    normalisation: Literal["batch", "local-response"] = "batch",
    groups: Literal[1, 2] = 1,
    dropout: float = 0.5,
    maps: float = 1.0,
    dtype: str = "float32",
) -> keras.Model:
    """Builds AlexNet for grey castings, the large member of the ensemble.

    Source: Krizhevsky, Sutskever, Hinton, NIPS 25, 2012. Differences:

    - Batch normalisation is the default. The paper has local response normalisation.
    - One group of filters is the default. The paper has two groups, which are slow in TensorFlow.
    - `maps` multiplies the number of feature maps of the paper.

    Input shape: (batch, side_px, side_px, 1), float32, grey level 0..1. Output shape: (batch, classes), rows sum to 1.
    Raises ValueError if `side_px` < 64, or if `head` does not fit `classes`.
    """
    if side_px < MIN_SIDE_PX:
        raise ValueError(f"expected the side of AlexNet's input to be at least {MIN_SIDE_PX} px, found {side_px}")

    def convolution(name: str, filters: int, kernel: int, stride: int = 1, of: int = 1) -> keras.Layer:
        return layers.Conv2D(
            max(8, 8 * round(maps * filters / 8)),
            kernel,
            stride,
            "same",
            groups=of,
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
            dtype=dtype,
        )

    def normalise(name: str) -> keras.Layer:
        if normalisation == "batch":
            return layers.BatchNormalization(name=name, dtype=dtype)
        return LocalResponse(name=name, dtype=dtype)

    def pooling(name: str) -> keras.Layer:
        return layers.MaxPooling2D(3, 2, name=name, dtype=dtype)

    stack = [
        layers.Rescaling(2.0, -1.0, name="centre", dtype=dtype),
        convolution("conv1", 96, 11, 4),
        normalise("norm1"),
        pooling("pool1"),
        convolution("conv2", 256, 5, of=groups),
        normalise("norm2"),
        pooling("pool2"),
        convolution("conv3", 384, 3),
        convolution("conv4", 384, 3, of=groups),
        convolution("conv5", 256, 3, of=groups),
        pooling("pool5"),
        layers.Flatten(name="flatten", dtype=dtype),
    ]
    for number in range(6, 6 + dense_layers):
        stack.append(layers.Dense(dense_width, "relu", kernel_initializer="he_normal", name=f"fc{number}", dtype=dtype))
        stack.append(layers.Dropout(dropout, name=f"drop{number}", dtype=dtype))
    pixels = keras.Input((side_px, side_px, 1), name="pixels")
    features = pixels
    for layer in stack:
        features = layer(features)
    return keras.Model(pixels, add_head(features, classes, head), name="alexnet")


class LocalResponse(keras.layers.Layer):  # type: ignore[misc]  # Keras comes without types
    """Local response normalisation, as in section 3.3 of the AlexNet paper: k = 2, n = 5, alpha = 1e-4, beta = 0.75."""

    def call(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """Returns `values` / (2 + 1e-4 * s) ** 0.75, same shape, where s is the sum of the squares over 5 adjacent channels."""
        channels = values.shape[-1]
        squares = keras.ops.pad(keras.ops.square(values), [(0, 0), (0, 0), (0, 0), (2, 2)])
        sums = sum(squares[..., shift : shift + channels] for shift in range(5))
        return values / keras.ops.power(2 + 1e-4 * sums, 0.75)
