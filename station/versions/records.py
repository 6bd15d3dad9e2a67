"""What was written down about a version beside it: its training's curves, and a report on labelled pictures.

<root>/<version>.training/*.png          made by `castline train`
<root>/<version>.report/report.json      made by `castline evaluate --report <root>/<version>.report`
<root>/<version>.report/report.html      the same with a gallery of the errors
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from station.versions.shelf import Share

_CURVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.png")
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_BYTES = 64 * 2**20
_MOST_ERRORS = 60
_DATA = "data:image/png;base64,"


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CountOf(_Read):
    count: int
    of: int

    @property
    def share(self) -> Share | None:
        return Share.counted(self.count, self.of)


class Figures(_Read):
    pictures: int
    accuracy: CountOf
    precision: CountOf
    recall: CountOf
    misses: CountOf
    false_alarms: CountOf
    reviews: CountOf
    f1: float | None = None
    roc_auc: float | None = None
    calibration_error: float | None = None
    confusion: tuple[tuple[int, int], tuple[int, int]]


class Wrong(_Read):
    """One error: `path` below the data that were judged."""

    path: str
    defect_probability: float
    label: str


class Report(_Read):
    """What `castline evaluate` found."""

    model: str
    figures: Figures
    voters_at_half: dict[str, Figures] = {}
    strained: dict[str, Figures] = {}
    errors: tuple[Wrong, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """Pictures of a report: the drawn curves first where there are any, then each error with its words."""

    curves: bytes | None
    errors: tuple[tuple[str, bytes], ...]


def training_curves(root: Path, version: str) -> list[str]:
    """Names of the pictures that the training of `version` drew."""
    folder = root / f"{version}.training"
    return sorted(path.name for path in folder.glob("*.png") if _CURVE.fullmatch(path.name)) if folder.is_dir() else []


def training_curve(root: Path, version: str, name: str) -> bytes | None:
    """One of them; None when it is not one."""
    return _png(root / f"{version}.training" / name) if name in training_curves(root, version) else None


def report(root: Path, version: str) -> Report | None:
    """The report on `version`; None where none was written, or it is of another version or damaged."""
    path = root / f"{version}.report" / "report.json"
    try:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > _LARGEST_BYTES:
            return None
        found = Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.model == version else None


def gallery(root: Path, version: str) -> Gallery:
    """The pictures of the report's page; none where there is no page."""
    path = root / f"{version}.report" / "report.html"
    try:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > _LARGEST_BYTES:
            return Gallery(None, ())
        return _gallery(path, path.stat().st_mtime_ns)
    except OSError:
        return Gallery(None, ())


@lru_cache(maxsize=4)
def _gallery(path: Path, changed_ns: int) -> Gallery:
    parser = _Pictures()
    parser.feed(path.read_text(encoding="utf-8", errors="replace"))
    return Gallery(parser.curves, tuple(parser.errors[:_MOST_ERRORS]))


class _Pictures(HTMLParser):
    """Takes the embedded PNGs and the words under them; nothing else of the page goes anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.curves: bytes | None = None
        self.errors: list[tuple[str, bytes]] = []
        self._picture: bytes | None = None
        self._words: list[str] | None = None
        self._within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> Any:
        if tag == "figure":
            self._within, self._picture = True, None
        elif tag == "img":
            picture = _embedded(dict(attrs).get("src") or "")
            if self._within:
                self._picture = picture
            else:
                self.curves = self.curves or picture
        elif tag == "figcaption":
            self._words = []

    def handle_data(self, data: str) -> None:
        if self._words is not None:
            self._words.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure":
            if self._picture is not None:
                self.errors.append(("".join(self._words or ())[:300], self._picture))
            self._within, self._words = False, None


def _embedded(source: str) -> bytes | None:
    if not source.startswith(_DATA):
        return None
    try:
        value = base64.b64decode(source[len(_DATA) :], validate=True)
    except binascii.Error:
        return None
    return value if value.startswith(_PNG) else None


def _png(path: Path) -> bytes | None:
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST_BYTES:
            return None
        value = path.read_bytes()
    except OSError:
        return None
    return value if value.startswith(_PNG) else None
