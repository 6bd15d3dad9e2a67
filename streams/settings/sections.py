"""The sections of `castline.toml`, except the sections of a line, which are in `lines.py`.

Each class is one table of the file. Its docstring begins with the name of the table.
"""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Sequence
from datetime import time
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SecretStr, StringConstraints, model_validator

from streams.identity import LineName
from streams.secrets import SecretAddress, mask_address, remember_secret

# The name of a class of parts. It must be valid as the name of a folder, because each class is a folder of a data set.
ClassName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
# The name of a site or of a machine. A dot is not allowed, because dots separate the words of a process name.
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
DefectKind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z -]{0,39}$")]
MIN_COMMAND_KEY_CHARACTERS = 32


class Section(BaseModel):
    """The base class of all sections of settings. Sections are frozen and accept no unknown names.

    If unknown names were accepted, a misspelt setting would keep its default, and nobody would notice the mistake.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=False)


def _read_secret(file: Path | None, name: str, value: SecretStr) -> str:
    """Returns the secret in `file`, or `value` if `file` is None. Raises ValueError with the setting's `name` if `file` cannot be read."""
    if file is None:
        return value.get_secret_value()
    try:
        secret = file.read_text().strip()
    except OSError as error:
        raise ValueError(f"{name} {file} cannot be read: {error.strerror}") from None
    remember_secret(secret)
    return secret


def _mask_root(root: Path) -> str:
    # The class Path shortens `s3://` to `s3:/`, so the second slash is added again.
    text = str(root)
    return mask_address(re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", text))


class BrokerSettings(Section):
    """[broker]: the embedded broker, which is the Kafka broker that Castline itself runs on this machine."""

    port: int = Field(
        19092,
        ge=1024,
        le=65534,
        description="Port for Kafka clients on the loopback interface. The broker's controller uses this port + 1.",
    )
    data_dir: Path = Field(Path("var/kafka"), description="Folder of the broker's data. The broker creates the folder at its first start.")
    max_bytes: int | None = Field(
        None,
        ge=128 * 2**20,
        le=2**50,
        description="Largest size of all topics of the embedded broker together, in bytes. If absent, the topics get 60 % of the disk "
        "that holds `data_dir`.",
    )
    access: Literal["auto", "roles", "open"] = Field(
        "auto",
        description="Who may connect to the embedded broker. With `roles`, each role logs in with a Kafka user and a password of its own, "
        "and may do only what its work needs. With `open`, every program on this machine may read and write all topics. With `auto`, a "
        "new data folder gets `roles`, and a data folder that an older release made stays `open`.",
    )
    heap_mb: int = Field(512, ge=256, le=65536, description="Java heap of the broker, in MiB.")
    start_timeout_s: float = Field(
        60, gt=0, le=600, description="Longest time from the start of the broker to its first answer, in seconds."
    )


class KafkaSettings(Section):
    """[kafka]: the addresses of the Kafka cluster and the credentials for the connection."""

    bootstrap: str = Field(
        "embedded",
        pattern=r"^(embedded|[^\s,:]+:\d{1,5}(,[^\s,:]+:\d{1,5})*)$",
        description="`embedded` for the broker that Castline runs on this machine, or host:port of one or more brokers, separated "
        "by commas.",
    )
    security: Literal["plaintext", "tls", "sasl-plaintext", "sasl-tls"] = Field(
        "plaintext", description="Protection of the connection. TLS encrypts the connection. SASL logs in with user name and password."
    )
    ca_file: Path | None = Field(
        None,
        description="File with the CA certificates that verify the brokers. If absent, the certificates of the operating system are used.",
    )
    cert_file: Path | None = Field(
        None, description="File with this client's certificate. Some brokers ask their clients for a certificate."
    )
    key_file: Path | None = Field(None, description="File with the private key that belongs to `cert_file`.")
    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("SCRAM-SHA-512", description="SASL mechanism for the log-in.")
    username: str = Field("", description="SASL user name.")
    password: SecretStr = Field(
        SecretStr(""),
        description="SASL password. Setting CASTLINE_KAFKA__PASSWORD or `password_file` is safer than writing it into castline.toml.",
    )
    password_file: Path | None = Field(None, description="File that holds the SASL password.")
    password_dir: Path | None = Field(
        None,
        description="Folder that holds a file with the SASL password of each role, such as `inspector`. If it is set, each process logs in "
        "as the Kafka user of its role, and `username` and `password` are not used. For the embedded broker, the default is the folder "
        "`passwords` in `broker.data_dir`.",
    )
    user_prefix: str = Field(
        "castline-",
        pattern=r"^[A-Za-z0-9._-]{0,63}$",
        description="First part of the names of the Kafka users of the roles. With `castline-`, the inspector is `castline-inspector`.",
    )
    request_timeout_s: float = Field(20, ge=5, le=300, description="Longest time that a broker may take to answer one request, in seconds.")
    session_timeout_s: float = Field(
        10, ge=6, le=300, description="If Kafka gets no heartbeat from a worker for this many seconds, the worker loses its partitions."
    )
    commit_interval_s: float = Field(
        0.5,
        ge=0.1,
        le=60,
        description="Time between two offset commits, in seconds. After a crash, the work since the last commit is done again.",
    )
    buffer_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        le=2**36,
        description="Memory for the records that a worker has fetched and not finished, in bytes. If it is full, further records wait in "
        "Kafka.",
    )

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if self.security.startswith("sasl") and self.password_dir is None:
            if not self.username:
                raise ValueError(f"security {self.security} needs a username")
            if not self.read_password():
                raise ValueError(f"security {self.security} needs a password or password_file")
        elif self.password_dir is not None and self.bootstrap != "embedded" and not self.security.startswith("sasl"):
            raise ValueError("password_dir: expected security sasl-plaintext or sasl-tls, because passwords are used only with SASL")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file: expected both or neither, found only one of them")
        return self

    def read_password(self) -> str:
        """Returns the SASL password from the setting or from its file, or "" if none is set."""
        return _read_secret(self.password_file, "password_file", self.password)


