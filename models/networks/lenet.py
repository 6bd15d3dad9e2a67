"""LeNet for grey castings, the small member of the ensemble."""

from __future__ import annotations

from models.networks.framework import keras
from models.networks.head import Head, add_head

layers = keras.layers

# The smallest side of the input, in pixels. With a smaller side, nothing would be left after LeNet's second pooling.
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

    Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998. Differences:

    - The network has ReLU, maximum pooling, dropout and a softmax output.
    - The layer c3 uses all feature maps of the layer s2.
    - `width` multiplies the number of feature maps of the paper.

    Input shape: (batch, side_px, side_px, 1), float32, grey level 0..1. Output shape: (batch, classes), rows sum to 1.
    Raises ValueError if `side_px` < 16, or if `head` does not fit `classes`.
    """
    if side_px < MIN_SIDE_PX:
        raise ValueError(f"expected the side of LeNet's input to be at least {MIN_SIDE_PX} px, found {side_px}")
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
