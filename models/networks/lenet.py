"""LeNet for grey castings, the small member of the ensemble."""

from __future__ import annotations

from models.networks.framework import keras
from models.networks.head import Head, add_head

layers = keras.layers

# With a smaller input nothing is left after LeNet's second pooling.
MIN_SIDE_PX = 16


def lenet(
    classes: int,
    side_px: int = 64,
    dense_layers: int = 2,
    head: Head = "softmax",
    dropout: float = 0.25,
    width: int = 1,
    dtype: str = "float32",
) -> keras.Model:
    """Builds LeNet-5 for grey castings, the small member of the ensemble.

    Source: LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998, figure 2.
    Layers: the convolutions c1 and c3, the poolings s2 and s4, the fully connected f5 and f6 (120 and 84 units), and `output`.
    Differences:

    - ReLU instead of the scaled tanh, max instead of the trainable average pooling, softmax instead of radial basis functions.
    - Every map of s2 feeds every map of c3; table I of the paper leaves some out.
    - The paper's third convolution, c5, has a window as large as its input, so here it is the fully connected f5 of 120 units.
    - `side_px` is any side from 16 px instead of 32 px, because castings need more pixels than digits. The window of s4 grows with
      the side, so that s4 yields 5 x 5 fields as in the paper and the fully connected layers stay small. A small hole then counts
      the same wherever it lies in a field.
    - `width` multiplies the number of maps (6 and 16), and there is dropout before the output.
    - `dense_layers` is the number of fully connected layers; the paper has 2. `head` "logistic" is described in `add_head`.

    Input shape: (batch, side_px, side_px, 1), float32, grey level 0..1. Output shape: (batch, classes), float32, rows sum to 1.
    Raises ValueError if `side_px` < 16, because nothing is left after the second pooling, or if the head does not fit `classes`.
    """
    if side_px < MIN_SIDE_PX:
        raise ValueError(f"expected LeNet's side to be at least {MIN_SIDE_PX} px, found {side_px}")
    fields = min(5, (side_px - 4) // 2 - 4)
    window = ((side_px - 4) // 2 - 4) // fields
    stack = [
        layers.Rescaling(2.0, -1.0, name="centre", dtype=dtype),
        layers.Conv2D(6 * width, 5, activation="relu", kernel_initializer="he_normal", name="c1", dtype=dtype),
        layers.MaxPooling2D(2, name="s2", dtype=dtype),
        layers.Conv2D(16 * width, 5, activation="relu", kernel_initializer="he_normal", name="c3", dtype=dtype),
        layers.MaxPooling2D(window, name="s4", dtype=dtype),
        layers.Flatten(name="flatten", dtype=dtype),
    ]
    for number in range(dense_layers):
        units = (120, 84)[min(number, 1)]
        stack.append(layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"f{5 + number}", dtype=dtype))
    stack.append(layers.Dropout(dropout, name="dropout", dtype=dtype))
    pixels = keras.Input((side_px, side_px, 1), name="pixels")
    features = pixels
    for layer in stack:
        features = layer(features)
    return keras.Model(pixels, add_head(features, classes, head), name="lenet")
