"""Boxes that a person drew, as the page sends them: checked against the picture before anything is sent on. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from streams.records import Box

MOST_BOXES = 50
MOST_CHARACTERS = 20_000


class WrongBoxesError(ValueError):
    """The boxes are not what they must be; the text is fit for a page."""


def boxes_of(text: str, width_px: int | None, height_px: int | None, kinds: Sequence[str]) -> tuple[Box, ...]:
    """The boxes in `text`, a JSON list. A person's box has the score 1.

    Raises WrongBoxesError: for what is no such list, lies outside the picture (where its size is known) or has a type of defect
    that is not one of `kinds`.
    """
    boxes = []
    for number, one in enumerate(_listed(text), 1):
        try:
            box = Box.model_validate(one | {"score": 1.0})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise WrongBoxesError(f"Box {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
        if width_px and height_px and (box.left_px + box.width_px > width_px or box.top_px + box.height_px > height_px):
            raise WrongBoxesError(f"Box {number} reaches beyond the picture of {width_px} x {height_px} px.")
        if box.kind and box.kind not in kinds:
            raise WrongBoxesError(f"Box {number}: expected a type of defect of {', '.join(kinds)}, found {box.kind[:40]!r}.")
        boxes.append(box)
    return tuple(boxes)


def _listed(text: str) -> list[dict[str, Any]]:
    if len(text) > MOST_CHARACTERS:
        raise WrongBoxesError(f"Expected boxes in at most {MOST_CHARACTERS} characters, found {len(text)}.")
    try:
        found = json.loads(text or "[]")
    except (json.JSONDecodeError, RecursionError):
        raise WrongBoxesError("Expected boxes as a JSON list, found something else.") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise WrongBoxesError("Expected boxes as a JSON list, found something else.")
    if len(found) > MOST_BOXES:
        raise WrongBoxesError(f"Expected at most {MOST_BOXES} boxes, found {len(found)}.")
    return found
