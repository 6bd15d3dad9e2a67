"""Light networks from the literature, with which the networks of Castline are compared. No model version contains them."""

from __future__ import annotations

from typing import Literal, get_args

from models.networks.framework import keras

LightNetwork = Literal["mobilenet-v2", "nasnet-mobile"]
LIGHT_NETWORKS: tuple[LightNetwork, ...] = get_args(LightNetwork)
# The smallest side of the input, in pixels, that Keras accepts for MobileNetV2 and NASNetMobile.
MIN_SIDE_PX = 32
# Momentum of the averages in batch normalisation. With the default momentum of Keras, the averages adapt too slowly to a few hundred
# pictures.
AVERAGE_MOMENTUM = 0.9


def light_network(name: LightNetwork, classes: int, side_px: int = 96) -> keras.Model:
    """Builds MobileNetV2 (Sandler et al., CVPR 2018) or NASNetMobile (Zoph et al., CVPR 2018) for grey castings, with random weights.

    Input shape: (batch, side_px, side_px, 1), float32, grey level 0..1. Output shape: (batch, classes), rows sum to 1.
    Raises ValueError if `side_px` < 32.
    """
    if side_px < MIN_SIDE_PX:
        raise ValueError(f"expected the side of the input of {name} to be at least {MIN_SIDE_PX} px, found {side_px}")
    build = {"mobilenet-v2": keras.applications.MobileNetV2, "nasnet-mobile": keras.applications.NASNetMobile}[name]
    body = build(input_shape=(side_px, side_px, 1), weights=None, classes=classes)
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = AVERAGE_MOMENTUM
    pixels = keras.Input((side_px, side_px, 1), name="pixels")
    return keras.Model(pixels, body(keras.layers.Rescaling(2.0, -1.0, name="centre")(pixels)), name=name.replace("-", "_"))
