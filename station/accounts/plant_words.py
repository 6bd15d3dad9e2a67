"""Refuses passwords that consist mostly of words of the plant, because an attacker tries these words first."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError

from station.accounts.access import ROLES
from station.configuration import current_settings

# At least 8 characters of a password must be left after all words of the plant are removed from it.
MIN_OTHER_CHARACTERS = 8
_SHORTEST_WORD = 3


def list_plant_words() -> list[str]:
    """Returns the words of the plant in lower case, the longest word first.

    The words are Castline, station, and the names of the site, of the machine, of the lines and of the roles.
    """
    settings = current_settings()
    names = ("castline", "station", settings.service.site, settings.service.machine, *(line.name for line in settings.lines), *ROLES)
    return sorted({name.casefold() for name in names if len(name) >= _SHORTEST_WORD}, key=lambda word: (-len(word), word))


class PlantWordValidator:
    """Refuses a password that consists mostly of words of the plant. Django finds this class in AUTH_PASSWORD_VALIDATORS."""

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        rest = password.casefold()
        for word in list_plant_words():
            rest = rest.replace(word, "")
        if len(rest) < min(MIN_OTHER_CHARACTERS, len(password)):
            raise ValidationError(
                f"The password consists mostly of words of this plant. Add {MIN_OTHER_CHARACTERS} or more other characters."
            )

    def get_help_text(self) -> str:
        return f"Besides names of this plant, the password must have at least {MIN_OTHER_CHARACTERS} characters."
