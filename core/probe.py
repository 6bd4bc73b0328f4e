"""`python core/probe.py URL` exits with 0 if the service in this container answers there with 200: its HEALTHCHECK.

Nothing but the standard library, because it runs every few seconds. Whose the certificate is doesn't matter here: it
need not name the loopback address.
"""

import http.client
import ssl
import sys
from typing import Final
from urllib.parse import urlsplit

ANSWER_SECONDS: Final = 2.0
ASKED_FOR_ONE: Final = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
"""By a gateway that lives, and answers only clients that show a certificate: a probe has none."""


def main() -> int:
    url = urlsplit(sys.argv[1])
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        anybody = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(url.netloc, timeout=ANSWER_SECONDS, context=anybody)
    else:
        connection = http.client.HTTPConnection(url.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", url.path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "reason", "") == ASKED_FOR_ONE:
            return 0
        print(repr(error))
        return 1
    return 0 if status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
