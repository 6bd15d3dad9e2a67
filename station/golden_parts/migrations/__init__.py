"""Migrations of the tables of station.golden_parts, in order."""
