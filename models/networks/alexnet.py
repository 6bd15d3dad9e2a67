"""AlexNet for grey castings, the large voter of the ensemble."""

from __future__ import annotations

from typing import Literal

from models.networks.framework import keras

layers = keras.layers

SMALLEST_PX = 64  # below, nothing would be left after the third pooling


def alexnet(
    classes: int,
    side_px: int = 224,
    dense_width: int = 4096,
    dense_layers: int = 2,
    head: Literal["softmax", "logistic"] = "softmax",
    normalisation: Literal["batch", "local-response"] = "batch",
    groups: Literal[1, 2] = 1,
    dropout: float = 0.5,
    maps: float = 1.0,
    dtype: str = "float32",
) -> keras.Model:
    """AlexNet: five convolutions, three overlapping poolings, two normalisations, `dense_layers` fully connected layers and the head.

    Source: Krizhevsky, Sutskever, Hinton, NIPS 25, 2012, section 3 and figure 2. Departs from it:
    - one channel of grey for three of colour;
    - the convolutions fill up with zeros ("same"), so that sides other than 224 fit;
    - `normalisation` "batch" (Ioffe, Szegedy, 2015) in the two places of the local response normalisation: from scratch, on some
      thousand pictures, it learns in a tenth of the steps, and it runs in bfloat16; "local-response" is the paper's;
    - `groups` 1 joins what the paper halves for two graphics cards (convolutions 2, 4 and 5; `groups` 2): TensorFlow learns grouped
      convolutions four times more slowly on a processor;
    - `maps` is the share of the paper's maps that each convolution keeps (in eights): half of them compute in a quarter of the time;
    - the width and the number of the fully connected layers are parameters (the paper: 2 of 4096);
    - `head` "logistic" for two classes: one sigmoid unit, the probability of the second class, written out as two columns;
    - He's initialisation and Adam (in training) for the paper's Gaussian of 0.01 with biases of 1 and momentum.

    Input shape: (batch, side_px, side_px, 1), grey level 0..1.  Output shape: (batch, classes), float32, rows sum to 1.
    Raises ValueError: `side_px` too small, fewer than two classes, a logistic head for more than two.
    """
    if side_px < SMALLEST_PX:
        raise ValueError(f"expected AlexNet's side to be at least {SMALLEST_PX} px, found {side_px}")

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

    def normalised(name: str) -> keras.Layer:
        if normalisation == "batch":
            return layers.BatchNormalization(name=name, dtype=dtype)
        return LocalResponse(name=name, dtype=dtype)

    def pooling(name: str) -> keras.Layer:
        return layers.MaxPooling2D(3, 2, name=name, dtype=dtype)

    stack = [
        layers.Rescaling(2.0, -1.0, name="centred", dtype=dtype),
        convolution("conv1", 96, 11, 4),
        normalised("norm1"),
        pooling("pool1"),
        convolution("conv2", 256, 5, of=groups),
        normalised("norm2"),
        pooling("pool2"),
        convolution("conv3", 384, 3),
        convolution("conv4", 384, 3, of=groups),
        convolution("conv5", 256, 3, of=groups),
        pooling("pool5"),
        layers.Flatten(name="flat", dtype=dtype),
    ]
    for number in range(6, 6 + dense_layers):
        stack.append(layers.Dense(dense_width, "relu", kernel_initializer="he_normal", name=f"fc{number}", dtype=dtype))
        stack.append(layers.Dropout(dropout, name=f"drop{number}", dtype=dtype))
    pixels = keras.Input((side_px, side_px, 1), name="pixels")
    features = pixels
    for layer in stack:
        features = layer(features)
    return keras.Model(pixels, answer(features, classes, head), name="alexnet")


def answer(features: keras.KerasTensor, classes: int, head: str) -> keras.KerasTensor:
    """The last layer: probabilities in float32, shape (batch, classes), whatever the precision before it."""
    if classes < 2:
        raise ValueError(f"expected at least two classes, found {classes}")
    first = keras.initializers.RandomNormal(stddev=0.01)  # undecided at first: a wrong certainty would kill units in the first steps
    if head == "softmax":
        return layers.Dense(classes, "softmax", kernel_initializer=first, name="answer", dtype="float32")(features)
    if head == "logistic" and classes == 2:
        second = layers.Dense(1, "sigmoid", kernel_initializer=first, name="answer", dtype="float32")(features)
        return layers.Concatenate(name="both", dtype="float32")([layers.Rescaling(-1, 1, name="first", dtype="float32")(second), second])
    raise ValueError(f"expected a softmax head, or a logistic one for two classes, found {head!r} for {classes}")


class LocalResponse(keras.layers.Layer):  # type: ignore[misc]  # Keras comes without types
    """Local response normalisation with the paper's constants (section 3.3): k 2, n 5, alpha 1e-4, beta 0.75."""

    def call(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """`values` divided by (2 + 1e-4 * sum of squares over 5 neighbouring channels) ** 0.75; same shape."""
        channels = values.shape[-1]
        squares = keras.ops.pad(keras.ops.square(values), [(0, 0), (0, 0), (0, 0), (2, 2)])
        sums = sum(squares[..., shift : shift + channels] for shift in range(5))
        return values / keras.ops.power(2 + 1e-4 * sums, 0.75)
