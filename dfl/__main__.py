"""``python -m dfl`` is the same as ``dfl``."""

from dfl.cli import main

main()
