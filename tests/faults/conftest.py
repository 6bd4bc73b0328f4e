"""The stack of the end-to-end tests, and their check that nothing is left behind."""

from tests.e2e.conftest import all_leaks, api, copying, core, images, leaks, model, waiting

__all__ = ["all_leaks", "api", "copying", "core", "images", "leaks", "model", "waiting"]
