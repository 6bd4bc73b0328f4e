"""The operator's page."""

from importlib import resources
from typing import Final

from quart import Response

from core.dispatch import Dispatch
from core.pages import add_files, page_file
from core.serving import App

PATH: Final = "/dashboard"
PAGE: Final = resources.files("core").joinpath("page")


def add_routes(app: App, _: Dispatch) -> None:
    add_files(app, PAGE)

    @app.get(PATH)
    async def dashboard() -> Response:
        return await page_file(PAGE, "index.html")
