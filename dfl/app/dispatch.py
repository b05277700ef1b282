"""The commands by name; what a command needs is imported when it is run, not for its help."""

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from typing import Final

from dfl.app.check import check_given
from dfl.app.given import with_flags, with_lists
from dfl.app.help import command_help, option_help, overview
from dfl.app.signature import Signature, signature_of
from dfl.errors import ConfigError

COMMANDS: Final = (
    *("reconstruct", "extract", "encode", "heads", "score", "evaluate", "study", "detect"),
    *("bench", "demo"),
)
LIGHTNING: Final = {
    "fit": "Train a head: a linear probe, an autoencoder bottleneck, or a whole network.",
    "validate": "Evaluate a checkpoint on the validation images.",
    "test": "Evaluate a checkpoint on the test images, per dataset and generator.",
    "predict": "Score the images of a data module.",
}


def help_of_all() -> str:
    """List the commands."""
    own = {name: _signature(name).summary for name in COMMANDS}
    return overview({"Train and test with Lightning": LIGHTNING, "Work on files": own})


def run(argv: Sequence[str]) -> None:
    """Run one command; whatever it raises is the caller's to show.

    Args:
        argv: The command line, the command first.

    Raises:
        ConfigError: If there is no such command.
        ArgumentError: If an argument is unknown, missing or of the wrong type.
        SystemExit: After a help.
    """
    name, *args = argv
    if name not in LIGHTNING and name not in COMMANDS:
        known = [*LIGHTNING, *COMMANDS]
        near = "".join(f"{each}? " for each in get_close_matches(name, known, n=1))
        raise ConfigError(f"no sub-command {name!r}; {near}there are: {', '.join(known)}")
    signature = _signature(name)
    if (asked := _asked(args)) is None:
        args = with_flags(signature, with_lists(args))
        check_given(signature, args)
    elif (shown := _help(name, signature, *asked)) is not None:
        with suppress(BrokenPipeError):  # into `head`
            print(shown, flush=True)
        raise SystemExit(0)
    if name in LIGHTNING:
        from dfl.app.lightning_cli import run_trainer

        run_trainer([name, *(arg.removesuffix("=all") if asked else arg for arg in args)])
    else:
        from dfl.app.parser import run_command

        run_command(getattr(import_module(f"dfl.commands.{name}"), name), args)


def _signature(name: str) -> Signature:
    path = f"dfl.commands.{name}.{name}"
    signature = signature_of(
        "dfl.app.lightning_cli.LightningOptions" if name in LIGHTNING else path
    )
    if signature is None:
        raise ConfigError(f"{name}: its source is not there; install dfl with its .py files")
    return signature


def _asked(args: Sequence[str]) -> tuple[str, str] | None:
    """Find what help is asked for: the option, none for that of the command, and the name there."""
    for arg, following in pairwise([*args, "--"]):
        option, _, value = arg.partition("=")
        if option in ("-h", "--help"):
            return "", value
        if option.startswith("--") and option.endswith(".help"):
            return option[2:-5], value or ("" if following.startswith("-") else following)
    return None


def _help(name: str, signature: Signature, option: str, value: str) -> str | None:
    """Write a help; None if it is the parser's to give."""
    if option:
        return option_help(signature, option, value or None)
    if value == "all" and name in LIGHTNING:
        return None
    return command_help(name, signature, summary=LIGHTNING.get(name, ""))
