"""What an operator may set of core. Each field is an environment variable of the same name, in capitals."""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from core.amqp import BrokerSettings
from core.contract.images import ListedRepositories
from core.contract.zips import ZipLimits
from core.retention import UPLOADS_HOURS, Retention
from core.secrets import with_password
from core.token import CoreToken

KiB: Final = 2**10
MiB: Final = 2**20


class Settings(BrokerSettings, CoreToken):
    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    core_host: str = "0.0.0.0"  # noqa: S104 - in its container; networks decide who reaches it
    core_port: int = 7000
    core_tls_cert_file: Path | None = None
    core_tls_key_file: Path | None = None
    """Both: core speaks TLS. Neither: plain HTTP."""
    redis_url: SecretStr = SecretStr("redis://redis:6379/0")
    redis_password: SecretStr = SecretStr("")
    redis_password_file: Path | None = None

    api_keys: Literal["", "required"] = ""
    """Whether clients of gateways need an API key. Else to know a task's uid is to be allowed everything with it."""

    lease_seconds: float = Field(default=20.0, gt=1)
    """An agent that has not renewed for so long has lost its task."""

    max_upload_mb: int = Field(default=16 * 1024, ge=1)
    max_unzipped_mb: int = Field(default=64 * 1024, ge=1)
    max_zip_ratio: float = Field(default=200.0, gt=1)
    max_zip_entries: int = Field(default=200_000, ge=1)
    verify_zip_mb: int = Field(default=64, ge=0)
    """Up to this unzipped size the content's checksums are verified before the answer; larger ones by the agent."""

    keep_inputs_hours: float = Field(default=24.0, ge=0, allow_inf_nan=False)
    """Of a task that failed, so that it can be tried again."""
    keep_outputs_hours: float = Field(default=7 * 24.0, ge=0, allow_inf_nan=False)
    keep_tasks_hours: float = Field(default=30 * 24.0, ge=0, allow_inf_nan=False)
    """After a task's end. A model may have its own."""
    keep_uploads_hours: float = Field(default=UPLOADS_HOURS, gt=0, allow_inf_nan=False)
    """After its last bytes, of an unfinished upload that can be resumed."""

    webhook_allow: str = ""
    """Names, addresses and networks of this organisation, with commas between, that webhooks may be sent to as well,
    also without TLS. What is on the internet need not stand here.
    """

    image_allow: ListedRepositories = ""
    """Repositories, with commas between, whose images may be registered as models; empty: all."""

    log_kb: int = Field(default=1024, ge=0)
    """Of what a task's containers print the last so much is kept, as long as the task is."""

    audit_entries: int = Field(default=100_000, ge=0)
    """The audit log keeps so many in Redis, beside the lines in core's log. 0: none."""

    redis_reserve_percent: float = Field(default=10.0, ge=0, lt=100)
    """Of Redis's maxmemory, for the outputs of running tasks and for bookkeeping: uploads and models may not use it."""

    @model_validator(mode="after")
    def _is_a_pair(self) -> Self:
        if (self.core_tls_cert_file is None) != (self.core_tls_key_file is None):
            raise ValueError("set both CORE_TLS_CERT_FILE and CORE_TLS_KEY_FILE, or neither")
        return self

    @property
    def redis_url_with_password(self) -> str:
        return with_password(self.redis_url.get_secret_value(), self.redis_password.get_secret_value())

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * MiB

    @property
    def log_bytes(self) -> int:
        return self.log_kb * KiB

    @property
    def keep(self) -> Retention:
        return Retention(
            inputs_hours=self.keep_inputs_hours,
            outputs_hours=self.keep_outputs_hours,
            tasks_hours=self.keep_tasks_hours,
        )

    @property
    def zip_limits(self) -> ZipLimits:
        return ZipLimits(
            max_total_bytes=self.max_unzipped_mb * MiB,
            max_ratio=self.max_zip_ratio,
            max_entries=self.max_zip_entries,
            verify_bytes=self.verify_zip_mb * MiB,
        )
