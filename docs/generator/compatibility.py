"""What a change of a schema breaks. Within a version, a record may gain optional fields and nothing else may change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
# Words for people: they may be put better at any time.
_WORDING = frozenset({"title", "description", "examples", "$comment", "$schema", "$id", "$defs"})


def breaks(released: Path, published: Mapping[str, Schema]) -> list[str]:
    """A sentence for each promise of a released schema (`released/<release>/<name>.schema.json`) that `published` breaks."""
    found = []
    for file in sorted(released.glob("*/*.schema.json")):
        name, kept = file.name.removesuffix(".schema.json"), json.loads(file.read_text(encoding="utf-8"))
        if name not in published:
            found.append(f"{name} of release {file.parent.name}: expected to be published, found no such record")
            continue
        found += [f"{name} of release {file.parent.name}: {sentence}" for sentence in changes(kept, published[name])]
    return found


def changes(old: Schema, new: Schema) -> list[str]:
    """A sentence for each way in which `new` is more than `old` with optional fields added; empty when it is not."""
    return list(_changes(old, new, old, new, ""))


def _changes(old: Schema, new: Schema, old_whole: Schema, new_whole: Schema, place: str) -> Iterator[str]:
    old, new = _resolved(old, old_whole), _resolved(new, new_whole)
    here = place or "the record"
    for name in sorted((old.keys() | new.keys()) - _WORDING - {"properties", "required"}):
        yield from _of_word(name, old.get(name), new.get(name), old_whole, new_whole, place)
    if set(old.get("required", ())) != set(new.get("required", ())):
        yield f"{here}: expected required {sorted(old.get('required', ()))}, found {sorted(new.get('required', ()))}"
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, was in before.items():
        field = f"{place}.{name}".lstrip(".")
        if name not in after:
            yield f"{field}: expected the field to stay, it is gone"
        else:
            yield from _changes(was, after[name], old_whole, new_whole, field)


def _of_word(name: str, was: Any, now: Any, old_whole: Schema, new_whole: Schema, place: str) -> Iterator[str]:
    here = place or "the record"
    if name in ("anyOf", "prefixItems") and isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for one, other in zip(was, now, strict=True):
            yield from _changes(one, other, old_whole, new_whole, place)
    elif name in ("items", "additionalProperties") and isinstance(was, dict) and isinstance(now, dict):
        yield from _changes(was, now, old_whole, new_whole, f"{place}[]")
    elif was != now:
        yield f"{here}: expected {name} {json.dumps(was)}, found {json.dumps(now)}"


def _resolved(schema: Schema, whole: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    target: Schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
