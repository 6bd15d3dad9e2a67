"""Migrations of the tables of station.uploads, in order."""
