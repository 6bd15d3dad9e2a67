"""The comment in the file of each picture that Castline has rendered. A training run recognises rendered pictures by this comment."""

from __future__ import annotations

# The renderer writes this text as the comment of each JPEG file. A program that saves the picture again may drop the comment.
RENDERED_COMMENT = b"Rendered by Castline"
# Only this many bytes of a JPEG file are searched for the comment, because a comment stands before the compressed pixels.
_SEARCHED_BYTES = 4096


def is_rendered(content: bytes) -> bool:
    """Returns whether `content`, the bytes of a picture file, contains the comment of a rendered picture."""
    return RENDERED_COMMENT in content[:_SEARCHED_BYTES]
