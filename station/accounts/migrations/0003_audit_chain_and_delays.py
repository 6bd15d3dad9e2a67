"""Ends and scopes of API tokens, the chain of the audit log, and the delays after wrong passwords."""

import hashlib
import json
from datetime import UTC

import django.utils.timezone
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def chain_entries(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Puts the entries of release 0.1.0 into the chain, in the order in which they were written."""
    entries = apps.get_model("accounts", "AuditEntry")._default_manager.using(schema_editor.connection.alias)
    previous = ""
    for entry in entries.order_by("id").iterator(1000):
        record = {
            "at": entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "who": entry.who,
            "action": entry.action,
            "subject": entry.subject,
            "detail": entry.detail,
            "address": "",
        }
        content = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        previous = hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()
        entries.filter(pk=entry.pk).update(sha256=previous)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_roles")]

    operations = [
        migrations.AddField("apitoken", "expires_at", models.DateTimeField(null=True)),
        migrations.AddField(
            "apitoken",
            "scope",
            models.CharField(choices=[("inspect", "inspect"), ("read", "read")], default="inspect", max_length=16),
        ),
        migrations.AlterField("auditentry", "at", models.DateTimeField(default=django.utils.timezone.now)),
        migrations.AddField("auditentry", "address", models.CharField(blank=True, default="", max_length=45)),
        migrations.AddField("auditentry", "sha256", models.CharField(blank=True, default="", max_length=64)),
        migrations.CreateModel(
            name="AuditShipment",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("shipped", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="LogInDelay",
            fields=[
                ("key", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("failed_at", models.DateTimeField()),
            ],
            options={"indexes": [models.Index(fields=["failed_at"], name="log_in_delay_failed_at")]},
        ),
        migrations.RunPython(chain_entries, migrations.RunPython.noop),
    ]
