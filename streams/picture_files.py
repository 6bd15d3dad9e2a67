"""Which files of a folder are pictures, and which ones NAS devices, operating systems and archives put beside them."""

from __future__ import annotations

# Suffixes of the formats that are judged, in lower case: JPEG, PNG, BMP and TIFF.
JUDGED_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
# Suffixes of other picture formats. Their files are named with their number, so that nobody misses them unknowingly.
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
# Folders in which NAS devices and computers keep data of their own, in lower case: Synology, macOS, QNAP, Windows, ext4.
_FOREIGN_FOLDERS = frozenset({"@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"})


def is_foreign(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden or belongs to the device that holds it, like `@eaDir` and `._x.jpg`."""
    return name.startswith(".") or name.lower() in _FOREIGN_FOLDERS
