"""The user's tool: command line, project files, build, serve, eval."""

__version__ = "0.1.0"
