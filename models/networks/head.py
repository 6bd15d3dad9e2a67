"""The output layer that AlexNet and LeNet share."""

from __future__ import annotations

from typing import Literal

from models.networks.framework import keras

layers = keras.layers

Head = Literal["softmax", "logistic"]


def add_head(features: keras.KerasTensor, classes: int, head: Head) -> keras.KerasTensor:
    """Adds the output layer to `features`, shape (batch, units). Returns class probabilities, shape (batch, classes), float32.

    With the head "logistic", one sigmoid unit gives the probability of the second of two classes.
    Raises ValueError if the head does not fit `classes`.
    """
    if classes < 2:
        raise ValueError(f"expected at least two classes, found {classes}")
    # With small initial weights, all classes are nearly equally probable at first, so the first gradients are small. Large gradients could
    # make units return 0 for ever.
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    if head == "softmax":
        return layers.Dense(classes, "softmax", kernel_initializer=initializer, name="output", dtype="float32")(features)
    if head == "logistic" and classes == 2:
        second = layers.Dense(1, "sigmoid", kernel_initializer=initializer, name="output", dtype="float32")(features)
        first = layers.Rescaling(-1, 1, name="first_class", dtype="float32")(second)
        return layers.Concatenate(name="both_classes", dtype="float32")([first, second])
    raise ValueError(f"expected the head 'softmax', or 'logistic' for two classes, found {head!r} for {classes} classes")
