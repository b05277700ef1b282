"""What the server of processes does before one is asked for: the slow part of every command."""

import PIL.Image

import dfl.app.lightning_cli
import dfl.commands.extract
import dfl.commands.study  # noqa: F401
from dfl.app.signature import definitions_of

PIL.Image.init()  # imports a module for each format
definitions_of("dfl.data.sources.base.Source")  # reads the source of every class with a name
