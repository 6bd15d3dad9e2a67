"""Attribute agreement studies: several people label the same parts several times, and the station measures how well they agree."""
