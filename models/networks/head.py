"""The output layer that AlexNet and LeNet share."""

from __future__ import annotations

from typing import Literal

from models.networks.framework import keras

layers = keras.layers

Head = Literal["softmax", "logistic"]


def add_head(features: keras.KerasTensor, classes: int, head: Head) -> keras.KerasTensor:
    """Returns class probabilities, shape (batch, classes), computed from `features`, shape (batch, units), by the layer `output`.

    The probabilities are float32, whatever the precision of the layers before. The head "logistic", for two classes, is one sigmoid
    unit, the probability of the second class, written out as two columns.

    Raises ValueError if there are fewer than two classes, or more than two with a logistic head.
    """
    if classes < 2:
        raise ValueError(f"expected at least two classes, found {classes}")
    # Small first weights make the first predictions undecided. A wrong certainty would kill units in the first training steps.
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    if head == "softmax":
        return layers.Dense(classes, "softmax", kernel_initializer=initializer, name="output", dtype="float32")(features)
    if head == "logistic" and classes == 2:
        second = layers.Dense(1, "sigmoid", kernel_initializer=initializer, name="output", dtype="float32")(features)
        first = layers.Rescaling(-1, 1, name="first_class", dtype="float32")(second)
        return layers.Concatenate(name="both_classes", dtype="float32")([first, second])
    raise ValueError(f"expected a softmax head, or a logistic one for two classes, found {head!r} for {classes}")
