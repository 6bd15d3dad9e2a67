"""The tables of uploaded pictures, and the rule that says who is allowed to see an upload."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.db.models import QuerySet

from station.accounts.access import get_rights, may_see_line
from station.configuration import current_settings
from streams.identity import PartId
from streams.topics import TopicNames


class UploadRun(models.Model):
    """The run number in the part ids of all uploads. This database table has exactly one row.

    The run number is the time at which the table was made, so the uploads of two databases never have the same part id.
    """

    number = models.BigIntegerField()

    def __str__(self) -> str:
        return f"run {self.number}"


class Upload(models.Model):
    """An uploaded picture that Kafka has accepted. The primary key is also the part number in the part id."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="uploads")
    run = models.BigIntegerField()
    # The name of the file on the sender's machine. It is shown on pages and never used as a path.
    name = models.CharField(max_length=200)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=40)
    width_px = models.IntegerField()
    height_px = models.IntegerField()
    by_api = models.BooleanField(default=False)
    sent_at = models.DateTimeField()
    image_partition = models.IntegerField(null=True)
    image_offset = models.BigIntegerField(null=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["owner", "-id"], name="upload_owner")]

    # An upload stores no addresses in the object store. The station finds the picture through its record in Kafka, and the heat map
    # through the finding.
    picture = heat_map = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"

    @property
    def line(self) -> str:
        """The name of the line to which all uploaded pictures belong. This line is not a production line."""
        return current_settings().station.upload_line

    @property
    def part_key(self) -> str:
        """The part id as text."""
        return str(self.part_id)

    @property
    def image_topic(self) -> str:
        """The Kafka topic that holds the picture."""
        return TopicNames(current_settings().topics.prefix).images(self.line)

    @property
    def part_id(self) -> PartId:
        """The part id of the uploaded picture in Kafka records. It consists of the line of uploads, the run, and the primary key."""
        return PartId(self.line, self.run, self.pk)


def uploads_visible_to(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Upload]:
    """Returns the uploads that `user` is allowed to see: all uploads for an administrator, otherwise the user's own uploads."""
    if "administer" in get_rights(user):
        return Upload.objects.all()
    return Upload.objects.filter(owner_id=user.pk) if user.pk is not None else Upload.objects.none()


def may_see_part(user: AbstractBaseUser | AnonymousUser, line: str, run: int, part: int) -> bool:
    """Returns whether `user` is allowed to see a part.

    Every user sees the parts of the plant's lines. Only the owner and administrators see an uploaded picture.
    """
    if may_see_line(user, line):
        return True
    try:
        return uploads_visible_to(user).filter(pk=part, run=run).exists()
    except OverflowError:  # The database stores no number of more than 64 bits, so there is no part with this number.
        return False
