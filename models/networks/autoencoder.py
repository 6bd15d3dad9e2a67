"""The memory-augmented adversarial autoencoder (MAA), which rebuilds pictures of good parts from a memory of prototypes.

The functions of this module use Keras alone, so the networks also run on Keras' other backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.networks.framework import keras

layers, ops = keras.layers, keras.ops

# The encoder halves the side four times, so each code in its output describes 16 x 16 px of the picture.
CODE_STRIDE_PX = 16
# The smallest side of the input pictures. The encoder makes a code for each 16 x 16 px, so a smaller picture would have fewer than 2 x 2
# codes.
MIN_SIDE_PX = 32
# The memory replaces each code from the encoder by a mixture of similar learned codes (prototypes). The similarities are multiplied by 10
# before the softmax, so that only a few prototypes get a large weight. A mixture of many prototypes could also rebuild defects.
SHARPNESS = 10.0
# The names of the training network's outputs. Each loss has the name of its output.
REBUILT, ADDRESSING, GENUINE, FORGED = "rebuilt", "addressing_entropy", "genuine", "forged"


@dataclass(frozen=True)
class Autoencoder:
    """Two networks with shared weights. Pictures have shape (batch, side_px, side_px, 1), grey level 0..1.

    - `rebuilding`: rebuilds each picture.
    - `training`: also rebuilds pictures, and has further outputs for the losses. "genuine" and "forged" are the outputs of the
      discriminator for real pictures and for rebuilt pictures. "addressing_entropy" is low if the memory rebuilds each block of
      16 x 16 px from only a few prototypes.
    """

    rebuilding: keras.Model
    training: keras.Model


def build_autoencoder(
    side_px: int = 96,
    width: int = 32,
    code_channels: int = 32,
    prototypes: int = 64,
    has_adversary: bool = True,
) -> Autoencoder:
    """Builds the memory-augmented adversarial autoencoder for grey pictures of castings. If `prototypes` is 0, there is no memory.

    Sources: Gong et al., ICCV 2019 (memory); Ganin et al., JMLR 17, 2016 (discriminator). Difference: the encoder describes each block of
    16 x 16 px by a code of its own.

    Raises ValueError if `side_px` is not a multiple of 16 or less than 32, or if there is only one prototype.
    """
    if side_px < MIN_SIDE_PX or side_px % CODE_STRIDE_PX:
        raise ValueError(f"expected a side of at least {MIN_SIDE_PX} px that is a multiple of {CODE_STRIDE_PX} px, found {side_px}")
    if prototypes == 1 or prototypes < 0:
        raise ValueError(f"expected the number of prototypes to be 0 or at least 2, found {prototypes}")
    pixels = keras.Input((side_px, side_px, 1), name="pixels")
    code = _encode(pixels, width, code_channels)
    outputs: dict[str, keras.KerasTensor] = {}
    if prototypes:
        memory = PrototypeMemory(prototypes, name="memory")
        code, entropy = memory(code)
        outputs[ADDRESSING] = layers.Identity(name=ADDRESSING)(entropy)
    rebuilt = _decode(code, width)
    rebuilding = keras.Model(pixels, rebuilt, name="autoencoder")
    outputs[REBUILT] = layers.Identity(name=REBUILT)(rebuilt)
    if has_adversary:
        discriminator = _build_discriminator(side_px, width)
        outputs[GENUINE] = layers.Identity(name=GENUINE)(discriminator(pixels))
        outputs[FORGED] = layers.Identity(name=FORGED)(discriminator(ReversedGradient(name="reversed_gradient")(rebuilt)))
    return Autoencoder(rebuilding, keras.Model(pixels, outputs, name="autoencoder_training"))


class PrototypeMemory(keras.layers.Layer):  # type: ignore[misc]  # Keras comes without types
    """Replaces each code from the encoder by a mixture of a few learned codes, called prototypes (Gong et al. 2019, section 3.3).

    Input shape: (batch, rows, columns, channels). The outputs are the mixtures, same shape, and the mean entropy of their weights in nats,
    shape (batch, 1).
    """

    def __init__(self, prototypes: int, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.prototypes = prototypes

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights of this layer, shape (prototypes, channels). A prototype is a learned code with a value for each channel."""
        self.memory = self.add_weight(shape=(self.prototypes, input_shape[-1]), initializer="random_normal", name="memory")

    def call(self, codes: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Replaces each code by a mixture of prototypes. A code describes 16 x 16 px of a picture. A prototype is a learned code.

        Returns two outputs: the mixtures, and for each picture the mean entropy of the mixing weights.
        """
        weights = self.address(codes)
        entropy = -ops.sum(weights * ops.log(weights + 1e-12), axis=-1)
        return ops.matmul(weights, self.memory), ops.mean(entropy, axis=(1, 2))[:, None]

    def address(self, codes: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the weights with which the prototypes are mixed to replace each code. The weights of a mixture sum to 1.

        Shape of the result: (batch, rows, columns, prototypes).
        """
        similarity = ops.matmul(ops.normalize(codes, axis=-1), ops.transpose(ops.normalize(self.memory, axis=-1)))
        weights = ops.softmax(SHARPNESS * similarity, axis=-1)
        least = 1.0 / self.prototypes
        # Sets weights below `least` to 0. The formula has a gradient, so that the network can be trained (Gong et al. 2019, equation 7).
        kept = ops.relu(weights - least) * weights / (ops.absolute(weights - least) + 1e-12)
        return kept / (ops.sum(kept, axis=-1, keepdims=True) + 1e-12)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[tuple[int | None, ...], tuple[int | None, int]]:
        """Returns the shapes of the two outputs of `call`. The first output has the shape of the input."""
        return input_shape, (input_shape[0], 1)


class ReversedGradient(keras.layers.Layer):  # type: ignore[misc]  # Keras comes without types
    """Returns its input unchanged, but changes the sign of the gradient (Ganin et al. 2016, equations 16 and 17)."""

    def call(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """Returns `values` unchanged. During the training, the gradient leaves this layer with the opposite sign."""
        return ops.stop_gradient(2.0 * values) - values


def _encode(pixels: keras.KerasTensor, width: int, code_channels: int) -> keras.KerasTensor:
    features = layers.Rescaling(2.0, -1.0, name="centre")(pixels)
    for number, filters in enumerate((width, 2 * width, 4 * width, 4 * width), start=1):
        features = layers.Conv2D(filters, 3, 2, "same", use_bias=False, kernel_initializer="he_normal", name=f"encode{number}")(features)
        features = layers.BatchNormalization(momentum=0.9, name=f"encode{number}_norm")(features)
        features = layers.LeakyReLU(0.2, name=f"encode{number}_active")(features)
    return layers.Conv2D(code_channels, 1, name="code")(features)


def _decode(code: keras.KerasTensor, width: int) -> keras.KerasTensor:
    features = code
    for number, filters in enumerate((4 * width, 4 * width, 2 * width, width), start=1):
        features = layers.Conv2DTranspose(filters, 4, 2, "same", use_bias=False, kernel_initializer="he_normal", name=f"decode{number}")(
            features
        )
        features = layers.BatchNormalization(momentum=0.9, name=f"decode{number}_norm")(features)
        features = layers.LeakyReLU(0.2, name=f"decode{number}_active")(features)
    return layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="grey")(features)


def _build_discriminator(side_px: int, width: int) -> keras.Model:
    """Returns the network that says whether a picture is real or rebuilt. The network gives a logit for each of many overlapping patches.

    Such a network is called PatchGAN.
    """
    pixels = keras.Input((side_px, side_px, 1), name="judged_pixels")
    features = layers.Rescaling(2.0, -1.0, name="judged_centre")(pixels)
    for number, filters in enumerate((width, 2 * width, 4 * width), start=1):
        features = layers.Conv2D(filters, 4, 2, "same", kernel_initializer="he_normal", name=f"judge{number}")(features)
        features = layers.LeakyReLU(0.2, name=f"judge{number}_active")(features)
    return keras.Model(pixels, layers.Conv2D(1, 3, padding="same", name="judge_logit")(features), name="discriminator")
