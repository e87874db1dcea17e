"""The command line. Nothing heavy is imported before a command is known."""

from pipeline.cli.app import app, main

__all__ = ["app", "main"]
