"""TLS to Redis and RabbitMQ, when it fails."""

import ssl


def is_untrusted(error: BaseException | None) -> bool:
    """Whether behind the error is a certificate that no known CA signed, or that is for another name."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
