"""Rows of the table of uploads for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from django.contrib.auth.models import User

from station.uploads.models import Upload, UploadRun


def make_upload(owner: User, **fields: object) -> Upload:
    """Makes the row of an uploaded picture that waits for its verdict. `fields` override the columns."""
    columns: dict[str, object] = {"run": UploadRun.objects.get().number, "name": "a.jpeg", "size": 1000, "sha256": "0" * 64}
    columns |= {"width_px": 120, "height_px": 120, "content_type": "image/jpeg", "sent_at": datetime.now(UTC)}
    return Upload.objects.create(owner=owner, **{**columns, **fields})
