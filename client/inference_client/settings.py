"""Which server, and how to speak to it: flags before the environment before a file."""

import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inference_client.client import PATIENCE_SECONDS
from inference_client.errors import NotConfigured

log = logging.getLogger("inference_client")

FILE_NAME: Final = "infer.toml"
KEYS: Final = ("url", "ca", "cert", "key", "patience")
PATHS: Final = ("ca", "cert")


@dataclass(frozen=True)
class Settings:
    """`patience_seconds`: how long a transfer or a question bears that the server is away."""

    url: str
    ca: Path | None
    cert: Path | None
    key: str | None
    patience_seconds: float

    @classmethod
    def read(cls, flags: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises NotConfigured. A path in the file is relative to the file."""
        file = config_file(environment)
        said = {name: value for name, value in flags.items() if value is not None}
        said = _of_environment(environment) | said
        said = _of_file(file, is_named=bool(environment.get("INFER_CONFIG"))) | said
        if "url" not in said:
            raise NotConfigured(
                f'Which server? Say --url https://HOST:PORT, set INFER_URL, or write `url = "https://…"` into {file}'
            )
        try:
            patience_seconds = float(said.get("patience", PATIENCE_SECONDS))
        except ValueError:
            raise NotConfigured(f"patience is a number of seconds, not {said['patience']!r}") from None
        ca, cert = (Path(said[name]) if said.get(name) else None for name in PATHS)
        return cls(said["url"], ca, cert, said.get("key"), patience_seconds)


def config_file(environment: Mapping[str, str]) -> Path:
    """Where this platform keeps such files: %APPDATA% on Windows, elsewhere $XDG_CONFIG_HOME or ~/.config."""
    if named := environment.get("INFER_CONFIG"):
        return Path(named)
    folder = environment.get("APPDATA") if os.name == "nt" else environment.get("XDG_CONFIG_HOME")
    return Path(folder or Path.home() / ".config") / FILE_NAME


def _of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name in KEYS if (value := environment.get(f"INFER_{name.upper()}"))}


def _of_file(file: Path, *, is_named: bool) -> dict[str, str]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if is_named:
            raise NotConfigured(f"INFER_CONFIG names {file}, which isn't there") from None
        return {}
    except (OSError, ValueError) as error:
        raise NotConfigured(f"{file} can't be read: {error}") from error
    if unknown := found.keys() - set(KEYS):
        raise NotConfigured(f"{file} has {', '.join(sorted(unknown))}; there are {', '.join(KEYS)}")
    if "key" in found and os.name != "nt" and file.stat().st_mode & 0o077:
        log.warning("%s has a key, and others on this machine may read it: chmod 600 %s", file, file)
    said = {name: str(value) for name, value in found.items()}
    paths = {name: str(file.parent / Path(said[name]).expanduser()) for name in PATHS if name in said}
    return said | paths
