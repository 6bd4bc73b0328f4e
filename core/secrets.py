"""Secrets that operators keep in files, and URLs that get theirs from there."""

from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SecretsInFiles(BaseSettings):
    """A setting `x` beside a setting `x_file` is what stands in that file; where it is set itself, there is no file."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, values: dict[str, object]) -> dict[str, object]:
        for name in cls.model_fields:
            file = values.get(f"{name}_file")
            if file and values.get(name):
                values[f"{name}_file"] = None
            elif file:
                values[name] = Path(str(file)).read_text().strip("\r\n")
        return values


def with_password(url: str, password: str) -> str:
    """The URL with the password, whatever its characters, unless it has one already or there is none."""
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    if not password or ":" in user:
        return url
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{hosts}").geturl()
