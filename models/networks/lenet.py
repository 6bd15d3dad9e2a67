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

    Source: LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998, figure 2.
    Layers: the convolutions c1 and c3, the poolings s2 and s4, the fully connected layers f5 and f6 (120 and 84 units), and `output`.
    Differences from the paper:

    - The activation is ReLU instead of a scaled tanh, the pooling takes the maximum instead of a trained average, and the output is a
      softmax instead of radial basis functions.
    - Every feature map of c3 is computed from all feature maps of s2. Table I of the paper leaves out some of these connections.
    - The paper's third convolution, c5, has a window as large as its input. So it is a fully connected layer here: f5 with 120 units.
    - The side of the input, `side_px`, is at least 16 px. The paper has 32 px for digits, but castings need more. The window of s4 grows
      with the side, so s4 always yields 5 x 5 values for each feature map, as in the paper.
    - c1 has 6 x `width` feature maps, and c3 has 16 x `width`. In the paper, they have 6 and 16.
    - There is a dropout layer before the output.
    - `dense_layers` is the number of fully connected layers before the output. The paper has 2.
    - If `head` is "logistic", the output is one sigmoid unit for two classes, see `add_head`.

    Input shape: (batch, side_px, side_px, 1), float32, grey level 0..1. Output shape: (batch, classes), float32, rows sum to 1.
    Raises ValueError if `side_px` < 16, because the second pooling would leave nothing, or if the head does not fit `classes`.
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
