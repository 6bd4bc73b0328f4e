"""CUDA programs of the checks, compiled on the spot, and an image with nothing but one of them."""

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

from demo.image import docker

SOURCES = Path(__file__).resolve().parent


def compiled(name: str, folder: Path) -> Path:
    """For the GPUs that are here, with CUDA's runtime inside: only the driver's libraries come from outside."""
    program = folder / name
    command = ["nvcc", "-O2", "-arch=native", "-cudart", "static", "-o", str(program), str(SOURCES / f"{name}.cu")]
    subprocess.run(command, check=True)
    return program


def image(docker_host: str, tag: str, program: Path) -> str:
    """The id of an image that has the program, as its command, and the libraries it is linked with."""
    linked = subprocess.run(["ldd", str(program)], check=False, capture_output=True, text=True).stdout
    libraries = set(re.findall(r"(/\S+) \(0x", linked))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        tar.add(program, program.name)
        for library in sorted(libraries):
            tar.add(library, library.lstrip("/"))
    command = f"CMD {json.dumps(['/' + program.name])}"
    return docker(docker_host, "import", "--change", command, "-", tag, stdin=buffer.getvalue()).strip()
