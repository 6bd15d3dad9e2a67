"""Parts that people are asked about, what they decided, and the data sets made of it."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from station.archive.models import Part


class Candidate(models.Model):
    """A part that a person should look at, since the archive knows of it; `state` says who is asked next.

    One person has it before them at a time: `leased_by`, until `leased_until`.
    """

    part = models.OneToOneField(Part, on_delete=models.CASCADE, related_name="candidate")
    score = models.FloatField()
    why = models.CharField(max_length=400)
    audit = models.BooleanField(default=False)
    state = models.CharField(max_length=8, default="open")  # opinions.State
    since = models.DateTimeField()  # when its waiting began: the part was seen, or the last opinion came
    leased_by = models.CharField(max_length=150, blank=True, default="")
    leased_until = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["state", "score", "id"], name="candidate_next"),
            models.Index(fields=["state", "since"], name="candidate_oldest"),
        ]

    def __str__(self) -> str:
        return f"{self.part}: {self.why}"


class Decision(models.Model):
    """What one person decided about one part: `ok`, `defect` or `skip`. Taken back, it stays and is marked `undone_at`."""

    part = models.ForeignKey(Part, on_delete=models.CASCADE, related_name="decisions")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    label = models.CharField(max_length=8)
    kinds = models.JSONField(default=list)
    boxes = models.JSONField(default=list)
    model_label = models.CharField(max_length=8, blank=True, default="")  # what the verdict said when the person decided
    audit = models.BooleanField(default=False)
    at = models.DateTimeField()
    undone_at = models.DateTimeField(null=True)
    sent_offset = models.BigIntegerField(null=True)  # of the record on `castings.reviews`; a skip sends none

    class Meta:
        constraints: ClassVar = [
            # Two clicks of one person are one decision.
            models.UniqueConstraint(fields=["part", "reviewer"], condition=models.Q(undone_at=None), name="decision_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["at"], name="decision_at"),
            models.Index(fields=["reviewer", "at"], name="decision_reviewer_at"),
        ]

    def __str__(self) -> str:
        return f"{self.reviewer}: {self.part} is {self.label}"


class DataSet(models.Model):
    """A folder of reviewed parts that `castline train --data` takes. Its number is never used again; its files are never changed."""

    number = models.PositiveIntegerField(unique=True)
    name = models.CharField(max_length=80, unique=True)
    made_at = models.DateTimeField()
    made_by = models.CharField(max_length=150)
    selection = models.JSONField(default=dict)
    counts = models.JSONField(default=dict)  # pictures by class
    left_out = models.JSONField(default=dict)  # parts by reason
    fingerprint = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar = ["-number"]

    def __str__(self) -> str:
        return self.name
