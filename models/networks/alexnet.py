"""AlexNet for grey castings, the large member of the ensemble."""

from __future__ import annotations

from typing import Literal

from models.networks.framework import keras
from models.networks.head import Head, add_head

layers = keras.layers

# With a smaller input nothing is left after AlexNet's third pooling.
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

    Source: Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 25, 2012, section 3
    and figure 2. Layers: conv1 to conv5, norm1, norm2, pool1, pool2, pool5, the fully connected fc6, fc7 and so on, and `output`
    (fc8 in the paper). Differences:

    - The input has one grey channel instead of three colours.
    - The convolutions are padded with zeros ("same"), so that sides other than 224 px fit.
    - `normalisation` is "batch" (Ioffe, Szegedy, ICML 2015) in the two places of the paper's local response normalisation, because
      on some thousand pictures it needs a tenth of the training steps and also works in bfloat16. "local-response" is the paper's.
    - `groups` 1 joins what the paper splits between two graphics cards (conv2, conv4, conv5; `groups` 2), because TensorFlow trains
      grouped convolutions four times more slowly on a processor.
    - `maps` is the share of the paper's feature maps in each convolution, rounded to eights. Half of them take a quarter of the time.
    - `dense_width` and `dense_layers` are parameters of the fully connected layers; the paper has 2 layers of 4096 units.
    - `head` "logistic" is one sigmoid unit for two classes, see `add_head`.
    - Weights are initialised after He, and training uses Adam, instead of a Gaussian of 0.01, biases of 1 and momentum.

    Input shape: (batch, side_px, side_px, 1), float32, grey level 0..1. Output shape: (batch, classes), float32, rows sum to 1.
    Raises ValueError if `side_px` < 64, because nothing is left after the third pooling, or if the head does not fit `classes`.
    """
    if side_px < MIN_SIDE_PX:
        raise ValueError(f"expected AlexNet's side to be at least {MIN_SIDE_PX} px, found {side_px}")

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
    """Local response normalisation of the AlexNet paper, section 3.3, with its constants k 2, n 5, alpha 1e-4, beta 0.75."""

    def call(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """Returns `values` divided by (2 + 1e-4 * sum of squares over 5 adjacent channels) ** 0.75; same shape."""
        channels = values.shape[-1]
        squares = keras.ops.pad(keras.ops.square(values), [(0, 0), (0, 0), (0, 0), (2, 2)])
        sums = sum(squares[..., shift : shift + channels] for shift in range(5))
        return values / keras.ops.power(2 + 1e-4 * sums, 0.75)
