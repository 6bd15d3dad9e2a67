"""Makes one HTML page of the pictures of a camera trial. The page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from html import escape

from deploy.camera_trial.camera_trial import TriedPicture

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --bad: #b3261e; --good: #1b6e3c; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #7bd8a0; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
.sum { margin: .25rem 0 1.5rem; }
.bad { color: var(--bad); } .good { color: var(--good); }
.notes { border-left: 4px solid var(--line); margin: 0 0 1.5rem; padding: .25rem 1rem .25rem 2rem; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); list-style: none; margin: 0; padding: 0; }
.card { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.card.refused { border: 2px solid var(--bad); }
.view { align-items: center; aspect-ratio: 4 / 3; background: var(--soft); display: flex; justify-content: center; }
.view img { height: 100%; object-fit: contain; width: 100%; }
.card h2 { font-size: 1rem; margin: .75rem 1rem .25rem; }
.card p { margin: .25rem 1rem .75rem; }
dl { display: grid; gap: .1rem 1rem; grid-template-columns: auto 1fr; margin: .5rem 1rem .75rem; }
dt { opacity: .75; } dd { font-variant-numeric: tabular-nums; margin: 0; overflow-wrap: anywhere; text-align: right; }
.bar { background: linear-gradient(90deg, #000, #fff); border: 1px solid var(--line); height: .75rem; margin: .5rem 1rem 1rem; }
.bar { position: relative; }
.bar i { background: #e0457b; bottom: -4px; position: absolute; top: -4px; width: 3px; }
.bar b { border: 2px solid #e0457b; bottom: -2px; position: absolute; top: -2px; }
"""


def make_page(line: str, source: str, pictures: Sequence[TriedPicture], notes: Sequence[str], tried_at: datetime) -> str:
    """Returns the HTML page. `source` describes where the pictures come from. `notes` are sentences about problems of the pictures."""
    refused = sum(bool(picture.refusal) for picture in pictures)
    verdict = f'<span class="bad">{refused} would be refused</span>' if refused else '<span class="good">all would be judged</span>'
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    cards = "".join(_make_card(picture) for picture in pictures)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Camera of {escape(line)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>Camera of {escape(line)}</h1><p class="sum">{len(pictures)} pictures from {escape(source)}, {tried_at:%Y-%m-%d %H:%M} UTC: '
        f"{verdict}.</p>" + (f'<ul class="notes">{listed}</ul>' if notes else "") + f'<ol class="grid">{cards}</ol></main></body></html>\n'
    )


def _make_card(picture: TriedPicture) -> str:
    if picture.refusal:
        return (
            f'<li class="card refused"><div class="view">no picture</div><h2>Picture {picture.number}: refused</h2>'
            f'<p class="bad">{escape(picture.refusal)}</p>{_make_facts(picture)}</li>'
        )
    image = base64.b64encode(picture.thumbnail).decode()
    return (
        f'<li class="card"><div class="view"><img alt="Picture {picture.number}" src="data:image/jpeg;base64,{image}"></div>'
        f"<h2>Picture {picture.number}</h2>{_make_facts(picture)}{_make_brightness(picture)}</li>"
    )


def _make_facts(picture: TriedPicture) -> str:
    facts = {"File": picture.name} if picture.name else {}
    facts["Length"] = f"{picture.size_bytes:,} bytes"
    if picture.content_type:
        facts["Format"] = picture.content_type.removeprefix("image/").upper()
    if picture.width_px is not None:
        facts["Size"] = f"{picture.width_px} × {picture.height_px} px"
        facts["Mode"] = f"{picture.mode}, {picture.depth_bits} bits a sample"
    facts["Time offset"] = "unknown, because the file is older than the trial" if picture.offset_s is None else f"{picture.offset_s:+.2f} s"
    if picture.mean is not None:
        facts["Brightness"] = f"{picture.darkest} … {picture.brightest}, mean {picture.mean:.0f}"
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()) + "</dl>"


def _make_brightness(picture: TriedPicture) -> str:
    """Returns an HTML bar from black to white with marks for the darkest, the mean and the brightest grey level of the picture."""
    assert picture.mean is not None
    assert picture.darkest is not None
    assert picture.brightest is not None
    left, width, mean = (100 * level / 255 for level in (picture.darkest, picture.brightest - picture.darkest, picture.mean))
    label = f"Grey levels from {picture.darkest} to {picture.brightest}, mean {picture.mean:.0f}, of 255"
    return (
        f'<div class="bar" role="img" aria-label="{label}"><b style="left:{left:.1f}%;width:{width:.1f}%"></b>'
        f'<i style="left:{mean:.1f}%"></i></div>'
    )
