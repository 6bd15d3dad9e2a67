"""The versions on this machine as files: manifests read, checksums verified. A version that is not whole is shown and never chosen."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import betaincinv  # type: ignore[import-untyped]  # no stubs among the locked packages

from streams.errors import ModelError

MANIFEST = "manifest.json"
_MANIFEST_BYTES = 2**20  # a larger one is not a manifest
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Voter(_Read):
    name: str
    network: str
    weight: float = 1.0


class Band(_Read):
    low: float
    high: float


class Learned(_Read):
    pictures: dict[str, int] = {}
    split: str = ""
    sha256: str = ""


class FileEntry(_Read):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Preprocessing(_Read):
    side_px: int = Field(ge=16, le=1024)


class Manifest(_Read):
    """What the pages show of a version; the inspector's own reader is stricter."""

    version: str
    created: datetime
    classes: tuple[str, ...] = Field(min_length=2)
    ok_class: int = Field(ge=0)
    preprocessing: Preprocessing
    voters: tuple[Voter, ...]
    threshold: float
    band: Band
    data: Learned
    figures: dict[str, float]
    command: str = ""
    files: dict[str, FileEntry]

    def kinds(self) -> tuple[frozenset[str], str]:
        """What must be the same for two versions to take each other's place: the classes, and which of them is good."""
        return frozenset(self.classes), self.classes[min(self.ok_class, len(self.classes) - 1)]

    def kinds_in_words(self) -> str:
        known, good = self.kinds()
        return f"{', '.join(sorted(known))} with {good} as the good one"

    @property
    def pictures(self) -> int:
        """How many it learned from, validation included."""
        return sum(self.data.pictures.values())

    @property
    def accuracy(self) -> Share | None:
        """On the pictures that its training kept for validation; None where it recorded none."""
        pictures, wrong = self._counted("pictures"), self._counted("misses") + self._counted("false_alarms")
        return Share.counted(pictures - wrong, pictures)

    @property
    def validated(self) -> list[tuple[str, Share | None]]:
        """What its training found on those pictures, by name; empty where it recorded none."""
        pictures = self._counted("pictures")
        if not pictures:
            return []
        alone = [(one.name, self.figures.get(f"{one.name}_accuracy_at_half")) for one in self.voters]
        return [
            ("accuracy", self.accuracy),
            ("misses, of all", Share.counted(self._counted("misses"), pictures)),
            ("false alarms, of all", Share.counted(self._counted("false_alarms"), pictures)),
            ("for review", Share.counted(self._counted("reviews"), pictures)),
            *((f"accuracy of {name} alone, at 0.5", Share.counted(round(share * pictures), pictures)) for name, share in alone if share),
        ]

    def _counted(self, name: str) -> int:
        return int(self.figures.get(name, 0))


class Share(_Read):
    """A share with its 95 % interval (Clopper, Pearson, Biometrika 26, 1934), in per cent."""

    count: int
    of: int
    value: float
    low: float
    high: float

    @classmethod
    def counted(cls, count: int, of: int) -> Share | None:
        """`count` of `of`; None where there is nothing to count or the figures contradict each other."""
        if not 0 <= count <= of or of == 0:
            return None
        low = 0.0 if count == 0 else float(betaincinv(count, of - count + 1, 0.025))
        high = 1.0 if count == of else float(betaincinv(count + 1, of - count, 0.975))
        return cls(count=count, of=of, value=100 * count / of, low=100 * low, high=100 * high)


def names(root: Path) -> list[str]:
    """Names of the versions below `root`, sorted; none of them is verified."""
    if not root.is_dir():
        return []
    return sorted(found.parent.name for found in root.glob(f"*/{MANIFEST}") if _NAME.fullmatch(found.parent.name))


def read(root: Path, version: str) -> Manifest:
    """The manifest of `version`. Raises ModelError: in words, when there is none or it is damaged."""
    if version not in names(root):
        known = ", ".join(names(root)) or "none"
        raise ModelError(f"There is no version {version[:64]!r} on this machine. There are: {known}.")
    path = root / version / MANIFEST
    try:
        if path.is_symlink() or path.stat().st_size > _MANIFEST_BYTES:
            raise ModelError(f"The manifest of {version} is no ordinary file of at most {_MANIFEST_BYTES} bytes.")
        found = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the whole file"
        raise ModelError(f"The manifest of {version} is damaged: {where}: {first['msg']}.") from error
    except OSError as error:
        raise ModelError(f"The manifest of {version} cannot be read: {error.strerror}.") from error
    if found.version != version:
        raise ModelError(f"The manifest of {version} names another version, {found.version[:64]!r}.")
    return found


def verify(root: Path, version: str) -> Manifest:
    """The manifest, after every file's checksum was compared with it. Raises ModelError: naming the file that is at fault."""
    found, folder = read(root, version), root / version
    try:
        present = {path.name for path in folder.iterdir()}
        for name in sorted(present - found.files.keys() - {MANIFEST}):
            raise ModelError(f"{version} holds {name[:80]}, which its manifest does not name.")
        for name, entry in sorted(found.files.items()):
            path = folder / name
            if not _FILE.fullmatch(name) or name not in present or path.is_symlink() or not path.is_file():
                raise ModelError(f"{version} lacks its file {name[:80]}.")
            stat = path.stat()
            if stat.st_size != entry.bytes:
                raise ModelError(f"{version}: {name} has {stat.st_size} bytes instead of {entry.bytes}.")
            if _sha256(path, stat.st_mtime_ns, stat.st_size) != entry.sha256:
                raise ModelError(f"{version}: {name} is damaged or was tampered with, its checksum is another.")
    except OSError as error:
        raise ModelError(f"{version} cannot be read: {error.strerror}.") from error
    return found


@lru_cache(maxsize=256)
def _sha256(path: Path, changed_ns: int, size: int) -> str:
    """Computed once for a file that has not changed; the inspectors verify anew whatever this says."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
