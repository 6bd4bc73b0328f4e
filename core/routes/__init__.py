"""Core's private API: thin, each route one call of core/dispatch.py."""
