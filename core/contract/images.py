"""Which images may be run: an operator's list of repositories."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import AfterValidator

from core.contract.errors import InvalidParameters
from core.contract.model import IMAGE_REFERENCE, without_tag

SETTING: Final = "IMAGE_ALLOW"

_DEFAULT_REGISTRY: Final = "docker.io"
_DEFAULT_FOLDER: Final = "library"
_IMAGE_ID: Final = re.compile(r"sha256|[0-9a-f]{1,64}")
"""What an engine may take for an image's id, or for how one begins."""


@dataclass(frozen=True)
class ImageAllowance:
    """Repositories, written out; one that ends in /* stands for all below it. None at all: every image may run."""

    repositories: frozenset[str] = frozenset()

    @classmethod
    def of(cls, listed: str) -> Self:
        """Of repositories with commas between. Raises ValueError naming one that can't be."""
        entries = filter(None, map(str.strip, listed.split(",")))
        return cls(frozenset(map(_written_out, entries)))

    def check(self, reference: str) -> None:
        """Raises InvalidParameters."""
        if not self.allows(reference):
            words = f"an image of a repository that the operator allows ({SETTING}), with its registry's name"
            raise InvalidParameters.wrong("query", "container_tag", words)

    def allows(self, reference: str) -> bool:
        if not self.repositories:
            return True
        repository = repository_of(reference)
        folders = repository.split("/")
        above = {"/".join([*folders[:count], "*"]) for count in range(1, len(folders))}
        return not _may_be_an_id(reference) and not self.repositories.isdisjoint({repository, *above})


def repository_of(reference: str) -> str:
    """Without tag and digest, and with the registry and the folder that a short name leaves out, as engines read it."""
    name = without_tag(reference)
    first, slash, rest = name.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        first, rest = _DEFAULT_REGISTRY, name
    if first == f"index.{_DEFAULT_REGISTRY}":
        first = _DEFAULT_REGISTRY
    if first == _DEFAULT_REGISTRY and "/" not in rest:
        rest = f"{_DEFAULT_FOLDER}/{rest}"
    return f"{first}/{rest}"


def _may_be_an_id(reference: str) -> bool:
    """Then the engine might run any image that its host has, under whatever name."""
    return bool(_IMAGE_ID.fullmatch(without_tag(reference)))


def _written_out(entry: str) -> str:
    """As `repository_of`. What stands for all below it is read with something below it."""
    name = entry.removesuffix("/*")
    below = "" if name == entry else "/x/x"
    if not IMAGE_REFERENCE.fullmatch(name + below) or without_tag(name + below) != name + below:
        raise ValueError(f"{entry!r} is no repository: registry.example.org/models/* or docker.io/library/busybox is")
    return repository_of(name + below).removesuffix(below) + entry.removeprefix(name)


def _checked(listed: str) -> str:
    ImageAllowance.of(listed)
    return listed


ListedRepositories = Annotated[str, AfterValidator(_checked)]
"""A setting: a list with an entry that is none mustn't be taken for a shorter list."""


ANY_IMAGE: Final = ImageAllowance()
