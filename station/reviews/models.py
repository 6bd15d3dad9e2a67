"""The tables of the review: parts that a person should look at, decisions of people, and data sets made of reviewed parts."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from station.archive.models import Part


class Candidate(models.Model):
    """An entry of the review queue: a part that a person should review, reserved for `leased_by` until `leased_until`.

    `state` says which person has to decide next: `open` stands for the first person, `second` for the second, and `third` for the third.
    `settled` means that nobody has to decide.
    """

    part = models.OneToOneField(Part, on_delete=models.CASCADE, related_name="candidate")
    score = models.FloatField()
    why = models.CharField(max_length=400)
    audit = models.BooleanField(default=False)
    state = models.CharField(max_length=8, default="open")
    since = models.DateTimeField()
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
    """A person's decision about a part: `ok`, `defect` or `skip`. If the decision is undone, `undone_at` says when."""

    part = models.ForeignKey(Part, on_delete=models.CASCADE, related_name="decisions")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    label = models.CharField(max_length=8)
    kinds = models.JSONField(default=list)
    boxes = models.JSONField(default=list)
    model_label = models.CharField(max_length=8, blank=True, default="")
    audit = models.BooleanField(default=False)
    at = models.DateTimeField()
    undone_at = models.DateTimeField(null=True)
    # Offset on the topic `castings.reviews`. Null for a skip, because no record is sent.
    sent_offset = models.BigIntegerField(null=True)

    class Meta:
        constraints: ClassVar = [
            # A person has at most one valid decision about a part. So a second click stores no second decision.
            models.UniqueConstraint(fields=["part", "reviewer"], condition=models.Q(undone_at=None), name="decision_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["at"], name="decision_at"),
            models.Index(fields=["reviewer", "at"], name="decision_reviewer_at"),
        ]

    def __str__(self) -> str:
        return f"{self.reviewer}: {self.part} is {self.label}"


class DataSet(models.Model):
    """A folder of reviewed parts that `castline train --data` reads. Each data set has its own number and never changes."""

    number = models.PositiveIntegerField(unique=True)
    name = models.CharField(max_length=80, unique=True)
    made_at = models.DateTimeField()
    made_by = models.CharField(max_length=150)
    selection = models.JSONField(default=dict)
    counts = models.JSONField(default=dict)
    # The number of parts without a usable picture, by reason, such as a deleted picture. The data set does not contain these parts.
    left_out = models.JSONField(default=dict)
    fingerprint = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar = ["-number"]

    def __str__(self) -> str:
        return self.name
