"""A table that holds the time at which the archivist's clock was last right."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("archive", "0005_heat_map_index"),
    ]

    operations = [
        migrations.CreateModel(
            name="RetentionState",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("clock_right_at", models.DateTimeField()),
            ],
        ),
    ]
