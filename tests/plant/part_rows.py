"""Reads the rows of parts with the databases' own clients."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

PartRow = dict[str, Any]


def read_part_rows(database: str) -> list[PartRow]:
    """Returns the rows of all parts in the order of their ids, or none if the table does not exist yet."""
    query = "SELECT * FROM archive_part ORDER BY line, run, part"
    if database.startswith("postgresql://"):
        try:
            with psycopg.connect(database) as connection, connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
                return cursor.execute(query).fetchall()
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return []
    reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)
    reader.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in reader.execute(query)]
    except sqlite3.OperationalError:
        return []
    finally:
        reader.close()


def count_part_rows(database: Path) -> Counter[tuple[str, str]]:
    """Returns the number of parts in an SQLite database for each line and label, without parts that have no verdict yet."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as reader:
        rows = reader.execute("SELECT line, label, COUNT(*) FROM archive_part WHERE label != '' GROUP BY line, label").fetchall()
    return Counter({(line, label): count for line, label, count in rows})
