"""The command `castline gateway measure`: measures the latency of a camera, which is the time from photo-eye 1 to the picture."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any

import click

from agents.gateway.latency import LatencyEstimate, estimate_from_newest
from streams.errors import CastlineError, SettingsError
from streams.gateway_token import read_gateway_token
from streams.settings import Settings, load_settings

_POLL_INTERVAL_S = 1.0
_TIMEOUT_S = 10.0


@click.command("measure")
@click.argument("line")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=120,
    show_default=True,
    help="Stop after this many seconds, even if the latency is not certain yet.",
)
@click.option("--dry-run", is_flag=True, help="Measure, but do not store the latency.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def command(file: Path | None, line: str, seconds: float, dry_run: bool, as_json: bool) -> int:
    """Measure the latency of the camera of LINE, and store it in the running gateway.

    The latency is the time from the count of a part at photo-eye 1 to the time of its picture. The gateway uses the stored latency from now
    on, but a latency in the settings (lines.camera.latency_s) takes precedence.

    If all parts come at equal intervals, the command cannot tell which picture belongs to which part. In this case, hold one part back for
    half an interval.

    The command logs in to the gateway with gateway.token from the settings.

    Exit codes: 0 measured, 1 not certain within --seconds, 3 no gateway answers, or LINE needs no latency.
    """
    settings = load_settings(file)
    endpoint = _LatencyEndpoint(settings, line)
    estimate, report = _wait_for_estimate(endpoint, line, seconds)
    is_stored = estimate.is_certain and not dry_run
    if is_stored:
        report = endpoint.store(estimate)
    if as_json:
        result = {"line": line, **asdict(estimate), "is_certain": estimate.is_certain, "is_stored": is_stored}
        click.echo(json.dumps({**result, "latency_in_use_s": report["latency_s"], "source": report["source"]}))
    elif estimate.is_certain:
        click.echo(_describe(line, estimate))
        click.echo(_describe_use(line, estimate, report, is_stored))
    else:
        click.echo(f"{line}: no latency was measured within {seconds:g} s: {estimate.problem}. {_advise(estimate)}", err=True)
    return 0 if estimate.is_certain else 1


def _wait_for_estimate(endpoint: _LatencyEndpoint, line: str, seconds: float) -> tuple[LatencyEstimate, dict[str, Any]]:
    """Asks the gateway every second until the estimate of the latency is certain, but for at most `seconds`. Shows the progress."""
    end_s = time.monotonic() + seconds
    shown = ""
    while True:
        report = endpoint.read()
        estimate = estimate_from_newest(report["part_times"], report["picture_times"])
        if estimate.is_certain or time.monotonic() >= end_s:
            return estimate, report
        progress = (
            f"{line}: {len(report['part_times'])} parts, {len(report['picture_times'])} pictures: {estimate.problem}. {_advise(estimate)}"
        )
        if progress != shown:
            click.echo(progress, err=True)
            shown = progress
        time.sleep(min(_POLL_INTERVAL_S, max(0.0, end_s - time.monotonic())))


def _advise(estimate: LatencyEstimate) -> str:
    if estimate.rival_s is not None:
        return "Hold one part back for half of the usual time between two parts."
    if estimate.spacing_s:
        return "Check that the board and the camera belong to this line, and that the camera takes one picture of each part."
    return "Let parts pass."


def _describe(line: str, estimate: LatencyEstimate) -> str:
    if estimate.rival_s is None:
        certainty = "No other latency fits the pictures."
    elif not estimate.supporting_count:
        certainty = f"With the next best latency of {estimate.rival_s:.3f} s, the pictures are clearly further from their parts."
    else:
        speaking = "1 picture speaks" if estimate.supporting_count == 1 else f"{estimate.supporting_count} pictures speak"
        certainty = f"{speaking} against the next best latency of {estimate.rival_s:.3f} s."
    return (
        f"{line}: latency {estimate.latency_s:.3f} s from {estimate.picture_count} pictures. Nine of ten pictures are within "
        f"{estimate.spread_s:.3f} s of their part. The spacing of the parts is {estimate.spacing_s:.3f} s. {certainty}"
    )


def _describe_use(line: str, estimate: LatencyEstimate, report: dict[str, Any], is_stored: bool) -> str:
    if report["source"] == "settings":
        return (
            f"The settings hold lines.camera.latency_s = {report['latency_s']:g} for {line}. The gateway uses this value. "
            f"Set it to {estimate.latency_s:.3f}, or delete it to use the measured latency, and restart the gateway."
        )
    return "The gateway has stored the latency and uses it now." if is_stored else "The latency was not stored, because of --dry-run."


class _LatencyEndpoint:
    def __init__(self, settings: Settings, line: str) -> None:
        """Raises SettingsError if the settings have no line `line`, or if its camera needs no latency."""
        camera = settings.find_line(line).camera
        if camera is None or not camera.needs_latency:
            raise SettingsError(
                f"The camera of {line} needs no latency, so there is nothing to measure. Cameras need a latency only if "
                "lines.camera.trigger is board and lines.camera.kind is drop or http."
            )
        self._address = f"{_find_gateway(settings, line)}/lines/{line}/latency"
        self._headers = {"Authorization": f"Bearer {read_gateway_token(settings).get_secret_value()}", "Content-Type": "application/json"}

    def read(self) -> dict[str, Any]:
        """Returns the present latency, and the times at which the last parts were counted and the last pictures were taken.

        Raises CastlineError if the gateway does not answer or refuses the request.
        """
        return self._request("GET", None)

    def store(self, estimate: LatencyEstimate) -> dict[str, Any]:
        """Stores a measured latency in the gateway, and returns the same fields as `read`."""
        return self._request("PUT", {"latency_s": estimate.latency_s, "spacing_s": estimate.spacing_s})

    def _request(self, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address, content, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")[:300]
            raise CastlineError(f"The gateway at {self._address} refused the request with HTTP status {error.code}: {text}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise CastlineError(
                f'No gateway answers at {self._address}: {error}. Start the gateway with "castline gateway" or "castline up", '
                "because the latency is measured while the gateway runs and parts pass."
            ) from None


def _find_gateway(settings: Settings, line: str) -> str:
    """Returns the address of the gateway. If the gateway chose a free port, a file in service.run_dir names its address."""
    if gateway_url := settings.sorter.gateway_url.get_secret_value():
        return gateway_url.rstrip("/")
    file = settings.service.run_dir / "gateways" / line
    if not settings.gateway.port and file.exists():
        return file.read_text(encoding="utf-8").strip()
    return f"http://{settings.gateway.host}:{settings.gateway.port}"
