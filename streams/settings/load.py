"""Reads the settings from the file `castline.toml` and from environment variables. Refuses unknown names and wrong values."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.errors import SettingsError
from streams.secrets import SecretAddress, mask_address, remember_secrets
from streams.settings import sections
from streams.settings.lines import LineSettings, check_board_conflicts

VARIABLE_PREFIX = "CASTLINE_"
FILE_VARIABLE = "CASTLINE_SETTINGS_FILE"
DEFAULT_FILE = Path("castline.toml")


def is_loopback(host: str) -> bool:
    """Returns whether only programs on this machine can connect to the address `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


# The roles that log in to Kafka. Each role has a Kafka user of its own. `analyst` is for programs that only read.
KafkaRole = Literal["gateway", "inspector", "localiser", "sorter", "archivist", "station", "administrator", "analyst"]

# The space that the key and the headers of an image record may take in a Kafka message, in bytes.
_RECORD_OVERHEAD_BYTES = 16384


class Settings(BaseSettings):
    """All settings of Castline. Each field is a table of `castline.toml`. `CASTLINE_BATCH__SIZE=16` overrides `batch.size`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=VARIABLE_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    kafka: sections.KafkaSettings = Field(sections.KafkaSettings(), description="The Kafka cluster and the credentials for it.")
    broker: sections.BrokerSettings = Field(
        sections.BrokerSettings(), description="The Kafka broker that Castline itself runs on this machine."
    )
    signing: sections.SigningSettings = Field(sections.SigningSettings(), description="The keys with which the roles sign their records.")
    topics: sections.TopicSettings = Field(sections.TopicSettings(), description="Names, sizes and retention of the topics.")
    service: sections.ServiceSettings = Field(sections.ServiceSettings(), description="Settings that all processes share.")
    pictures: sections.PictureSettings = Field(sections.PictureSettings(), description="Limits for pictures.")
    store: sections.StoreSettings = Field(
        sections.StoreSettings(), description="The object store for large pictures, archived pictures and heat maps."
    )
    gateway: sections.GatewaySettings = Field(
        sections.GatewaySettings(), description="The process that takes pictures from cameras and sends them to Kafka."
    )
    batch: sections.BatchSettings = Field(
        sections.BatchSettings(), description="How the inspector gathers pictures for one call of the networks."
    )
    model: sections.ModelSettings = Field(sections.ModelSettings(), description="The model version that judges pictures, and how it runs.")
    inspector: sections.InspectorSettings = Field(sections.InspectorSettings(), description="The worker that judges pictures.")
    sorter: sections.SorterSettings = Field(sections.SorterSettings(), description="The worker that sends verdicts to the boards.")
    station: sections.StationSettings = Field(sections.StationSettings(), description="The web application and its database.")
    archivist: sections.ArchivistSettings = Field(
        sections.ArchivistSettings(),
        description="The worker that archives results and pictures of parts. Some settings say how long the archive is kept.",
    )
    states: sections.PlantStateSettings = Field(
        sections.PlantStateSettings(), description="The times after which a line has a state such as `camera silent` or `late`."
    )
    review: sections.ReviewSettings = Field(
        sections.ReviewSettings(), description="Which parts people review, and how data sets are made from the reviewed parts."
    )
    lines: tuple[LineSettings, ...] = Field((), description="The lines of the foundry.")
    # The role of this process. The process logs in to Kafka with the user of this role. The role is not a field of castline.toml, because
    # all processes read the same file.
    _role: KafkaRole = PrivateAttr("administrator")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources of the settings. The environment comes first, so environment variables override the settings file."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _check_sections_together(self) -> Self:
        names = [line.name for line in self.lines]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"lines: expected each name once, found {', '.join(repeated)} more than once")
        check_board_conflicts({line.name: line.gate for line in self.lines if line.gate})
        self._check_gateway_token()
        if self.pictures.max_bytes + _RECORD_OVERHEAD_BYTES > self.topics.max_message_bytes:
            raise ValueError(
                f"pictures.max_bytes: expected at most {self.topics.max_message_bytes - _RECORD_OVERHEAD_BYTES}, which is "
                f"topics.max_message_bytes minus {_RECORD_OVERHEAD_BYTES} bytes for key and headers; found {self.pictures.max_bytes}"
            )
        return self

    def _check_gateway_token(self) -> None:
        """Raises ValueError if sorters report to a gateway on another machine and gateway.token is empty.

        A gateway without a token would refuse all reports from another machine.
        """
        address = self.sorter.gateway_url.get_secret_value()
        reporting = [line.name for line in self.lines if line.gate and line.camera and line.camera.trigger == "board"]
        if address and reporting and not self.gateway.token.get_secret_value() and not is_loopback(urlsplit(address).hostname or ""):
            raise ValueError(
                f"gateway.token: expected a token, because the sorter of {reporting[0]} reports to a gateway on another machine "
                "(sorter.gateway_url); found none. Set CASTLINE_GATEWAY__TOKEN to the same value on both machines."
            )

    @property
    def role(self) -> KafkaRole:
        """The role of this process, which decides its Kafka user. A command that a person calls has the role `administrator`."""
        return self._role

    def for_role(self, role: KafkaRole) -> Self:
        """Returns a copy of the settings for a process of `role`."""
        copy = self.model_copy()
        copy._role = role
        return copy

    @property
    def bootstrap(self) -> str:
        """The addresses host:port of the brokers, separated by commas. For `embedded`, the address of the broker on this machine."""
        return f"127.0.0.1:{self.broker.port}" if self.kafka.bootstrap == "embedded" else self.kafka.bootstrap

    def find_line(self, name: str) -> LineSettings:
        """Returns the line called `name`. Raises SettingsError if the settings have no such line."""
        for line in self.lines:
            if line.name == name:
                return line
        known_names = ", ".join(line.name for line in self.lines) or "none"
        raise SettingsError(f"The settings have no line {name!r}. Known lines: {known_names}.")

    def lines_by_board(self, names: Sequence[str] = ()) -> list[list[str]]:
        """Returns one list for each board, with the names of all lines that share this board.

        `names` limits the result to the boards of these lines. Raises SettingsError if a line is unknown or has no gate.
        """
        gates = {line.name: line.gate for line in self.lines if line.gate}
        for name in names:
            if self.find_line(name).gate is None:
                raise SettingsError(f"Line {name} has no gate, so it has no sorter. Add [lines.gate] to its settings.")
        ports = [gates[name].port for name in names] or [gate.port for gate in gates.values()]
        if not ports:
            raise SettingsError("No line has a gate. Add [lines.gate] to the settings of a line.")
        return [[line for line, gate in gates.items() if gate.port == port] for port in dict.fromkeys(ports)]


def find_settings_file(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the path of the settings file.

    Looks first at `file`, then at the variable CASTLINE_SETTINGS_FILE, then at `castline.toml` in the current folder. Returns None if none
    of them gives a file.
    """
    given_file = file or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    return given_file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def is_nothing_set(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> bool:
    """Returns True if there is no settings file and no environment variable with a setting. `load_settings` then returns the defaults."""
    return find_settings_file(file, environment) is None and not any(name.startswith(VARIABLE_PREFIX) for name in environment)


def load_settings(file: Path | None = None, environment: Mapping[str, str] = os.environ, role: KafkaRole = "administrator") -> Settings:
    """Returns the settings from the settings file and from environment variables. A variable overrides the value in the file.

    The settings file is `file`. If `file` is None, it is the file that the variable CASTLINE_SETTINGS_FILE names. Without this variable, it
    is `castline.toml`, if that file exists. Relative paths are relative to the working directory. `role` is the role of this process.

    Raises SettingsError with one line for each fault in the settings.
    """
    path = find_settings_file(file, environment)
    content: dict[str, Any] = _read_toml(path) if path is not None else {}
    _refuse_unknown_variables(environment)
    try:
        settings = Settings(**content).for_role(role)
    except ValidationError as error:
        raise SettingsError("\n".join(_describe_faults(error, (path or DEFAULT_FILE).name))) from None
    except ValueError as error:  # pydantic-settings raises ValueError if the value of a variable is not valid JSON.
        raise SettingsError(f"environment: {error}") from None
    remember_secrets(settings)
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}. Check the path and the permissions.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} is not valid TOML: {error}. Correct the file.") from None


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Raises SettingsError if a CASTLINE_ variable names an unknown section, because pydantic-settings would silently ignore it."""
    sections = {name.upper() for name in Settings.model_fields}
    for variable in sorted(environment):
        if variable.startswith(VARIABLE_PREFIX) and variable != FILE_VARIABLE:
            section = variable.removeprefix(VARIABLE_PREFIX).split("__")[0]
            if section not in sections:
                raise SettingsError(
                    f"environment: expected {VARIABLE_PREFIX}<SECTION>__<NAME> where <SECTION> is one of {', '.join(sorted(sections))}; "
                    f"found {variable}"
                )


def _describe_faults(error: ValidationError, source: str) -> list[str]:
    """Returns a line of text for each fault that pydantic found.

    The line begins with the name of the setting, or with the file name `source` if the fault belongs to no single setting.
    """
    faults = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(step) for step in problem["loc"]) or source
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            faults.append(f"{name}: expected a known setting (castline settings schema lists them), found an unknown name")
        elif problem["type"] == "missing":
            faults.append(f"{name}: expected a value, found none")
        elif problem["type"] == "value_error":
            faults.append(f"{name}: {message}" if problem["loc"] else message)
        else:
            faults.append(f"{name}: expected: {message[0].lower()}{message[1:]}; found {_show_input(problem)}")
    return faults


def _show_input(problem: ErrorDetails) -> str:
    """Returns the wrong value as text, or a mask if the setting is a secret."""
    text = str(problem["input"])[:80]
    return "a secret that is not shown" if _is_secret(problem["loc"]) else repr(mask_address(text))


def _is_secret(location: tuple[int | str, ...]) -> bool:
    """Returns whether the setting at `location`, such as ("lines", 0, "token"), has a type for secrets."""
    types: tuple[Any, ...] = (Settings,)
    for step in location:
        if isinstance(step, int):
            continue
        models = [each for each in types if isinstance(each, type) and issubclass(each, BaseModel)]
        fields = [model.model_fields[step].annotation for model in models if step in model.model_fields]
        types = tuple(inner for annotation in fields for inner in (annotation, *get_args(annotation)))
    return any(isinstance(each, type) and issubclass(each, (SecretStr, SecretAddress)) for each in types)
