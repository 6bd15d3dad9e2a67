"""The tables of the agreement studies: the study, its parts, its people, and their answers."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models


class Study(models.Model):
    """An agreement study. Each person labels all parts `rounds` times, each time in another random order.

    A study is closed when `closed_at` is set. A closed study takes no more answers.
    """

    name = models.CharField(max_length=64, unique=True)
    line = models.CharField(max_length=40)
    rounds = models.PositiveSmallIntegerField()
    # The random order of the parts is computed from this number. So a person who pauses continues in the same order.
    seed = models.BigIntegerField()
    people = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="+")
    made_by = models.CharField(max_length=150)
    made_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-made_at"]

    def __str__(self) -> str:
        return self.name


class StudyPart(models.Model):
    """A part of a study, with the verdict that it had when the study was made.

    The study has its own copy of the picture in the object store, because the archive deletes old pictures.
    """

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="parts")
    number = models.PositiveIntegerField()
    part = models.CharField(max_length=80)
    line = models.CharField(max_length=40)
    picture = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64)
    model = models.CharField(max_length=64, blank=True, default="")
    model_label = models.CharField(max_length=8, blank=True, default="")

    # The picture is not read from Kafka, because a study has its own copy in the object store. So these fields are empty.
    image_topic = ""
    image_partition = None
    image_offset = None

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["study", "number"], name="study_part_number")]

    def __str__(self) -> str:
        return f"{self.study}: {self.part}"

    @property
    def part_key(self) -> str:
        """The part id as text."""
        return self.part


class StudyAnswer(models.Model):
    """The label that one person gave one part in one round."""

    part = models.ForeignKey(StudyPart, on_delete=models.CASCADE, related_name="answers")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    round = models.PositiveSmallIntegerField()
    label = models.CharField(max_length=8)
    at = models.DateTimeField()

    class Meta:
        # A person has at most one answer for a part and a round. So a second click stores no second answer.
        constraints: ClassVar = [models.UniqueConstraint(fields=["part", "person", "round"], name="study_answer_once")]

    def __str__(self) -> str:
        return f"{self.person}: {self.part} is {self.label}"
