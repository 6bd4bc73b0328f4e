"""Pages for people: files of ours, under a policy by which a browser loads and runs nothing else."""

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from quart import Quart, Response, send_from_directory

SHARED: Final = resources.files("core").joinpath("page", "shared")
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": "no-cache",  # an update is seen at once
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_files(app: Quart, folder: Traversable) -> None:
    """A page's own files at `/page/`, and below it at `shared/` what all pages have."""

    @app.get("/page/<name>")
    async def own(name: str) -> Response:
        return await page_file(folder, name)

    @app.get("/page/shared/<name>")
    async def shared(name: str) -> Response:
        return await page_file(SHARED, name)


async def page_file(folder: Traversable, name: str) -> Response:
    response = await send_from_directory(str(folder), name)
    response.headers.update(HEADERS)
    return response
