"""Which images an operator's list of repositories lets run."""

import pytest
from pydantic import ValidationError

from core.contract.errors import InvalidParameters
from core.contract.images import ANY_IMAGE, ImageAllowance, repository_of
from core.contract.model import ModelSpec
from gpu_agent.settings import Settings

DIGEST = "@sha256:" + 64 * "a"


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1", "docker.io/library/busybox"),
        (f"busybox:1{DIGEST}", "docker.io/library/busybox"),
        ("library/busybox", "docker.io/library/busybox"),
        ("docker.io/busybox", "docker.io/library/busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox"),
        ("team/model", "docker.io/team/model"),
        ("localhost/model", "localhost/model"),
        ("registry/model", "docker.io/registry/model"),
        ("registry.example.org/a/b/c:1", "registry.example.org/a/b/c"),
        (f"registry.example.org:5000/model{DIGEST}", "registry.example.org:5000/model"),
    ],
)
def test_a_reference_names_a_repository(reference: str, repository: str) -> None:
    """As engines read it."""
    assert repository_of(reference) == repository


@pytest.mark.parametrize(
    ("listed", "reference"),
    [
        ("", "anything/at-all:1"),
        ("", "sha256:" + 64 * "a"),
        ("registry.example.org/models/*", "registry.example.org/models/lung:3"),
        ("registry.example.org/models/*", "registry.example.org/models/team/lung"),
        ("registry.example.org/*", f"registry.example.org/lung{DIGEST}"),
        ("registry.example.org/models/lung", "registry.example.org/models/lung:3"),
        (" other.example.org/* , registry.example.org:5000/lung ", "registry.example.org:5000/lung:1"),
        ("busybox", "docker.io/library/busybox:1"),
        ("docker.io/library/busybox", "busybox"),
        ("docker.io/*", "team/model"),
        ("team/*", "docker.io/team/model"),
        ("docker.io/*", "docker.io/library/ada"),
    ],
)
def test_what_is_listed_runs(listed: str, reference: str) -> None:
    """Under each of its names."""
    assert ImageAllowance.of(listed).allows(reference)


@pytest.mark.parametrize(
    ("listed", "reference"),
    [
        ("registry.example.org/models/*", "registry.example.org.evil.example/models/lung"),
        ("registry.example.org/models/*", "evil.example/registry.example.org/models/lung"),
        ("registry.example.org/models/*", "registry.example.org:5000/models/lung"),
        ("registry.example.org/models/*", "registry.example.org/models-of-others/lung"),
        ("registry.example.org/models/*", "registry.example.org/models"),
        ("registry.example.org/models/*", "registry.example.org/other/models/lung"),
        ("registry.example.org/models/*", "models/lung"),
        ("registry.example.org/models/lung", "registry.example.org/models/lung/other"),
        ("registry.example.org/models/lung", "registry.example.org/models/lungs"),
        ("registry.example.org/models/lung", f"registry.example.org/models/other:lung{DIGEST}"),
        ("busybox", "evil/busybox"),
        ("busybox", "registry.example.org/library/busybox"),
        ("docker.io/library/*", "sha256:" + 64 * "a"),
        ("docker.io/library/*", "3f57d9401f8d"),
        ("docker.io/*", 64 * "a"),
    ],
)
def test_what_only_looks_like_it_does_not(listed: str, reference: str) -> None:
    """Nor what an engine might take for the id of whatever image its host has."""
    with pytest.raises(InvalidParameters, match="IMAGE_ALLOW"):
        ImageAllowance.of(listed).check(reference)


@pytest.mark.parametrize(
    "entry",
    [
        *("Registry.example.org/*", "*", "registry.example.org/*/lung", "registry.example.org/lung*", "/*", "a b"),
        *("lung:3", "lung@evil", f"lung{DIGEST}", "https://registry.example.org/*"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(entry: str) -> None:
    """At the start: a service doesn't run with a shorter list than its operator thinks."""
    with pytest.raises(ValidationError, match="is no repository"):
        Settings(core_token="x", image_allow=f"busybox,{entry}")


@pytest.mark.parametrize(
    "reference",
    [
        *("registry.example.org/models@evil.example/lung", "registry.example.org/models/lung@sha256:beef", "../lung"),
        *("Registry.example.org/models/lung", "registry.example.org//lung", "registry.example.org/lung:1 --privileged"),
        *(
            "user@registry.example.org/lung",
            "lung\n",
            "registry.example.org/lung?x",
            "http://registry.example.org/lung",
        ),
    ],
)
def test_what_is_no_reference_is_no_models_image(reference: str) -> None:
    """Whatever is listed."""
    with pytest.raises(ValidationError, match="container_tag"):
        ModelSpec(human_readable_id="lung", container_tag=reference)


def test_without_a_list_everything_runs() -> None:
    """As version 1 had it."""
    ANY_IMAGE.check("evil.example/anything")
