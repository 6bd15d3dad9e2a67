"""Migrations of the tables of station.archive, in order."""
