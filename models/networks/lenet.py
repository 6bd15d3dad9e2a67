"""LeNet for grey castings, the small voter of the ensemble."""

from __future__ import annotations

from typing import Literal

from models.networks.alexnet import answer
from models.networks.framework import keras

layers = keras.layers

SMALLEST_PX = 16  # below, nothing would be left after the second pooling


def lenet(
    classes: int,
    side_px: int = 64,
    dense_layers: int = 2,
    head: Literal["softmax", "logistic"] = "softmax",
    dropout: float = 0.25,
    width: int = 1,
    dtype: str = "float32",
) -> keras.Model:
    """LeNet-5: two convolutions, two poolings, `dense_layers` fully connected layers (two in the paper: 120 and 84) and the head.

    Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998, figure 2. Departs from it:
    - ReLU for the scaled tanh, max for the trainable average pooling, softmax for the radial basis functions;
    - all maps of the first pooling feed all of the second convolution (the paper's table I leaves some out);
    - the paper's third convolution, whose 5 x 5 window covers its whole input, is what it amounts to: a fully connected layer of 120;
    - any side from 16 px for 32 px: castings need more than digits do. The second pooling leaves 5 x 5 fields as in the paper: its
      window grows with the side. A small hole then counts the same wherever it lies in a field, and the dense layers stay small;
    - `width` multiplies the number of maps (6 and 16); dropout before the head, the paper has none.

    Input shape: (batch, side_px, side_px, 1), grey level 0..1.  Output shape: (batch, classes), float32, rows sum to 1.
    Raises ValueError: `side_px` too small, fewer than two classes, a logistic head for more than two.
    """
    if side_px < SMALLEST_PX:
        raise ValueError(f"expected LeNet's side to be at least {SMALLEST_PX} px, found {side_px}")
    fields = min(5, (side_px - 4) // 2 - 4)
    window = ((side_px - 4) // 2 - 4) // fields
    stack = [
        layers.Rescaling(2.0, -1.0, name="centred", dtype=dtype),
        layers.Conv2D(6 * width, 5, activation="relu", kernel_initializer="he_normal", name="c1", dtype=dtype),
        layers.MaxPooling2D(2, name="s2", dtype=dtype),
        layers.Conv2D(16 * width, 5, activation="relu", kernel_initializer="he_normal", name="c3", dtype=dtype),
        layers.MaxPooling2D(window, name="s4", dtype=dtype),
        layers.Flatten(name="flat", dtype=dtype),
    ]
    for number in range(dense_layers):
        units = (120, 84)[min(number, 1)]
        stack.append(layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"f{5 + number}", dtype=dtype))
    stack.append(layers.Dropout(dropout, name="drop", dtype=dtype))
    pixels = keras.Input((side_px, side_px, 1), name="pixels")
    features = pixels
    for layer in stack:
        features = layer(features)
    return keras.Model(pixels, answer(features, classes, head), name="lenet")
