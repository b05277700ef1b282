"""The sub-commands: typed functions, importable and tested as such; imported only when run."""
