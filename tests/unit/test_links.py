"""README and the guides lead somewhere."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GUIDES = [
    REPOSITORY / "README.md",
    REPOSITORY / "SECURITY.md",
    *(path for folder in ("docs", "examples", "client") for path in sorted((REPOSITORY / folder).rglob("*.md"))),
]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")


def _anchors(text: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links(guide: Path) -> None:
    """To files that are there, and to headings in them."""
    dead = []
    for path, anchor in LINK.findall(guide.read_text()):
        target = guide.parent / path if path else guide
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text())):
            dead.append(f"{path}#{anchor}")
    assert not dead
