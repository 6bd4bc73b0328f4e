"""The command `infer`, installed as its users do: in an environment where nothing of ours is."""

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.stack import REPOSITORY, Stack
from tests.lacking import cannot_run

INSTALL_SECONDS = 120
COMMAND_SECONDS = 60


def install(folder: Path) -> Path:
    """The folder that has the command. Needs the package index."""
    venv.create(folder, with_pip=False)
    bin = folder / "bin"
    command = [sys.executable, "-m", "pip", "--python", str(bin / "python"), "install", "--quiet", "./client"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        cannot_run(f"the client can't be installed: {done.stderr[-500:]}")
    return bin


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Infer:
    """`infer("status", uid)` runs it in `folder`, with these settings in its environment and no others."""

    bin: Path
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, stack: Stack, bin: Path, folder: Path) -> "Infer":
        settings = {"INFER_URL": stack.gateway_url, "INFER_CA": str(stack.certificates.ca_cert)}
        return cls(bin, folder, settings)

    def __call__(self, *arguments: str | Path, **settings: str) -> Done:
        with self.start(*arguments, **settings) as process:
            out, err = process.communicate(timeout=COMMAND_SECONDS)
        return Done(process.returncode, out, err)

    def start(self, *arguments: str | Path, **settings: str) -> subprocess.Popen[str]:
        environment = {"HOME": str(self.folder), "PATH": f"{self.bin}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
        return subprocess.Popen(
            ["infer", *map(str, arguments)],
            cwd=self.folder,
            env=environment | self.settings | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
