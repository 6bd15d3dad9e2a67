"""The run of this database's uploads."""

from __future__ import annotations

import time

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def number(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Once a database."""
    apps.get_model("uploads", "UploadRun").objects.create(number=int(time.time()))


class Migration(migrations.Migration):
    dependencies = [("uploads", "0001_initial")]

    operations = [migrations.RunPython(number, migrations.RunPython.noop)]
