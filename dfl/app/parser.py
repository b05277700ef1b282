"""Running a typed function as a command, with a config file and a resolved config."""

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dfl.errors import DflError
from dfl.files import drop_leftovers, writing

_resolved: ContextVar[str] = ContextVar("resolved", default="")


def command_parser(command: Callable[..., object]) -> ArgumentParser:
    """Make the parser of a command.

    Args:
        command: A typed function.

    Returns:
        A parser that raises ``argparse.ArgumentError`` where arguments are wrong.
    """
    parser = ArgumentParser(prog=f"dfl {command.__name__}", exit_on_error=False)
    parser.add_argument("-c", "--config", action="config")
    parser.add_function_arguments(command, as_group=False, sub_configs=True)
    return parser


def run_command(command: Callable[..., object], args: list[str]) -> object:
    """Run a command with the arguments given, and keep the resolved config beside what it makes.

    Args:
        command: A typed function.
        args: Its command line.

    Returns:
        What the command returns.

    Raises:
        ArgumentError: If an argument is unknown, missing or of the wrong type.
        DflError: If a class refuses its arguments.
    """
    parser = command_parser(command)
    config = parser.parse_args(args)
    try:
        arguments = parser.instantiate(config)
    except ValueError as err:
        if isinstance(err.__cause__, DflError):
            raise err.__cause__ from None  # jsonargparse wraps what an optional class says
        raise
    arguments.pop("config", None)
    text = parser.dump(config, skip_unset=False)
    token = _resolved.set(text)
    try:
        result = command(**arguments)
    finally:
        _resolved.reset(token)
    out = arguments.get("out")
    # a command that gives nothing has made nothing, such as a study of which only the plan is shown
    if isinstance(out, Path) and out.exists() and result is not None:
        _save_config(text, config, out)
    return result


def resolved_config() -> str:
    """Give the config of the command that runs, as YAML; empty where a function was called."""
    return _resolved.get()


def _save_config(text: str, config: Namespace, out: Path) -> None:
    file = out / "config.yaml" if out.is_dir() else out.with_name(f"{out.name}.config.yaml")
    if is_given(file, config):
        return
    drop_leftovers(file)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        with writing(file) as partial:
            partial.write_text(text, encoding="utf-8")


def is_given(file: Path, config: Namespace) -> bool:
    """Tell whether a file is one of those that a user gave with --config: those stay as they are.

    Args:
        file: A file that would be written.
        config: What was parsed from a command line.
    """
    given = [str(path) for path in config.get("config") or ()]
    return file.resolve() in [Path(path).resolve() for path in given]