class SigningSettings(Section):
    """[signing]: the keys with which the processes of each role sign their records, and with which readers check the signatures."""

    private_keys: Path | None = Field(
        None,
        description="Folder with the private key of each role that runs on this machine. If it is set, these roles sign their records. The "
        "command `castline topics keys` makes the files. `castline models sign` uses the key of the administrator.",
    )
    public_keys: Path | None = Field(
        None,
        description="Folder with the public keys of all roles. If it is set, verdicts, sortings, findings, reviews, model choices, line "
        "settings, commands and model versions are refused if they have no valid signature.",
    )


class TopicSettings(Section):
    """[topics]: names, sizes and retention times of the topics."""

    prefix: str = Field(
        "castings",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$",
        description="First word of every topic name, such as `castings` in castings.images.line-1.",
    )
    image_partitions: int = Field(
        4,
        ge=1,
        le=256,
        description="Partitions of each image topic. This is also the largest number of inspectors that can share the pictures of a line.",
    )
    image_hours: float = Field(24, gt=0, le=8760, description="Time for which Kafka keeps pictures, in hours.")
    record_days: float = Field(
        30, gt=0, le=3660, description="Time for which Kafka keeps verdicts, sortings, findings and dead letters, in days."
    )
    replication: int = Field(1, ge=1, le=9, description="Copies of each partition. Use 3 on a cluster of brokers.")
    max_message_bytes: int = Field(8 * 2**20, ge=2**16, le=256 * 2**20, description="Largest Kafka record, in bytes.")


class ServiceSettings(Section):
    """[service]: what all processes share, such as health pages, logs and the time to stop."""

    site: str = Field(
        "plant",
        pattern=NAME_PATTERN,
        description="Name of the site. The ids of Kafka clients and the logs contain the name. In Prometheus, it is the label `plant`.",
    )
    machine: str = Field(
        "",
        pattern=f"{NAME_PATTERN}|^$",
        description="Name of this machine, different on each machine of the site. If empty, the host name is used. The ids "
        "of Kafka clients, the logs and the targets of Prometheus contain the name.",
    )
    host: str = Field("127.0.0.1", description="Address of the network interface that serves /metrics, /healthz and /readyz.")
    run_dir: Path = Field(
        Path("var/run"),
        description="Folder for the lock files of running processes, and for the files from which Prometheus reads the addresses of "
        "their health pages.",
    )
    grace_s: float = Field(
        10, gt=0, le=300, description="Longest time that a process may take to finish its work after SIGTERM, in seconds."
    )
    stall_s: float = Field(
        30, gt=1, le=3600, description="A process counts as unhealthy if records wait and it finishes no record for this many seconds."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Messages of this level and of higher levels are logged."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="`json` writes one JSON object a line, for programs. `text` writes plain text, for a terminal."
    )

    @property
    def machine_name(self) -> str:
        """The name of this machine: the setting `machine`, or the host name in lower case if the setting is empty.

        In the host name, hyphens replace all characters except a to z and 0 to 9.
        """
        host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:63]
        return self.machine or host or "localhost"

    def name_process(self, slot: str) -> str:
        """Returns the name of a process in the form `<site>.<machine>.<slot>`, such as `plant.pc-7.inspector-1`.

        The name is unique in the plant if each machine has a name of its own.
        """
        return f"{self.site}.{self.machine_name}.{slot}"

    def name_user(self) -> str:
        """Returns the user and the machine of this process, such as anna@station-pc. Records contain this text to say who made a change."""
        return f"{getpass.getuser()}@{self.machine_name}"


