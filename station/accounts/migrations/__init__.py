"""Migrations of the tables of station.accounts, in order."""
