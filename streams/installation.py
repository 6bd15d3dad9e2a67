"""Computes the fingerprint of an installation, which tells two machines with the same name apart."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_NETWORK_CARDS = Path("/sys/class/net")
_NO_ADDRESS = "00:00:00:00:00:00"


@cache
def installation_fingerprint(run_dir: Path) -> str:
    """Returns eight hexadecimal digits that identify this machine together with the folder `run_dir`. A restart does not change them.

    The digits depend on the addresses of the network cards, because the disk of a machine is sometimes copied to another machine.
    """
    content = "\n".join([*_hardware_addresses(), str(run_dir.resolve())])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _hardware_addresses() -> list[str]:
    """Returns the addresses of the network cards, sorted. Returns those of virtual cards if there is no real card, as in a container."""
    cards = sorted(_NETWORK_CARDS.glob("*"))
    real = [card for card in cards if (card / "device").exists()]
    addresses = {_read_address(card) for card in real or cards}
    return sorted(addresses - {"", _NO_ADDRESS})


def _read_address(card: Path) -> str:
    try:
        return (card / "address").read_text().strip()
    except OSError:
        return ""