class PictureSettings(Section):
    """[pictures]: limits for the size of pictures and for the cost of decoding them."""

    max_bytes: int = Field(8 * 2**20 - 2**16, ge=1024, le=256 * 2**20, description="Largest encoded picture, in bytes.")
    max_pixels: int = Field(
        50_000_000, ge=1, le=1_000_000_000, description="Largest picture, in pixels. The limit is checked before the picture is decoded."
    )
    inline_bytes: int = Field(
        2**20,
        ge=1024,
        description="Largest picture, in bytes, that is sent inside its Kafka record. A larger picture is put into the object store, "
        "and its record holds only the address of the picture.",
    )
    upload_pixels: int = Field(
        16_000_000,
        ge=1,
        le=1_000_000_000,
        description="Largest uploaded picture, in pixels. `max_pixels` applies to uploads, too.",
    )
    upload_memory_bytes: int = Field(
        2**30,
        ge=2**25,
        le=2**36,
        description=(
            "Largest memory, in bytes, for decoding one picture. The limit applies to an uploaded picture before it is judged, and to a "
            "picture for the station's pages. If an uploaded picture needs more memory, its part gets `review`. If a picture for a page "
            "needs more memory, the page does not show it."
        ),
    )
    upload_time_s: float = Field(
        10.0,
        ge=0.1,
        le=300,
        description=(
            "Longest time, in seconds, for decoding one picture. The limit applies to an uploaded picture before it is judged, and to a "
            "picture for the station's pages. On a busy machine, twice this time is allowed. If an uploaded picture takes longer, its part "
            "gets `review`. If a picture for a page takes longer, the page does not show it."
        ),
    )

    def for_uploads(self) -> PictureSettings:
        """Returns the settings for uploaded pictures: a copy whose `max_pixels` is at most `upload_pixels`."""
        return self.model_copy(update={"max_pixels": min(self.max_pixels, self.upload_pixels)})


class StoreSettings(Section):
    """[store]: the object store for large pictures, archived pictures and heat maps."""

    url: SecretAddress = Field(
        SecretAddress("var/store"),
        description="Place of the object store: a folder, or an address for fsspec such as s3://bucket/castline, which needs the "
        "extra `s3`.",
    )


class GatewaySettings(Section):
    """[gateway]: the process that takes pictures from cameras and sends them to Kafka."""

    host: str = Field("127.0.0.1", description="Address of the network interface that accepts uploads and the sorter's part reports.")
    port: int = Field(18080, ge=0, le=65535, description="Port for uploads and part reports. With 0 the gateway chooses a free port.")
    connections_per_address: int = Field(
        32,
        ge=4,
        le=500,
        description="Largest number of open connections of one IPv4 address or one IPv6 network (/64). A further connection takes the "
        "place of an idle one. Raise this number if many cameras share an address, for example behind a proxy.",
    )
    proxies: int = Field(
        0,
        ge=0,
        le=8,
        description="Number of proxies in front of the gateway that add an address to X-Forwarded-For. With 0 the header is ignored.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses or networks of the proxies in front of the gateway, such as 192.0.2.4 or 192.0.2.0/28. X-Forwarded-For "
        "from any other address is ignored.",
    )
    token: SecretStr = Field(
        SecretStr(""),
        description="Token that the sorter sends with its part reports. If it is empty, gateway and sorters of a machine use a token that "
        "they make themselves, in the file gateway.token of service.run_dir. If a sorter and its gateway run on different machines, set "
        "CASTLINE_GATEWAY__TOKEN to the same value on both machines.",
    )
    spool_dir: Path = Field(
        Path("var/spool"),
        description="Folder of the spool, the gateway's queue on disk. Pictures wait there while Kafka is unavailable. Damaged "
        "files are renamed there; docs/operations.md says when they may be deleted.",
    )
    spool_max_bytes: int = Field(
        2 * 2**30,
        ge=2**20,
        description="Largest size of the spool, in bytes. If it is full, the gateway refuses pictures and raises an alarm.",
    )
    in_flight: int = Field(
        64,
        ge=1,
        le=10_000,
        description="Largest number of pictures of one line that the gateway has sent and the brokers have not confirmed yet.",
    )
    buffer_bytes: int = Field(
        32 * 2**20,
        ge=2**20,
        le=2**36,
        description="Memory for the pictures of one line in each buffer of the gateway, in bytes. The buffers hold uploads, files that "
        "were read ahead, and pictures that wait for their parts, for the disk, or for Kafka. If the value is below `pictures.max_bytes`, "
        "the gateway uses `pictures.max_bytes`.",
    )

    @model_validator(mode="after")
    def _check_proxies(self) -> Self:
        _check_networks(self.trusted_proxies)
        return self


