"""Those who tell core every few seconds that they are there."""

from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel, computed_field

REPORT_SECONDS: Final = 10.0
IS_THERE: Final = timedelta(seconds=3.5 * REPORT_SECONDS)
"""Past its last word."""


class Present(BaseModel):
    """What core adds to a report."""

    name: str
    seen: datetime

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_there(self) -> bool:
        return datetime.now(UTC) - self.seen <= IS_THERE
