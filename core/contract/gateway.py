"""Who a gateway is, as it tells core every few seconds."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from core.contract.presence import Present


class GatewayReport(BaseModel):
    """What a gateway says of itself; its processes all say the same."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1, max_length=256)
    version: str = ""
    certificate_expires: datetime
    """Of the certificate that it serves."""
    certificate_refused: str = ""
    """Why it doesn't serve what the certificate's files hold now, but what they held before."""


class Gateway(GatewayReport, Present):
    """A gateway as core knows it."""
