"""Settings of the Kafka connection, the embedded broker and the topics."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from streams.settings.section import Section


class BrokerSettings(Section):
    """[broker]: the embedded broker of this machine."""

    port: int = Field(19092, ge=1024, le=65534, description="Loopback port that clients use; the controller takes the next one.")
    data_dir: Path = Field(Path("var/kafka"), description="Folder of the broker's data, made at the first start.")
    heap_mb: int = Field(512, ge=256, le=65536, description="Java heap of the broker, MiB.")
    start_timeout_s: float = Field(60, gt=0, le=600, description="Longest wait for the broker to answer after its start.")


class KafkaSettings(Section):
    """[kafka]: the cluster, and how to be let in."""

    bootstrap: str = Field(
        "embedded",
        pattern=r"^(embedded|[^\s,:]+:\d{1,5}(,[^\s,:]+:\d{1,5})*)$",
        description="`embedded` (the broker of this machine), or host:port of some brokers, separated by commas.",
    )
    security: Literal["plaintext", "tls", "sasl-plaintext", "sasl-tls"] = Field("plaintext", description="How the connection is protected.")
    ca_file: Path | None = Field(None, description="Certificates that sign the brokers'; the system's own where absent.")
    cert_file: Path | None = Field(None, description="This client's certificate, where the brokers ask for one.")
    key_file: Path | None = Field(None, description="Key of `cert_file`.")
    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("SCRAM-SHA-512", description="SASL mechanism.")
    username: str = Field("", description="SASL user.")
    password: SecretStr = Field(SecretStr(""), description="SASL password; better as CASTLINE_KAFKA__PASSWORD or password_file.")
    password_file: Path | None = Field(None, description="File that holds the SASL password.")
    request_timeout_s: float = Field(20, ge=5, le=300, description="Longest wait for a broker's answer to one request.")
    session_timeout_s: float = Field(10, ge=6, le=300, description="A worker silent for so long loses its partitions.")
    commit_interval_s: float = Field(0.5, ge=0.1, le=60, description="Time between commits: a crash repeats at most this much work.")

    @model_validator(mode="after")
    def _has_what_security_needs(self) -> Self:
        if self.security.startswith("sasl"):
            if not self.username:
                raise ValueError(f"security {self.security} wants a username")
            if not self.secret():
                raise ValueError(f"security {self.security} wants a password or password_file")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self

    def secret(self) -> str:
        """The SASL password, from the setting or its file; empty where none is set."""
        if self.password_file is not None:
            try:
                return self.password_file.read_text().strip()
            except OSError as error:
                raise ValueError(f"password_file {self.password_file} cannot be read: {error.strerror}") from None
        return self.password.get_secret_value()


class TopicSettings(Section):
    """[topics]: names and keeping."""

    prefix: str = Field("castings", pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="First part of every topic's name.")
    image_partitions: int = Field(4, ge=1, le=256, description="Partitions of an image topic: the most inspectors that share a line.")
    image_hours: float = Field(24, gt=0, le=8760, description="How long pictures are kept.")
    record_days: float = Field(30, gt=0, le=3660, description="How long verdicts, sortings, findings and dead letters are kept.")
    replication: int = Field(1, ge=1, le=9, description="Copies of each partition; 3 on a cluster.")
    max_message_bytes: int = Field(8 * 2**20, ge=2**16, le=256 * 2**20, description="Largest record, bytes.")
