"""The four roles, as Django's groups."""

from __future__ import annotations

from typing import ClassVar

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# The roles at the time of this migration. A later change of the roles needs a migration of its own.
_ROLES = ("operator", "reviewer", "engineer", "administrator")


def make_roles(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Makes what is missing of them."""
    groups = apps.get_model("auth", "Group")._default_manager.using(schema_editor.connection.alias)
    for name in _ROLES:
        groups.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies: ClassVar = [("accounts", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length")]
    operations: ClassVar = [migrations.RunPython(make_roles, migrations.RunPython.noop)]
