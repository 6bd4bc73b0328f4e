"""HTTP/2 over TLS, as a client speaks it that offers nothing else."""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

WAIT_SECONDS = 60
RECEIVED_AT_ONCE_BYTES = 65536


@dataclass
class Answer:
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    is_whole: bool = False

    @property
    def status_code(self) -> int:
        return int(self.headers[":status"])


def request(
    method: str, url: str, *, ca_cert: Path, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=ca_cert)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((parts.hostname, parts.port), WAIT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"
        http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http.initiate_connection()
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        pseudo = {":method": method, ":path": path, ":scheme": "https", ":authority": parts.netloc}
        http.send_headers(1, [*pseudo.items(), *(headers or {}).items()], end_stream=not body)
        answer = Answer()
        while not answer.is_whole:
            while body and (room := min(http.local_flow_control_window(1), http.max_outbound_frame_size)):
                http.send_data(1, body[:room], end_stream=len(body) <= room)
                body = body[room:]
            connection.sendall(http.data_to_send())
            received = connection.recv(RECEIVED_AT_ONCE_BYTES)
            assert received, "the server closed the connection"
            for event in http.receive_data(received):
                _take(http, event, answer)
        http.close_connection()
        connection.sendall(http.data_to_send())
    return answer


def _take(http: h2.connection.H2Connection, event: h2.events.Event, answer: Answer) -> None:
    match event:
        case h2.events.ResponseReceived():
            answer.headers = {str(name): str(value) for name, value in event.headers}
        case h2.events.DataReceived():
            answer.content += event.data
            http.acknowledge_received_data(event.flow_controlled_length, 1)
        case h2.events.StreamEnded():
            answer.is_whole = True
        case h2.events.StreamReset() | h2.events.ConnectionTerminated():
            raise AssertionError(event)