def _check_networks(trusted_proxies: Sequence[str]) -> None:
    for network in trusted_proxies:
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise ValueError(f"trusted_proxies: expected addresses or networks such as 192.0.2.0/28, found {network!r}") from None


class BatchSettings(Section):
    """[batch]: how the inspector gathers pictures for one call of the networks."""

    size: int = Field(32, ge=1, le=256, description="Largest number of pictures that the networks judge in one call.")
    max_wait_s: float = Field(
        0.02, gt=0, le=10, description="Longest time that the first picture of a batch waits for more pictures, in seconds."
    )
    shapes: tuple[int, ...] = Field(
        (1, 2, 4, 8, 16, 32),
        description="Batch sizes for which the networks are compiled, in ascending order. The last one must be at least `size`.",
    )
    deadline_margin_s: float = Field(
        0.3, ge=0, le=10, description="A batch is judged at once if the deadline of one of its parts is less than this many seconds away."
    )

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        if not self.shapes or list(self.shapes) != sorted(set(self.shapes)) or self.shapes[0] < 1:
            raise ValueError("shapes: expected batch sizes of at least 1 in ascending order")
        if self.shapes[-1] < self.size:
            raise ValueError(f"shapes: expected the last batch size to be at least `size`, which is {self.size}; found {self.shapes[-1]}")
        return self


class ModelSettings(Section):
    """[model]: the model version that judges pictures, and how it runs."""

    root: Annotated[Path, PlainSerializer(_mask_root, return_type=str, when_used="json")] = Field(
        Path("models/versions"),
        description="Folder of the model versions, or an address for fsspec such as s3://bucket/versions, which needs the extra `s3`.",
    )
    version: str = Field(
        "demo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Model version that judges a line if no version was chosen for the line (topic `castings.models`).",
    )
    runtime: str = Field(
        "auto",
        description="Runtime of the networks. `auto` uses the runtime that `castline models optimise` found to be the fastest on this "
        "processor, or TensorFlow in float32 if none was recorded.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Number of threads in which the networks run. Two batches run in parallel and share these threads. 0 means one "
        "thread for each processor.",
    )
    cascade: bool = Field(
        False,
        description="If true, LeNet judges each picture first, and AlexNet judges it only if LeNet is in doubt. `castline evaluate "
        "--cascade` measures the effect. If the settings of a line are stricter than the model version, AlexNet also judges each part "
        "that LeNet would pass. If the settings of a line are less strict, AlexNet also judges each part that LeNet would reject.",
    )
    cascade_low: float | None = Field(
        None,
        ge=0,
        le=1,
        description="With `cascade`, LeNet alone judges the pictures to which it gives a defect probability below this value. If absent, "
        "the value of the model version is used.",
    )
    cascade_high: float | None = Field(
        None,
        ge=0,
        le=1,
        description="With `cascade`, LeNet alone judges the pictures to which it gives at least this defect probability. If absent, the "
        "value of the model version is used.",
    )

    @property
    def cascade_band(self) -> tuple[float, float] | None:
        """The range (low, high) of LeNet's defect probability in which AlexNet also judges the picture. None if the range is not set."""
        return None if self.cascade_low is None or self.cascade_high is None else (self.cascade_low, self.cascade_high)

    @model_validator(mode="after")
    def _check_cascade_band(self) -> Self:
        if (self.cascade_low is None) != (self.cascade_high is None):
            raise ValueError("cascade_low and cascade_high: expected both or neither, found only one of them")
        if self.cascade_low is not None and self.cascade_high is not None and self.cascade_low > self.cascade_high:
            raise ValueError(f"cascade_low: expected at most cascade_high, found {self.cascade_low} and {self.cascade_high}")
        return self


