"""What the system is made of, as it is installed and locked here."""

import re
from pathlib import Path

import pytest

from deploy import supply

ROOT = Path(supply.ROOT)


@pytest.mark.parametrize("lock", [supply.SHIPPED, supply.ALL])
def test_every_package_is_pinned_by_hashes(lock: str) -> None:
    """No line asks for another version than one, or for a file that nobody has seen."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if re.match(r"[^\s#]", line)]
    packages = supply.packages(lock)
    assert len(packages) == len(lines) > 30
    assert all(package.hashes for package in packages)


def test_the_images_take_what_is_locked() -> None:
    """By its hashes, ready built: nothing of a package runs while it is installed."""
    [install] = re.findall(r"pip .*?install(?:.*\\\n)*.*", (ROOT / "Dockerfile").read_text())
    assert {"--require-hashes", "--only-binary", "/tmp/requirements.txt"} <= set(install.split())


def test_licences_are_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the packages installed here; who adds one reads its licence."""
    assert supply.list_licences() == 0, capsys.readouterr().err
    assert "| quart | " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        *(("MIT", True), ("Apache-2.0 AND MIT", True), ("GPL-3.0-only OR MIT", True)),
        *(("MIT AND GPL-3.0-only", False), ("AGPL-3.0", False), ("unknown", False), ("", False)),
    ],
)
def test_what_is_allowed(licence: str, allowed: bool) -> None:
    assert supply.is_allowed(licence) is allowed


def test_the_bill_of_materials_names_all() -> None:
    """Packages with the hashes of their files, and each image that isn't ours."""
    components = supply.sbom()["components"]
    assert isinstance(components, list)
    libraries = {part["name"]: part for part in components if part["type"] == "library"}
    assert libraries.keys() == {package.name for package in supply.packages(supply.SHIPPED)}
    assert all(part["externalReferences"][0]["hashes"][0]["content"] for part in libraries.values())
    assert {"python", "redis", "rabbitmq"} <= {part["name"] for part in components if part["type"] == "container"}
    assert len({part["bom-ref"] for part in components}) == len(components)
