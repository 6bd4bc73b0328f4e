"""What an engine lacks that the sandbox relies on, by what it says of itself."""

import pytest

from gpu_agent.sandbox import lacks

WHOLE = {
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
}


def test_an_engine_that_lacks_nothing() -> None:
    """Nor does one of 20.10, which has another word for its filter."""
    assert not [*lacks(WHOLE), *lacks({**WHOLE, "SecurityOptions": ["name=seccomp,profile=default"]})]


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ({"SecurityOptions": None}, "seccomp"),
        ({"SecurityOptions": ["name=apparmor"]}, "seccomp"),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, "seccomp"),
        ({"SwapLimit": False}, "swap"),
        ({"PidsLimit": False}, "processes"),
    ],
)
def test_what_an_engine_lacks_is_told(lack: dict[str, object], words: str) -> None:
    """Each by itself."""
    [told] = lacks({**WHOLE, **lack})
    assert words in told
