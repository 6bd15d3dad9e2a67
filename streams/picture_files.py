"""Says which files in a folder are pictures, and which ones were added by a NAS device, an operating system or an archive program."""

from __future__ import annotations

JUDGED_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
# Suffixes of picture formats that Castline cannot judge. Such files are reported, because a person may expect a verdict.
OTHER_PICTURE_SUFFIXES = (
    ".gif",
    ".webp",
    ".jp2",
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".jfif",
    ".jpe",
    ".dib",
    ".raw",
    ".dng",
    ".pgm",
    ".ppm",
)
# The names of folders in which NAS devices and operating systems keep internal data, in lower case.
_FOREIGN_FOLDERS = frozenset({"@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"})


def is_foreign(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden (`._x.jpg`) or holds internal data of a device (`@eaDir`)."""
    return name.startswith(".") or name.lower() in _FOREIGN_FOLDERS
