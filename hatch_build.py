"""Adds the built firmware of the board, with its checksum, to each wheel and each source archive."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


class FirmwareBuildHook(BuildHookInterface):
    """Builds the firmware with avr-gcc. If a wheel is built from a source archive, the firmware in the archive is used instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the firmware and its checksum to the package. If avr-gcc is missing, shows a warning and adds nothing."""
        if version == "editable":
            return
        sys.path.insert(0, str(ROOT))
        from firmware import hex_image, toolchain

        image = hex_image.SHIPPED
        if not image.exists():
            if missing := toolchain.missing_packages(toolchain.AVR_PACKAGES):
                self.app.display_warning(
                    f"The firmware of the board is left out, because these Debian packages are missing: {', '.join(missing)}."
                )
                return
            built = toolchain.build_hex_image()
            image = built.with_name(image.name)
            image.write_bytes(built.read_bytes())
            hex_image.write_checksum(image)
        for file in (image, hex_image.checksum_file(image)):
            build_data["force_include"][str(file)] = f"firmware/shipped/{file.name}"
