"""Reads pictures whose defects are marked. A defect is marked by a mask, which gives the kind of defect of each pixel, or by a box.

Each pixel of a picture has a mark, which is a number:

- 0: no defect.
- k, from 1: the mask shows a defect of kind k.
- `BOX_MARK` + k: in a box around a defect of kind k.
- `BOX_MARK`: in a box around a defect of unknown kind.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.pictures.decoder import PictureLimits, decode_picture, find_picture_area, open_picture
from models.pictures.pillow_pixels import read_image
from models.pictures.png import prepare_png
from models.pictures.refusal import RefusalReason
from models.pictures.rendered_mark import is_rendered
from models.training.labelled_pictures import LabelledFile
from streams.errors import ModelError, PictureError

Pixels = npt.NDArray[np.uint8]

# Marks from 1 to 127 are the numbers of kinds of defect, so there can be at most 127 kinds. Marks from 128 on mean that the pixel lies in a
# box around a defect.
BOX_MARK = 128
# When a mask is reduced, a pixel is marked if defects cover more than this share of the pixel. The masks of rendered pictures are drawn
# with the same limit.
MIN_COVER = 0.3
_NAMED_FILES = 3
_BOX_COLUMNS = ("image", "x", "y", "w", "h")
_DATA_SET_COLUMNS = ("path", "boxes")


@dataclass(frozen=True, slots=True)
class DefectBox:
    """A rectangle around a defect, in pixels of the upright picture. `kind` is empty if the kind of defect is not known."""

    left_px: float
    top_px: float
    width_px: float
    height_px: float
    kind: str = ""


@dataclass(frozen=True, slots=True)
class MarkedFile:
    """A picture file that has not been read yet, with its mask or with the boxes around its defects. A good picture needs neither."""

    path: Path
    is_good: bool
    mask_path: Path | None = None
    boxes: tuple[DefectBox, ...] = ()


@dataclass(frozen=True)
class MarkedPictures:
    """Pictures with a mark for each pixel. `pixels` and `marks` have the shape (n, side_px, side_px), uint8.

    A mark says what a pixel shows: 0 is no defect, and k is a defect of the kind `kinds[k - 1]`. Marks from BOX_MARK on mean that the pixel
    lies in a box around a defect.

    - `paths`, `checksums`: a value for each picture, in the order of `pixels`.
    - `left_out`: sentences that say which pictures were left out.
    - `rendered`: how many of the pictures Castline has rendered.
    """

    pixels: Pixels
    marks: Pixels
    kinds: tuple[str, ...]
    paths: tuple[Path, ...]
    checksums: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    rendered: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def has_mask(self) -> npt.NDArray[np.bool_]:
        """True for each picture in which a mask marks at least one pixel as a defect, shape (n,). Boxes do not count."""
        has_mask: npt.NDArray[np.bool_] = np.any((self.marks > 0) & (self.marks < BOX_MARK), axis=(1, 2))
        return has_mask

    @property
    def is_good(self) -> npt.NDArray[np.bool_]:
        """True for each picture without marked pixels, shape (n,)."""
        is_good: npt.NDArray[np.bool_] = np.all(self.marks == 0, axis=(1, 2))
        return is_good

    def fingerprint(self) -> str:
        """Returns a SHA-256 over the pixels, marks, kinds and checksums of all pictures in their order, but not over their paths."""
        digest = hashlib.sha256("\n".join((*self.kinds, "", *self.checksums)).encode())
        for array in (self.pixels, self.marks):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def select(self, chosen: npt.NDArray[Any]) -> MarkedPictures:
        """Returns the chosen pictures. `chosen` is an array of indices, or a mask with True for each chosen picture."""
        indices = np.arange(len(self))[chosen]
        return MarkedPictures(
            self.pixels[indices],
            self.marks[indices],
            self.kinds,
            tuple(self.paths[index] for index in indices),
            tuple(self.checksums[index] for index in indices),
            self.left_out,
            self.rendered,
        )


def list_masks(folder: Path) -> dict[str, Path]:
    """Returns the path of each mask below `folder`. Raises ModelError if there is none.

    The key of a mask is its path relative to `folder`, without suffix.
    """
    if not folder.is_dir():
        raise ModelError(f"The folder of masks {folder} does not exist. Correct the path.")
    masks = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}
    if not masks:
        raise ModelError(
            f"Found no masks in {folder}. Put an 8-bit PNG for each picture there, for example def_front/a.png for def_front/a.jpeg. Its "
            "pixels are 0 where there is no defect."
        )
    return masks


def find_mask_key(file: LabelledFile) -> str:
    """Returns the key by which a picture is matched with its mask: the path below the data folder, without suffix.

    If the pictures come from a CSV list, the key consists of the name of the picture's folder and the name of the picture.
    """
    source = Path(file.source)
    if source.suffix.lower() != ".csv" and file.path.is_relative_to(source):
        return file.path.relative_to(source).with_suffix("").as_posix()
    return f"{file.path.parent.name}/{file.path.stem}"


def read_mask(path: Path, limits: PictureLimits) -> Pixels:
    """Returns the stored values of a mask, shape (height, width). Raises PictureError if the file is no 8-bit PNG with one channel."""
    try:
        with open_picture(path.read_bytes(), limits) as file:
            if file.header.format == "PNG" and not file.header.is_deep:
                image = read_image(prepare_png(file.value, file.header), file.header)
                if image.mode in ("1", "L", "P"):
                    return np.asarray(image).astype(np.uint8)
    except PictureError as error:
        raise PictureError(error.reason, "the file is damaged or no PNG") from error
    raise PictureError(RefusalReason.DAMAGED, "the file is no grey PNG of 8 bits")


def list_masked_files(files: Sequence[LabelledFile], masks_folder: Path, ok_class: str) -> list[MarkedFile]:
    """Returns `files`, each with its mask from `masks_folder`. Pictures of the class `ok_class` are good.

    The mask of `source/def_front/a.jpeg` is `masks_folder/def_front/a.png`. Raises ModelError if there are no masks.
    """
    masks = list_masks(masks_folder)
    return [MarkedFile(file.path, file.class_name == ok_class, masks.get(find_mask_key(file))) for file in files]


def list_boxed_files(path: Path, ok_class: str) -> list[MarkedFile]:
    """Returns the pictures in the CSV list `path`, with the boxes around their defects. Paths are relative to the folder of the list.

    Each row describes one box. Its columns are image (the path of the picture), x (left edge), y (upper edge), w (width) and h (height), in
    pixels, and optionally kind.

    The manifest.csv of a data set of the station is accepted, too. Its pictures of the class `ok_class` are good.

    Raises ModelError with the number of the line if the list cannot be read.
    """
    boxes: dict[Path, list[DefectBox]] = {}
    good: set[Path] = set()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            columns = set(rows.fieldnames or ())
            is_data_set = set(_DATA_SET_COLUMNS) <= columns
            if not is_data_set and not set(_BOX_COLUMNS) <= columns:
                raise ModelError(
                    f"The list of boxes {path} needs the columns {', '.join(_BOX_COLUMNS)}, or it must be the manifest.csv of a data set "
                    f"of the station. It has the columns {', '.join(sorted(columns)) or 'none'}."
                )
            for row in rows:
                picture = path.parent / (row["path"] if is_data_set else row["image"])
                try:
                    found = _parse_data_set_row(row) if is_data_set else [_parse_box(row)]
                except (ValueError, KeyError, TypeError) as error:
                    raise ModelError(f"Line {rows.line_num} of {path} holds no box: {error}. Correct the line.") from error
                boxes.setdefault(picture, []).extend(found)
                if is_data_set and row["class"] == ok_class:
                    good.add(picture)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"The list of boxes {path} cannot be read: {error}. Correct the path or the file.") from error
    return [MarkedFile(picture, picture in good, None, tuple(found)) for picture, found in boxes.items()]


def list_good_files(files: Sequence[LabelledFile], ok_class: str) -> list[MarkedFile]:
    """Returns the files that show good parts."""
    return [MarkedFile(file.path, True) for file in files if file.class_name == ok_class]


def read_marked_pictures(
    files: Sequence[MarkedFile],
    side_px: int,
    kinds: Mapping[int, str],
    part_values: Sequence[int] = (),
    depth_bits: int | None = None,
    on_read: Callable[[int, int], object] = lambda done, total: None,
) -> MarkedPictures:
    """Reads `files` and the marks of their defects, resampled to `side_px`.

    - `kinds`: the kind of defect for each mask value. Several values can mean the same kind. If `files` have boxes around defects, the
      kinds of these boxes are added.
    - `part_values`: mask values that mark the casting and not a defect.
    - `on_read`: called after each file with the number of files read so far and the number of all files.

    Files that cannot be used are left out. Defective pictures that have neither a mask nor a box are left out, too.

    Raises ModelError if a mask has a value that is neither in `kinds` nor in `part_values`, or if no defect is left.
    """
    reader = _MarkReader(files, side_px, kinds, part_values, depth_bits)
    for done, file in enumerate(files, 1):
        reader.add(file)
        on_read(done, len(files))
    return reader.finish()


class _MarkReader:
    def __init__(
        self, files: Sequence[MarkedFile], side_px: int, kinds: Mapping[int, str], part_values: Sequence[int], depth_bits: int | None
    ) -> None:
        self._side_px, self._depth_bits, self._limits = side_px, depth_bits, PictureLimits()
        named = [*kinds.values(), *(box.kind for file in files for box in file.boxes)]
        self._kinds = tuple(dict.fromkeys(name for name in named if name))
        self._numbers = np.full(256, BOX_MARK, np.uint8)
        self._numbers[[0, *part_values]] = 0
        for value, name in kinds.items():
            self._numbers[value] = self._kinds.index(name) + 1
        self._read: list[tuple[Path, str, Pixels, Pixels]] = []
        self._rendered = 0
        self._problems: dict[str, list[Path]] = {}

    def add(self, file: MarkedFile) -> None:
        """Reads one picture, and its mask or boxes of defects. If the picture cannot be used, it is left out."""
        if not file.is_good and file.mask_path is None and not file.boxes:
            self._leave_out("defective pictures have neither a mask nor a box", file.path)
            return
        try:
            content = file.path.read_bytes()
            decoded = decode_picture(content, self._side_px, self._limits, self._depth_bits)
            levels = None if file.mask_path is None else read_mask(file.mask_path, self._limits)
        except (PictureError, OSError):
            self._leave_out("pictures or masks cannot be read", file.path)
            return
        size = decoded.width_px, decoded.height_px
        if levels is None:
            marks = _draw_boxes(() if file.is_good else file.boxes, self._kinds, self._side_px, *size)
        elif levels.shape[::-1] != size:
            self._leave_out("masks have another size than their picture", file.path)
            return
        else:
            marks = _reduce_marks(self._read_kinds(levels, file.mask_path), self._side_px)
        if file.is_good == bool(marks.any()):
            self._leave_out("masks contradict the class", file.path)
            return
        self._rendered += is_rendered(content)
        self._read.append((file.path, hashlib.sha256(content).hexdigest(), decoded.pixels, marks))

    def finish(self) -> MarkedPictures:
        """Returns all pictures that were read. Raises ModelError if no defect is marked in any of them, or if no kind has a name."""
        left_out = tuple(
            f"Left out, because {problem}: {len(paths)} ({', '.join(map(str, paths[:_NAMED_FILES]))}"
            f"{', ...' if len(paths) > _NAMED_FILES else ''})."
            for problem, paths in self._problems.items()
        )
        if not any(marks.any() for _, _, _, marks in self._read):
            raise ModelError(
                f"No picture has a marked defect. {' '.join(left_out)} Each mask must have the size of its picture and the same path "
                "below its folder, for example def_front/a.png for def_front/a.jpeg."
            )
        if not self._kinds:
            raise ModelError("No kind of defect has a name. Name each value of the masks, for example with --kind '1=blow hole'.")
        paths, checksums, pixels, marks = zip(*self._read, strict=True)
        return MarkedPictures(np.stack(pixels), np.stack(marks), self._kinds, paths, checksums, left_out, self._rendered)

    def _read_kinds(self, levels: Pixels, path: Path | None) -> Pixels:
        numbers: Pixels = self._numbers[levels]
        unnamed = np.unique(levels[numbers == BOX_MARK]).tolist()
        if unnamed:
            raise ModelError(
                f"The mask {path} contains the value {unnamed[0]}, which has no name. Name the kind of defect, for example with "
                f"--kind '{unnamed[0]}=blow hole'. If the value shows the casting and no defect, give --part-value {unnamed[0]}."
            )
        return numbers

    def _leave_out(self, problem: str, path: Path) -> None:
        self._problems.setdefault(problem, []).append(path)


def _parse_box(row: Mapping[str, str]) -> DefectBox:
    left, top, width, height = (float(row[name]) for name in _BOX_COLUMNS[1:])
    if not (width > 0 and height > 0):
        raise ValueError(f"expected a box with a width and a height above 0, found {width:g} x {height:g} px")
    return DefectBox(left, top, width, height, row.get("kind") or "")


def _parse_data_set_row(row: Mapping[str, str]) -> list[DefectBox]:
    kinds = (row.get("kinds") or "").split(" + ")
    # A reviewer can draw boxes, and can name the kinds of defect of the whole part. If the reviewer has named only one kind, it is the kind
    # of each box that has no kind of its own.
    usual = kinds[0] if len(kinds) == 1 else ""
    return [
        DefectBox(box["left_px"], box["top_px"], box["width_px"], box["height_px"], box.get("kind") or usual)
        for box in json.loads(row["boxes"] or "[]")
    ]


def _reduce_marks(numbers: Pixels, side_px: int) -> Pixels:
    """Reduces a mask to `side_px` rows and columns. Returns for each pixel the number of a kind of defect, or 0.

    A pixel is marked if defects cover more than the share MIN_COVER of the pixel. It gets the number of the kind that covers most of it. If
    no pixel is covered so much, only the pixel with the largest covered share is marked, so that a tiny defect is not lost.
    """
    rows, columns = numbers.shape
    area = find_picture_area(side_px, columns, rows)
    kinds = [int(number) for number in np.unique(numbers) if number]
    result = np.zeros((side_px, side_px), np.uint8)
    if not kinds:
        return result
    size = result[area].shape[::-1]
    covers = np.stack(
        [np.asarray(Image.fromarray((numbers == kind).astype(np.float32)).resize(size, Image.Resampling.BOX)) for kind in kinds]
    )
    total = covers.sum(axis=0)
    is_marked = total > MIN_COVER if (total > MIN_COVER).any() else total == total.max()
    result[area] = np.where(is_marked, np.array(kinds, np.uint8)[covers.argmax(axis=0)], 0)
    return result


def _draw_boxes(boxes: Sequence[DefectBox], kinds: Sequence[str], side_px: int, width_px: int, height_px: int) -> Pixels:
    rows, columns = find_picture_area(side_px, width_px, height_px)
    scale = side_px / max(width_px, height_px)
    result = np.zeros((side_px, side_px), np.uint8)
    for box in boxes:
        x, y = columns.start + box.left_px * scale, rows.start + box.top_px * scale
        first_x, last_x = (min(max(columns.start, edge), columns.stop - 1) for edge in (x, x + box.width_px * scale))
        first_y, last_y = (min(max(rows.start, edge), rows.stop - 1) for edge in (y, y + box.height_px * scale))
        mark = BOX_MARK + (kinds.index(box.kind) + 1 if box.kind else 0)
        result[int(first_y) : int(last_y) + 1, int(first_x) : int(last_x) + 1] = mark
    return result
