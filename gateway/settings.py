"""What an operator may set of the gateway. Each field is an environment variable of the same name, in capitals."""

import os
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from core.client import CoreAccess
from core.exposition import MetricsPort


class Settings(CoreAccess, MetricsPort):
    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    gateway_name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=256)
    """Under which core lists it."""

    gateway_host: str = "0.0.0.0"  # noqa: S104 - this is the public door
    gateway_port: int = 8443
    gateway_workers: int = Field(default_factory=lambda: max(1, min(4, (os.cpu_count() or 1) // 2)), ge=1)
    """Processes. One moves some 400 MB/s through TLS. By default half of the CPUs, and no more than 4."""

    tls_cert_file: Path = Path("tls/certs/server.crt")
    tls_key_file: Path = Path("tls/certs/server.key")
    tls_client_ca_file: Path | None = None
    """Who has signed the certificates that clients must show; None: they need none."""

    hsts_days: int = Field(default=365, ge=0)
    """For so long browsers come by https alone, to all ports of the name; 0: as they like."""

    http_redirect_port: int | None = Field(default=None, ge=1, le=65535)
    """Where plain HTTP is told to come by https; None: nowhere."""
    https_port: int = Field(default=443, ge=1, le=65535)
    """Where it is told to come."""

    allow_public_post_model: str = ""
    """Anything but the empty string lets the public register models, as in version 1."""

    allow_operators: Literal["", "yes"] = ""
    """Whether operators are let in as well, with an admin's API key."""

    max_connections: int = Field(default=8192, ge=1)
    max_connections_per_address: int = Field(default=2048, ge=1)
    """Of each process. An address may be a whole organisation's."""
