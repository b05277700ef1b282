"""The sub-commands by name; what a command needs is imported when it is run."""

from importlib import import_module

from dfl.errors import ConfigError

__all__ = ["COMMANDS", "LIGHTNING", "run"]

COMMANDS = {
    "extract": "run frozen backbones over images once; keep their features in a folder",
    "encode": "turn a feature folder into the codes of a trained autoencoder bottleneck",
    "heads": "fit scikit-learn heads on a feature folder: SVM, LDA and others",
    "score": "score a feature folder with a fitted head",
    "evaluate": "turn score tables into metrics per dataset and generator",
    "study": "train every head on every backbone, test across datasets, and report",
    "detect": "score a folder of images with a trained detector, into a CSV",
    "bench": "measure images per second: data path, backbones, extract",
    "demo": "a complete run on photographs that come with PyPI packages, in two minutes",
}
LIGHTNING = {
    "fit": "train a head: a linear probe, an autoencoder bottleneck, or a whole network",
    "validate": "evaluate a checkpoint on the validation images",
    "test": "evaluate a checkpoint on the test images, per dataset and generator",
    "predict": "score the images of a data module",
}


def run(argv: list[str]) -> None:
    """Run one sub-command; whatever it raises is the caller's to show.

    Args:
        argv: The command line, the sub-command first.

    Raises:
        ConfigError: If there is no such sub-command.
    """
    name = argv[0]
    # importing Lightning takes seconds, which --help and the light commands need not spend
    if name in LIGHTNING:
        from dfl.app.lightning_cli import run_trainer

        run_trainer(argv)
    elif name in COMMANDS:
        from dfl.app.parser import run_command

        command = getattr(import_module(f"dfl.commands.{name}"), name)
        run_command(command, argv[1:])
    else:
        known = ", ".join([*LIGHTNING, *COMMANDS])
        raise ConfigError(f"no sub-command {name!r}; there are: {known}")
