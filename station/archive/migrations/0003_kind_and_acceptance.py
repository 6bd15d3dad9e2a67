"""Columns for the type of defect that a verdict names, and for the result of an acceptance table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("archive", "0002_history_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="part",
            name="acceptance",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AddField(
            model_name="part",
            name="verdict_kind",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
    ]