class InspectorSettings(Section):
    """[inspector]: the worker that judges pictures."""

    buffer: int = Field(256, ge=8, le=4096, description="Number of pictures that one worker fetches ahead. A smaller number saves memory.")
    decoders: int = Field(2, ge=1, le=64, description="Number of threads that decode pictures.")
    detail_time_s: float = Field(
        5.0,
        ge=0,
        le=60,
        description="Longest search for small defects in one large picture, in seconds. If the search takes longer, the inspector treats "
        "the part like one that differs from good parts. With 0, no picture is searched. The setting has an effect only for model "
        "versions with a detail template.",
    )
    localise: bool = Field(
        True, description="If true, the localiser makes heat maps and boxes for suspicious pictures, and `castline up` runs a localiser."
    )
    explain_lines: tuple[LineName, ...] = Field(
        ("uploads",),
        description="Lines on which every picture gets a heat map, even if the part is good. Their heat maps are made before all others.",
    )
    localiser_niceness: int = Field(
        19,
        ge=0,
        le=19,
        description="Priority of the localiser's process, from 0 (like the inspector) to 19 (lowest). With 19, a heat map also waits "
        "while other programs keep all processors busy, but at most 2 seconds. With a smaller number, heat maps come earlier on a busy "
        "machine.",
    )


class SorterSettings(Section):
    """[sorter]: the worker that sends verdicts to the boards."""

    gateway_url: SecretAddress = Field(
        SecretAddress(""), description="URL of the gateway to which the sorter reports parts. Empty means the gateway of this machine."
    )
    journal_dir: Path = Field(
        Path("var/journal"),
        description="Folder of the journal, the sorter's queue on disk. The records of sorted parts wait there while Kafka is unavailable. "
        "Damaged files are renamed there; docs/operations.md says when they may be deleted.",
    )
    window: int = Field(8, ge=1, le=64, description="Largest number of commands to one board that may be unanswered at the same time.")
    command_key: SecretStr = Field(
        SecretStr(""),
        description="Secret key of at least 32 characters. The station and the sorters sign commands with this key. If it is set, sorters "
        "refuse commands without a valid signature. Set it with CASTLINE_SORTER__COMMAND_KEY.",
    )
    second_command_key: SecretStr = Field(
        SecretStr(""),
        description="Second secret key, for the time in which people change `command_key`. The station and the sorters also accept "
        "signatures with this key. The page security.md describes the change. Set it with CASTLINE_SORTER__SECOND_COMMAND_KEY.",
    )

    @model_validator(mode="after")
    def _check_command_keys(self) -> Self:
        # A short key is not safe. A program that reads a signed command could try keys until one of them gives the same signature. While
        # people replace an old short key, both keys are set. So it is enough if one of the two keys is long.
        key, second = (len(each.get_secret_value()) for each in (self.command_key, self.second_command_key))
        if second and not key:
            raise ValueError("second_command_key is set, but command_key is not. Set command_key, or remove second_command_key")
        if key and max(key, second) < MIN_COMMAND_KEY_CHARACTERS:
            raise ValueError(
                f"command_key: expected at least {MIN_COMMAND_KEY_CHARACTERS} characters, found {key}. Make a key with: openssl rand -hex "
                "32. Set it for the station and all sorters, or change the key while the plant runs, as docs/security.md describes"
            )
        return self


class ArchivistSettings(Section):
    """[archivist]: the worker that archives results and pictures of parts. Some settings say how long the archive is kept."""

    buffer: int = Field(
        2048, ge=64, le=65536, description="Number of records that the worker fetches ahead. A smaller number saves memory."
    )
    batch: int = Field(256, ge=1, le=256, description="Largest number of records that are written in one database transaction.")
    max_wait_s: float = Field(
        0.2, gt=0, le=10, description="Longest time that the first record of a transaction waits for more records, in seconds."
    )
    ok_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of the good parts whose pictures are archived, 0..1. With 0.02 the picture of one good part in 50 is archived. "
        "Pictures of parts with the label `defect` or `review` are always archived.",
    )
    keep_days: float = Field(
        90, gt=0, le=36600, description="Age of a part, in days, at which its archived picture and heat map are deleted."
    )
    keep_bytes: int = Field(
        50 * 10**9,
        ge=2**20,
        description="Largest size of all archived pictures together, in bytes. If it is exceeded, the oldest pictures are deleted.",
    )
    upload_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of `keep_bytes` that is reserved for the pictures of uploads, 0..1. If uploads take more, their oldest pictures "
        "are deleted. Uploads therefore never displace the pictures of castings. Without a line of uploads, nothing is reserved.",
    )
    keep_rows_days: float = Field(730, gt=0, le=36600, description="Age of a part, in days, at which it is deleted from the database.")
    sweep_s: float = Field(
        300,
        gt=0,
        le=86400,
        description="Time between two clean-ups of the archive, in seconds. A clean-up deletes the pictures and parts that are too old, "
        "and the oldest pictures if all of them take too much space.",
    )


