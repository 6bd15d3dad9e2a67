"""What bytes are by their first few, whatever the camera calls them. Nothing is decoded."""

from __future__ import annotations

UNKNOWN = "application/octet-stream"

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def sniff(value: bytes) -> str:
    """The content type that the first bytes tell; `application/octet-stream` for none that we know."""
    for magic, content_type in _MAGIC:
        if value.startswith(magic):
            return content_type
    if value[:4] == b"RIFF" and value[8:12] == b"WEBP":
        return "image/webp"
    return UNKNOWN
