"""A core and a gateway that require API keys, beside the stack's."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from inference_client import Client

from core.contract.key import Scope
from demo.stack import Stack
from tests.e2e import gateways
from tests.e2e.api import Api


@dataclass(frozen=True)
class Guarded:
    """`logs` is the folder with all that they log."""

    core_url: str
    gateway: gateways.Gateway
    operator: Api
    """The core, with its token."""
    logs: Path

    def with_key(self, key: str | None) -> Api:
        """The gateway's API, for who has that key."""
        api = Api.public(self.gateway.url, self.gateway.ca_cert)
        if key is not None:
            api.session.headers["Authorization"] = f"Bearer {key}"
        return api

    def client(self, key: str | None) -> Client:
        return Client(self.gateway.url, ca=self.gateway.ca_cert, key=key)

    def make(self, *scopes: Scope, **terms: object) -> dict[str, Any]:
        """What the operator is answered."""
        query = urlencode([("name", "of a test"), *(("scope", scope) for scope in scopes), *terms.items()])
        answer = self.operator.call("POST", f"/api/keys/?{query}")
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def revoke(self, id: str) -> None:
        assert self.operator.call("DELETE", f"/api/keys/{id}").status_code == 200

    @classmethod
    @contextmanager
    def up(cls, stack: Stack, folder: Path) -> Iterator["Guarded"]:
        with ExitStack() as running:
            core_url = running.enter_context(gateways.core(stack, folder, API_KEYS="required"))
            gateway = running.enter_context(gateways.gateway(stack, folder, CORE_URL=core_url, GATEWAY_WORKERS="1"))
            operator = Api.private(core_url, stack.token_file.read_text().strip())
            running.enter_context(operator.session)
            yield cls(core_url, gateway, operator, folder)
