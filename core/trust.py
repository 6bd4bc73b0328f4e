"""TLS to Redis and RabbitMQ, when it fails."""

import ssl


def is_untrusted(error: BaseException | None) -> bool:
    """Whether behind the error is a certificate that no known CA signed, or that is for another name."""
    met: set[BaseException] = set()  # an error that is raised anew while another is handled can be behind itself
    while error is not None and error not in met:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        met.add(error)
        error = error.__cause__ or error.__context__
    return False
