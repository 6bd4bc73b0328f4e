"""What an attempt says of itself while it runs, and what those who listen are told of it."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from core.contract.task import Progress

SAID_CHARACTERS: Final = 2**17


class Said(BaseModel):
    """What the container of an attempt has printed since the batch before."""

    model_config = ConfigDict(frozen=True)

    batch: int = Field(ge=1)
    """Counts within the attempt: one that is sent twice is taken once."""
    text: str = Field(default="", max_length=SAID_CHARACTERS)
    progress: Progress | None = None
    """The latest, if there is news of it."""


class Printed(BaseModel):
    """A piece of an attempt's log."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    text: str
