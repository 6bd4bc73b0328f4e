"""`/openapi.json`, and `/docs`: Swagger UI from local files, so that it works without internet."""

from base64 import b64encode
from hashlib import sha256
from importlib import resources
from typing import Any, Final

from quart import Quart, Response, send_from_directory

from core.openapi.document import document
from core.openapi.operation import At

_SWAGGER_UI: Final = resources.files("flask_swagger_ui").joinpath("dist")
_START: Final = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null})'
_PAGE: Final = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/docs/favicon-32x32.png"><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script><script>{_START}</script></body></html>
"""
_START_DIGEST: Final = b64encode(sha256(_START.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'self'; script-src 'self' 'sha256-{_START_DIGEST}'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
"""Swagger UI sets styles where they stand, and has its icons in its styles; nothing comes from elsewhere."""


def add_docs(app: Quart, title: str, at: At) -> None:
    described = document(title, at)

    @app.get("/openapi.json")
    async def openapi() -> dict[str, Any]:
        return described

    @app.get("/docs")
    async def page() -> Response:
        headers = {"Content-Security-Policy": _POLICY}
        return Response(_PAGE, headers=headers, content_type="text/html; charset=utf-8")

    @app.get("/docs/<name>")
    async def file(name: str) -> Response:
        return await send_from_directory(str(_SWAGGER_UI), name)
