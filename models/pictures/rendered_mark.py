"""The mark in the files of rendered castings. It shows a training run that a picture is no photograph."""

from __future__ import annotations

# The renderer writes this text as the comment of each JPEG file. A program that saves the picture again may drop the comment.
RENDERED_COMMENT = b"Rendered by Castline"
# The comment stands in front of the compressed picture, in the first bytes of the file.
_SEARCHED_BYTES = 4096


def is_rendered(content: bytes) -> bool:
    """Returns whether `content`, a picture file, has the mark of a rendered casting."""
    return RENDERED_COMMENT in content[:_SEARCHED_BYTES]
