"""A column that says whether the eye in the reject chute saw a diverted part."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("archive", "0003_kind_and_acceptance"),
    ]

    operations = [
        migrations.AddField(
            model_name="part",
            name="confirmed",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
    ]
