"""What the contract's functions raise."""


class InvalidZip(Exception):  # noqa: N818 - names a verdict on someone's bytes, not a failure of ours
    """The bytes are no zip that can be run; `detail` is a sentence for the one who sent them."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
