"""Damages pictures as transfers, disks and attackers do, from a seed, and counts what the decoder and the running roles make of them.

`make campaign-pictures` decodes 10,000 of them, sends the same ones through running roles (`tests.role_campaign`) and prints the counts.
The tests do both with some hundred.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.pictures.decoder import decode_picture
from models.synthetic import render_series
from streams.errors import PictureError
from tests.encoded_pictures import encode, make_png, make_tiff

SIDE_PX = 160
BLOCK_BYTES = 512
# The decoder needs milliseconds. A process that takes so long for one picture is ended with a stack trace.
HANGS_AFTER_S = 60

MUTATED_FORMS = ("JPEG", "progressive JPEG", "PNG", "BMP", "raw TIFF", "deflate TIFF", "LZW TIFF", "PackBits TIFF")
JPEG_TRANSFER_DAMAGES = ("ASCII mode", "lost block", "zeroed block", "foreign tail")
# Of the JPEGs that their transfer has damaged, at most this share may be judged. Progressive ones are counted apart, because the last bits
# of their coefficients have no redundancy: a lost block there shifts details by some grey levels, and libjpeg finds nothing wrong.
MAX_JUDGED_SHARE = 0.005
INSIDE = "inside the compressed data"


@dataclass(frozen=True)
class MutationKind:
    """A form of pictures and what was done to them."""

    form: str
    mutation: str

    def __str__(self) -> str:
        return f"{self.form}, {self.mutation}"

    @property
    def must_be_refused(self) -> bool:
        """Whether no picture of this kind may be judged, because the format has a checksum there."""
        return self.mutation == INSIDE and self.form in ("PNG", "deflate TIFF")


@dataclass
class OutcomeCount:
    """What became of the mutated pictures of one kind."""

    refused: int = 0
    judged: int = 0
    crashed: int = 0


def _cut(value: bytearray, chance: random.Random, _: bytes) -> None:
    del value[chance.randrange(1, len(value)) :]


def _lose_block(value: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(value))
    del value[start : start + BLOCK_BYTES]


def _zero_block(value: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(value))
    block = value[start : start + BLOCK_BYTES]
    value[start : start + BLOCK_BYTES] = bytes(len(block))


def _repeat_block(value: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(value))
    value[start:start] = value[start : start + BLOCK_BYTES]


def _use_ascii_mode(value: bytearray, chance: random.Random, _: bytes) -> None:
    """Does what an FTP server does that turns line ends into those of Windows: a byte is added in every 256."""
    changed = value.replace(b"\n", b"\r\n")
    if changed == value:  # a picture that holds no byte 10
        changed.insert(chance.randrange(len(value)), 13)
    value[:] = changed


def _lose_byte(value: bytearray, chance: random.Random, _: bytes) -> None:
    """Does what an FTP client does that turns line ends of Windows into those of Unix, in a file in which they occur once."""
    del value[chance.randrange(len(value))]


def _attach_foreign_tail(value: bytearray, chance: random.Random, other: bytes) -> None:
    cut = chance.randrange(len(value) // 8, len(value))
    value[cut:] = other[chance.randrange(len(other) // 8, len(other)) :]


def _overwrite_in_place(value: bytearray, chance: random.Random, other: bytes) -> None:
    """Leaves the beginning of one picture and the end of another one of the same camera, from the same byte on."""
    cut = chance.randrange(len(value) // 8, len(value))
    value[cut:] = other[min(cut, len(other) - 1) :]


def _flip_bits(value: bytearray, chance: random.Random, _: bytes) -> None:
    for _count in range(chance.choice((1, 1, 1, 8))):
        value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)


def _change_header(value: bytearray, chance: random.Random, _: bytes) -> None:
    """Overwrites two bytes of the first 200, or of the last 300, where TIFF has its directory."""
    at = chance.choice((chance.randrange(min(200, len(value) - 2)), len(value) - 2 - chance.randrange(min(300, len(value) - 2))))
    struct.pack_into("<H", value, at, chance.choice((0, 1, 2, 3, 8, 12, 16, 299, 301, 0xFFFF, chance.randrange(2**16))))


MUTATIONS: dict[str, Callable[[bytearray, random.Random, bytes], None]] = {
    "truncated": _cut,
    "lost block": _lose_block,
    "zeroed block": _zero_block,
    "repeated block": _repeat_block,
    "ASCII mode": _use_ascii_mode,
    "one byte lost": _lose_byte,
    "foreign tail": _attach_foreign_tail,
    "overwritten in place": _overwrite_in_place,
    "flipped bits": _flip_bits,
    "changed header or tag": _change_header,
}


def mutate_picture(value: bytes, mutation: str, seed: int, other: bytes) -> bytes:
    """Returns `value` after a mutation, which differs from `value`. `other` is another picture of the same form.

    A mutation that changes nothing, such as a zeroed block that held zeros, is repeated with the next random numbers, and replaced by a
    flipped bit after some attempts.
    """
    chance = random.Random(f"{seed} {mutation}")
    for _ in range(20):
        result = bytearray(value)
        MUTATIONS[mutation](result, chance, other)
        if result != value:
            return bytes(result)
    result[len(result) // 2] ^= 1
    return bytes(result)


def mutate_inside(form: str, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], seed: int) -> bytes:
    """Returns a PNG or deflate TIFF of `pixels` whose compressed data were changed. A PNG's chunks bear right checksums all the same."""
    chance = random.Random(f"{seed} {INSIDE}")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels) if form == "PNG" else pixels.tobytes()
    whole = zlib.compress(rows)
    name = chance.choice(("lost block", "zeroed block", "repeated block", "flipped bits", "truncated"))
    changed = mutate_picture(whole, name, seed, whole)
    if form == "PNG":
        return make_png(pixels, compressed=changed)
    # The strip keeps its length, so that the directory behind it stays where the header says.
    strip = changed.ljust(len(whole), b"\0")[: len(whole)]
    if strip == whole:  # only bytes behind the strip were changed
        strip = bytes(BLOCK_BYTES) + whole[BLOCK_BYTES:]
    return make_tiff(pixels, deflate=True).replace(whole, strip)


