"""Run dfl from a checkout: ``python train.py fit ...`` is the same as ``dfl fit ...``."""

from dfl.cli import main

if __name__ == "__main__":
    main()
