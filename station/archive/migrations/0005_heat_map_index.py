"""An index that finds the parts with a given heat map, because two parts can share one."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("archive", "0004_confirmed"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="part",
            index=models.Index(fields=["heat_map"], name="part_heat_map", condition=~models.Q(heat_map="")),
        ),
    ]