def encode_form(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], form: str) -> bytes:
    """Returns a picture in one of MUTATED_FORMS."""
    if form in ("raw TIFF", "deflate TIFF"):
        return make_tiff(pixels, deflate=form == "deflate TIFF", rows_per_strip=64)
    return {
        "JPEG": lambda: encode(pixels, "JPEG", quality=90),
        "progressive JPEG": lambda: encode(pixels, "JPEG", quality=85, progressive=True),
        "PNG": lambda: encode(pixels, "PNG"),
        "BMP": lambda: encode(pixels, "BMP"),
        "LZW TIFF": lambda: encode(pixels, "TIFF", compression="tiff_lzw"),
        "PackBits TIFF": lambda: encode(pixels, "TIFF", compression="packbits"),
    }[form]()


def list_kinds(forms: Sequence[str] = MUTATED_FORMS) -> list[MutationKind]:
    """Returns every mutation of every form, in the order in which `mutated_pictures` makes pictures of them."""
    kinds = [MutationKind(form, mutation) for mutation in MUTATIONS for form in forms]
    return kinds + [MutationKind(form, INSIDE) for form in forms if form in ("PNG", "deflate TIFF")]


def mutated_pictures(seed: int, count: int, forms: Sequence[str] = MUTATED_FORMS) -> Iterator[tuple[MutationKind, bytes]]:
    """Yields `count` mutated pictures with their kinds, one kind after the other in turn. The same seed gives the same pictures."""
    castings = [casting.pixels for casting in render_series(16, seed=seed)]
    whole = {form: [encode_form(pixels, form) for pixels in castings] for form in forms}
    kinds = list_kinds(forms)
    for number in range(count):
        kind, index = kinds[number % len(kinds)], number % len(castings)
        if kind.mutation == INSIDE:
            value = mutate_inside(kind.form, castings[index], seed + number)
        else:
            value = mutate_picture(whole[kind.form][index], kind.mutation, seed + number, whole[kind.form][index - 1])
        yield kind, value


def count_outcomes(seed: int, count: int, forms: Sequence[str] = MUTATED_FORMS) -> dict[MutationKind, OutcomeCount]:
    """Decodes the pictures of `mutated_pictures` and returns the outcomes of each kind."""
    outcomes = {kind: OutcomeCount() for kind in list_kinds(forms)}
    for kind, value in mutated_pictures(seed, count, forms):
        _count(value, outcomes[kind])
    return outcomes


def _count(value: bytes, outcome: OutcomeCount) -> None:
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    try:
        decode_picture(value, SIDE_PX)
        outcome.judged += 1
    except PictureError:
        outcome.refused += 1
    except Exception:  # noqa: BLE001  every other error would end the work of a role
        outcome.crashed += 1
    finally:
        faulthandler.cancel_dump_traceback_later()


def print_outcomes(outcomes: dict[MutationKind, OutcomeCount]) -> bool:
    """Prints the counts of each kind as a Markdown table. Returns whether none crashed and none was judged that must be refused."""
    print("| form | mutation | refused | judged | crashed |\n| --- | --- | ---: | ---: | ---: |")
    for kind, count in sorted(outcomes.items(), key=lambda each: (each[0].form, each[0].mutation)):
        print(f"| {kind.form} | {kind.mutation} | {count.refused} | {count.judged} | {count.crashed} |")
    baseline, _ = [_print_transfer_damages(outcomes, form) for form in ("JPEG", "progressive JPEG")]
    forbidden = sum(count.judged for kind, count in outcomes.items() if kind.must_be_refused)
    crashed = sum(count.crashed for count in outcomes.values())
    print(f"PNG and deflate TIFF changed inside their compressed data: {forbidden} judged. Crashed: {crashed}.")
    return crashed == 0 and forbidden == 0 and baseline <= MAX_JUDGED_SHARE


def _print_transfer_damages(outcomes: dict[MutationKind, OutcomeCount], form: str) -> float:
    """Prints how many pictures of `form` were judged although their transfer had damaged them. Returns their share."""
    damaged = [count for kind, count in outcomes.items() if kind.form == form and kind.mutation in JPEG_TRANSFER_DAMAGES]
    judged, total = sum(count.judged for count in damaged), sum(count.judged + count.refused for count in damaged)
    print(f"\n{form} damaged by its transfer ({', '.join(JPEG_TRANSFER_DAMAGES)}): {judged} of {total} judged.")
    return judged / max(1, total)


def main() -> int:
    """Runs the campaign. Returns 1 if the decoder crashed or judged what it must refuse, or if the roles fell short of an answer."""
    parser = argparse.ArgumentParser(
        description="Decode mutated pictures, send them through running roles, and count what becomes of them."
    )
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    is_decoder_sound = print_outcomes(count_outcomes(options.seed, options.count))
    from tests.role_campaign import run_with_own_broker  # imported late, because that module imports this one

    return 0 if run_with_own_broker(options.seed, options.count) and is_decoder_sound else 1


if __name__ == "__main__":
    sys.exit(main())
