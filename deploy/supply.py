"""What the system is made of, as the locks say: `just licences`, `just sbom`, `just audit-deps`."""

import argparse
import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from core.contract import VERSION

ROOT: Final = Path(__file__).parent.parent
SHIPPED: Final = "requirements.txt"
"""What is in the images. The other lock has it as well, and what works on it."""
ALL: Final = "requirements-dev.txt"
IMAGES_IN: Final = ("Dockerfile", "docker-compose.yaml", "deploy/monitoring.yaml")
AUDITOR: Final = ROOT / ".tools" / "pip-audit"
AUDITED_WITH: Final = "pip-audit==2.10.0"
NOT_REACHED: Final = re.compile("ConnectionError|ServiceError|Could not|Max retries|Name or service", re.IGNORECASE)

ALLOWED: Final = {
    *(
        "MIT",
        "MIT-0",
        "MIT License",
        "ISC",
        "ISC License (ISCL)",
        "Apache-2.0",
        "Apache 2.0",
        "Apache Software License",
    ),
    *("BSD", "BSD-2-Clause", "BSD-3-Clause", "BSD License", "PSF-2.0", "Python Software Foundation License"),
    *("MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)", "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication"),
}
"""They ask to be named; MPL also for changes to its own files, and we change none."""

READ_BY_HAND: Final = {
    "atheris": "Apache-2.0",
    "axe-playwright-python": "MIT",
    "supervisor": "BSD-3-Clause",
}
"""Of those whose metadata say nothing that a program can judge: what their licence files say."""

_PINNED: Final = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[^\s;\\]+)(?P<rest>(?:.*\\\n)*.*)", re.MULTILINE
)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_IMAGE: Final = re.compile(r"^(?:ARG PYTHON=|\s+image: )(?P<name>[a-z][^\s:$]*):(?P<tag>[^\s$]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    hashes: tuple[str, ...]
    """SHA-256 of each file that may be installed."""


def packages(lock: str) -> list[Package]:
    found = _PINNED.finditer((ROOT / lock).read_text())
    return [Package(match["name"], match["version"], tuple(_HASH.findall(match["rest"]))) for match in found]


def images() -> list[tuple[str, str]]:
    """Name and tag of each that isn't ours."""
    named = {match.groups() for file in IMAGES_IN for match in _IMAGE.finditer((ROOT / file).read_text())}
    return sorted((str(name), str(tag)) for name, tag in named)


def licence(name: str) -> str | None:
    """As an SPDX expression or in the package's words; None when it isn't installed here."""
    if name in READ_BY_HAND:
        return READ_BY_HAND[name]
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if expressions := said.get_all("License-Expression"):
        return str(expressions[0])
    classified = [words.rpartition(" :: ")[2] for words in said.get_all("Classifier") or () if "License ::" in words]
    named = [words for words in classified if words != "DFSG approved"]
    return " OR ".join(named) or (said.get_all("License") or ["unknown"])[0].partition("\n")[0]


def is_allowed(licence: str) -> bool:
    """Of alternatives one; the names of some classifiers have parentheses."""
    return all(any(one in ALLOWED for one in part.split(" OR ")) for part in licence.split(" AND "))


def list_licences() -> int:
    """A table of all; the exit code is 1 when one isn't allowed."""
    refused = []
    shipped = {package.name for package in packages(SHIPPED)}
    print("| package | version | licence | in the images |\n|---|---|---|---|")
    for package in packages(ALL):
        words = licence(package.name)
        if words is None:
            continue  # for another system or Python
        print(f"| {package.name} | {package.version} | {words} | {'yes' if package.name in shipped else ''} |")
        if not is_allowed(words):
            refused.append(f"{package.name}: {words}")
    for line in refused:
        print(f"not allowed: {line}", file=sys.stderr)
    return int(bool(refused))


def sbom() -> dict[str, object]:
    """CycloneDX 1.6 of what the images are made of: the Python packages with the hashes of their files, and the images
    below ours and beside them.
    """
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "inference-server", "version": VERSION}},
        "components": [*_libraries(), *_containers()],
    }


def _libraries() -> Iterator[dict[str, object]]:
    for package in packages(SHIPPED):
        purl = f"pkg:pypi/{package.name}@{package.version}"
        files = [
            {"type": "distribution", "url": purl, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for digest in package.hashes
        ]
        words = licence(package.name)
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": purl,
            "name": package.name,
            "version": package.version,
            "purl": purl,
            "externalReferences": files,
        }
        if words:
            component["licenses"] = [{"license": {"name": words}}]
        yield component


def _containers() -> Iterator[dict[str, object]]:
    for name, tag in images():
        purl = f"pkg:docker/{name}@{tag}"
        yield {"type": "container", "bom-ref": purl, "name": name, "version": tag, "purl": purl}


def audit() -> int:
    """Known vulnerabilities of what the locks name. 0: none; 1: some; 2: nobody could be asked."""
    if not (AUDITOR / "bin" / "pip-audit").exists():
        venv.create(AUDITOR, with_pip=True, clear=True)
        pip = [str(AUDITOR / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, AUDITED_WITH], check=True)
    command = [str(AUDITOR / "bin" / "pip-audit"), "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command += ["--vulnerability-service", "osv", "--requirement", ALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and NOT_REACHED.search(done.stderr):
        print("audit-deps: NOTHING WAS LOOKED UP: the vulnerability database isn't reached from here:", file=sys.stderr)
        print(done.stderr.strip().splitlines()[-1], file=sys.stderr)
        return 2
    print(done.stdout or done.stderr)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("licences", "sbom", "audit-deps"))
    match parser.parse_args().what:
        case "licences":
            return list_licences()
        case "sbom":
            print(json.dumps(sbom(), indent=1))
            return 0
        case _:
            return audit()


if __name__ == "__main__":
    sys.exit(main())
