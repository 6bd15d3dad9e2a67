"""The tables of golden parts: the golden parts of each line, and a row for each time that one of them passed the camera."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class GoldenPart(models.Model):
    """A part whose right verdict is known. People put the part on the belt of its line once in each shift.

    `sha256` is the checksum of its picture, by which the station recognises the golden part. If `sha256` is empty, a person enters the
    part id each time.
    """

    line = models.CharField(max_length=40)
    name = models.CharField(max_length=64)
    label = models.CharField(max_length=8)
    sha256 = models.CharField(max_length=64, blank=True, default="")
    made_by = models.CharField(max_length=150)
    made_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["line", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["line", "name"], condition=models.Q(retired_at=None), name="golden_part_name"),
        ]

    def __str__(self) -> str:
        return f"{self.line}: {self.name}"


class GoldenCheck(models.Model):
    """One pass of a golden part over the belt, with the part id and the verdict of this pass.

    `label` is empty until the verdict is in the archive. `shown_by` is the person who entered the part id, or "" if the station
    recognised the golden part by its picture.
    """

    golden = models.ForeignKey(GoldenPart, on_delete=models.CASCADE, related_name="checks")
    line = models.CharField(max_length=40)
    run = models.BigIntegerField()
    part = models.BigIntegerField()
    label = models.CharField(max_length=8, blank=True, default="")
    model = models.CharField(max_length=64, blank=True, default="")
    shown_by = models.CharField(max_length=150, blank=True, default="")
    at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["golden", "run", "part"], name="golden_check_once")]
        indexes: ClassVar = [models.Index(fields=["line", "run", "part"], name="golden_check_part", condition=models.Q(label=""))]

    def __str__(self) -> str:
        return f"{self.golden}: {self.line}:{self.run}:{self.part} is {self.label or 'not judged'}"

    @property
    def is_right(self) -> bool:
        """Whether the verdict equals the right verdict of the golden part."""
        return self.label == self.golden.label
