"""What travels between gateway, core and agents: types, states, errors. Pure: no IO, nothing of ours imported."""

from typing import Final

VERSION: Final = "2.0.0"
"""Of all services: pyproject.toml has the same."""
