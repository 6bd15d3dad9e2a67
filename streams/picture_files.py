"""Finds the pictures in a folder, and skips the files that NAS devices, operating systems and archive programs add to the folder."""

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
# Folders for internal data of NAS devices and computers, in lower case: Synology, macOS, QNAP, Windows, ext4.
_FOREIGN_FOLDERS = frozenset({"@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"})


def is_foreign(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden (`._x.jpg`) or holds internal data of a device (`@eaDir`)."""
    return name.startswith(".") or name.lower() in _FOREIGN_FOLDERS