class PlantStateSettings(Section):
    """[states]: the limits at which a line gets a state such as `late`. The wall and the metric `castline_line_state` show the states."""

    no_castings_s: float = Field(
        30,
        gt=0,
        le=86400,
        description="Time without a casting after which a line has the state `no castings`, in seconds. Set it to more than the usual time "
        "between two castings.",
    )
    blind_s: float = Field(
        10,
        gt=0,
        le=3600,
        description="A line has the state `running blind` if pictures have come for this many seconds without a verdict.",
    )
    camera_silent_s: float = Field(
        10,
        gt=0,
        le=3600,
        description="A line has the state `camera silent` if castings have come for this many seconds without a picture.",
    )
    board_silent_s: float = Field(
        30,
        gt=0,
        le=3600,
        description="A line has the state `disconnected` if it got verdicts, but no report of the board, for this many seconds. The time "
        "that a casting takes to the gate is added to this number.",
    )
    late_castings: int = Field(
        3,
        ge=1,
        le=1000,
        description="A line has the state `late` if this many castings reached the gate without a verdict within `late_window_s` seconds.",
    )
    late_window_s: float = Field(
        60,
        gt=0,
        le=3600,
        description="For this many seconds, a casting that reached the gate without a verdict is counted for the state `late`.",
    )


class OidcSettings(Section):
    """[station.oidc]: the log-in by an OpenID Connect provider, such as the company's directory. Without `issuer`, this log-in is off."""

    issuer: str = Field(
        "",
        description="Address of the provider, as its tokens name it, such as https://login.example/realms/plant. If empty, the log-in by "
        "OpenID Connect is off. The log-in needs the extra `oidc`. For a provider with a certificate of the plant, set the variable "
        "REQUESTS_CA_BUNDLE to the file of its certificate authority.",
    )
    client_id: str = Field("castline", min_length=1, description="Name under which the provider knows the station.")
    client_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret of the station at the provider. Setting CASTLINE_STATION__OIDC__CLIENT_SECRET or `client_secret_file` is safer "
        "than writing it into castline.toml.",
    )
    client_secret_file: Path | None = Field(None, description="File that holds the secret of the station at the provider.")
    title: str = Field(
        "the company account", min_length=1, max_length=60, description="What the button on the log-in page calls the provider."
    )
    name_claim: str = Field("preferred_username", min_length=1, description="Claim of the token that names the account.")
    role_claim: str = Field("roles", min_length=1, description="Claim of the token that lists the groups or roles of the person.")
    roles: dict[str, Literal["operator", "reviewer", "engineer", "administrator"]] = Field(
        {f"castline-{role}": role for role in ("operator", "reviewer", "engineer", "administrator")},
        description="Role in the station for each value of `role_claim`. A person with several roles gets the role with the most "
        "permissions. A person without a role cannot log in.",
    )

    @model_validator(mode="after")
    def _check_issuer(self) -> Self:
        address = urlsplit(self.issuer)
        is_local = address.scheme == "http" and address.hostname in ("127.0.0.1", "localhost", "::1")
        if self.issuer and not (address.hostname and (address.scheme == "https" or is_local)):
            raise ValueError(f"issuer: expected an address that begins with https://, found {self.issuer!r}")
        return self

    @property
    def origin(self) -> str:
        """The address of the provider without a path: scheme, host and port."""
        address = urlsplit(self.issuer)
        return f"{address.scheme}://{address.netloc}"

    def read_client_secret(self) -> str:
        """Returns the secret of the station at the provider, from the setting or from its file."""
        return _read_secret(self.client_secret_file, "client_secret_file", self.client_secret)


