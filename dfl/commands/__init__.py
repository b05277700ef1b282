"""The sub-commands: typed functions, importable and tested as such; importing one is cheap."""
