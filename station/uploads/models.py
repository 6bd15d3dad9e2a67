"""The tables of uploads: who sent which file, under which part."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from station.configuration import castline
from streams.topics import TopicNames


class UploadRun(models.Model):
    """One row: the run that this database's uploads are numbered within, in seconds when its tables were made.

    Another database, made later, has another run, so that no part's number is ever used twice.
    """

    number = models.BigIntegerField()

    def __str__(self) -> str:
        return f"run {self.number}"


class Upload(models.Model):
    """A picture that Kafka has taken. Its key is the part's number within the run."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="uploads")
    run = models.BigIntegerField()
    # As the sender called it: text for a page, never a path.
    name = models.CharField(max_length=200)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=40)
    width_px = models.IntegerField()
    height_px = models.IntegerField()
    by_api = models.BooleanField(default=False)
    sent_at = models.DateTimeField()
    # Where its record lies, so that its picture is shown before there is a verdict.
    image_partition = models.IntegerField(null=True)
    image_offset = models.BigIntegerField(null=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["owner", "-id"], name="upload_owner")]

    # What `station.live.pictures.Placed` wants to know beside the columns.
    picture = heat_map = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"

    @property
    def line(self) -> str:
        return castline().station.upload_line

    @property
    def image_topic(self) -> str:
        return TopicNames(castline().topics.prefix).images(self.line)