class StationSettings(Section):
    """[station]: the web application and its database."""

    host: str = Field("127.0.0.1", description="Address of the network interface that serves the pages. 0.0.0.0 means all interfaces.")
    port: int = Field(18000, ge=0, le=65535, description="Port of the pages. With 0 the station chooses a free port.")
    hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "localhost", "[::1]"),
        description="Host names under which browsers may open the station, as a person types them into the address bar.",
    )
    behind_tls: bool = Field(
        False,
        description="Set this to true if a proxy in front of the station handles TLS and sets X-Forwarded-Proto. Browsers then send "
        "cookies only over TLS, and HSTS is on. The station must not be reachable without this proxy.",
    )
    proxies: int = Field(
        0,
        ge=0,
        le=8,
        description="Number of proxies in front of the station that add an address to X-Forwarded-For. With 0 the header is ignored.",
    )
    connections_per_address: int = Field(
        100,
        ge=8,
        le=4000,
        description="Largest number of open connections of one IPv4 address or one IPv6 network (/64). A further connection takes the "
        "place of an idle one. If `proxies` is above 0, this setting has no effect, so limit the connections in the proxy.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses or networks of the proxies in front of the station, such as 192.0.2.4 or 192.0.2.0/28. X-Forwarded-For "
        "from any other address is ignored.",
    )
    database: str = Field(
        "var/station.sqlite3",
        min_length=1,
        description="Database of the station: the file of an SQLite database, or postgresql://user@host:port/name.",
    )
    database_password: SecretStr = Field(
        SecretStr(""),
        description="Password for PostgreSQL. Setting CASTLINE_STATION__DATABASE_PASSWORD or `database_password_file` is safer than "
        "writing it into castline.toml.",
    )
    database_password_file: Path | None = Field(None, description="File that holds the password for PostgreSQL.")
    secret_key: SecretStr = Field(
        SecretStr(""),
        description="Secret key with which the station signs log-in sessions and the addresses of pictures. Set it with "
        "CASTLINE_STATION__SECRET_KEY. If empty, the key in `secret_key_file` is used.",
    )
    secret_key_file: Path = Field(
        Path("var/station.key"),
        description="File that holds the secret key of the station. The station creates the file at its first start. Only the owner of the "
        "file can read it.",
    )
    session_hours: float = Field(12, gt=0, le=720, description="Time without a request, in hours, after which a person is logged out.")
    session_days: float = Field(
        30,
        gt=0,
        le=365,
        description="Time since the log-in, in days, after which a person is logged out and must log in again, whatever the person does.",
    )
    log_in_notice: str = Field(
        "",
        max_length=2000,
        description="Text that the log-in page shows to everybody, such as who is allowed to use the station and that its use is recorded.",
    )
    log_in_failures: int = Field(
        5,
        ge=2,
        le=100,
        description="After this many wrong passwords for one account from one network, each further attempt must wait: 1 second, then "
        "twice as long after each wrong password. One network is an IPv4 address or the /64 of an IPv6 address.",
    )
    log_in_lock_minutes: float = Field(
        15, gt=0, le=1440, description="Longest time, in minutes, that a person must wait after wrong passwords before the next attempt."
    )
    audit_syslog: str = Field(
        "",
        pattern=r"^$|^/\S+$|^(tcp|udp)://[^\s/:]+:\d{1,5}$",
        description="Log server that gets a copy of each entry of the audit log: tcp://host:port, udp://host:port, or a socket of this "
        "machine such as /dev/log. If empty, no copy is sent.",
    )
    oidc: OidcSettings = Field(OidcSettings(), description="The log-in by an OpenID Connect provider.")
    upload_line: LineName = Field(
        "uploads", description="Line under which uploaded pictures are judged. It has neither a camera nor a gate."
    )
    upload_bytes: int = Field(128 * 2**20, ge=2**20, le=2**32, description="Largest total size of the pictures in one upload, in bytes.")
    upload_files: int = Field(64, ge=1, le=1000, description="Largest number of pictures in one upload.")
    uploads_per_minute: int = Field(
        600, ge=1, le=100_000, description="Largest number of pictures that one account may upload in a minute."
    )
    upload_megapixels_per_minute: int = Field(
        240,
        ge=1,
        le=1_000_000,
        description="Largest number of megapixels that one account may upload in a minute. The processor time for a picture depends "
        "on its pixels, not on its bytes. An account can always upload one picture of `pictures.upload_pixels` a minute.",
    )
    upload_megabytes_per_minute: int = Field(
        240,
        ge=1,
        le=1_000_000,
        description="Largest number of megabytes that one account may upload in a minute. Refused pictures count, too. "
        "An account can always upload one picture of `pictures.max_bytes` a minute.",
    )
    upload_megabytes_per_day: int = Field(
        5000,
        ge=1,
        le=100_000_000,
        description="Largest number of megabytes that one account may upload in a day. Pictures that the station refuses do not count. "
        "After a restart of the station, the count begins again at 0.",
    )
    time_zone: str = Field(
        "UTC",
        description="Time zone of the plant, such as Europe/Berlin. The times on the pages and in `shifts` are in this zone.",
    )
    shifts: tuple[time, ...] = Field(
        (time(6), time(14), time(22)),
        max_length=24,
        description="Times of day at which shifts begin. If the list is empty, a shift is a whole day.",
    )

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"time_zone: expected the name of a time zone such as Europe/Berlin, found {self.time_zone!r}") from None
        if list(self.shifts) != sorted(set(self.shifts)) or any(begin.tzinfo for begin in self.shifts):
            raise ValueError("shifts: the times of day must be in ascending order and without a time zone, such as 06:00, 14:00 and 22:00")
        return self

    @model_validator(mode="after")
    def _check_proxies(self) -> Self:
        _check_networks(self.trusted_proxies)
        return self

    @model_validator(mode="after")
    def _check_audit_syslog(self) -> Self:
        _, is_network, port = self.audit_syslog.rpartition(":")
        if is_network and not 0 < int(port) < 65536:
            raise ValueError(f"audit_syslog: expected a port from 1 to 65535, found {port}")
        return self

    @model_validator(mode="after")
    def _check_database_address(self) -> Self:
        scheme, separator, rest = self.database.partition("://")
        if separator and scheme not in ("postgresql", "postgres"):
            raise ValueError(f"database: expected a file, or postgresql://user@host:port/name; found the scheme {scheme}")
        if separator and ":" in rest.rpartition("@")[0]:
            raise ValueError(
                "database: the address contains a password. Remove it there, and set it with CASTLINE_STATION__DATABASE_PASSWORD"
            )
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the plant."""
        return ZoneInfo(self.time_zone)

    def read_password(self) -> str:
        """Returns the password for PostgreSQL from the setting or from its file, or "" if none is set."""
        return _read_secret(self.database_password_file, "database_password_file", self.database_password)


class ReviewSettings(Section):
    """[review]: which parts people review, and how data sets are made from the reviewed parts."""

    kinds: tuple[DefectKind, ...] = Field(
        ("blow hole", "shrinkage", "cold shut", "chipping", "flash", "scratch"),
        min_length=1,
        max_length=9,
        description="Types of defect that a reviewer can choose, in the order of the keys 1 to 9.",
    )
    least_doubt: float = Field(
        0.25,
        ge=0,
        le=0.5,
        description="Parts with a doubt of at least this value are put into the review queue. The doubt is 0.5 if the defect probability "
        "is equal to the threshold, and 0 if the probability is 0 or 1.",
    )
    audit_share: float = Field(
        0.002, ge=0, le=1, description="Share of all parts that are chosen at random for the review queue, 0..1. 0.002 is one part in 500."
    )
    audit_seed: int = Field(1, ge=0, description="Seed of the random choice for `audit_share`.")
    second_opinion: bool = Field(
        True,
        description="If true, a second person reviews each part on which the first reviewer contradicts the model. If these two people "
        "disagree, a third person decides.",
    )
    lease_minutes: float = Field(
        5, gt=0, le=240, description="While one person reviews a part, other people do not get it for this many minutes."
    )
    overdue_hours: float = Field(24, gt=0, le=8760, description="Time, in hours, after which a part that waits for its review is overdue.")
    data_sets: Path = Field(Path("var/data-sets"), description="Folder of the data sets that are made from reviewed parts.")
    keep_free_bytes: int = Field(
        5 * 10**9,
        ge=0,
        description="Free space that a new data set must leave on the disk of `data_sets`, in bytes. If less would remain, the data set is "
        "not made. The embedded broker begins to delete records at 4 GiB of free space. If it uses the same disk, choose more than 4 GiB.",
    )
    ok_class: ClassName = Field("ok_front", description="Name of the class of good parts in data sets. It begins with `ok`.")
    defect_class: ClassName = Field("def_front", description="Name of the class of bad parts in data sets.")

    @model_validator(mode="after")
    def _check_classes_and_kinds(self) -> Self:
        if not self.ok_class.lower().startswith("ok") or self.defect_class.lower().startswith("ok"):
            raise ValueError(f"ok_class must begin with `ok`, and defect_class must not; found {self.ok_class} and {self.defect_class}")
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds: expected each type of defect only once, found a type twice")
        return self
