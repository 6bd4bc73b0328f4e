"""`python core/probe.py URL` exits with 0 if the service in this container answers there with 200: its HEALTHCHECK. A
gateway that asks clients for certificates says nothing to a probe, which has none: with `--handshake` TLS is enough.

Nothing but the standard library, because it runs every few seconds. Whose the certificate is doesn't matter here: it
need not name the loopback address.
"""

import http.client
import ssl
import sys
from typing import Final
from urllib.parse import urlsplit

ANSWER_SECONDS: Final = 2.0


def main() -> int:
    url = urlsplit(sys.argv[1])
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        anybody = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(url.netloc, timeout=ANSWER_SECONDS, context=anybody)
    else:
        connection = http.client.HTTPConnection(url.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.connect()
        if "--handshake" in sys.argv:
            return 0
        connection.request("GET", url.path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(repr(error))
        return 1
    return 0 if status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
