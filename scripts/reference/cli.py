"""cli.md, from the argument parsers. argparse's own help differs between versions of Python, so it is not used."""

import argparse
from collections.abc import Iterator

from albatros.cli import parser
from scripts.reference.markdown import code, table

INTRODUCTION = """# Command line

`albatros COMMAND`; `alba` is a short name of it. Exit codes: 0 done, 1 it failed, 2 wrong use. Data goes to stdout,
everything else to stderr.
"""


def page() -> str:
    """cli.md."""
    return "\n".join([INTRODUCTION, *_sections("albatros", parser(), "", [], top=True)])


def _sections(
    name: str, command: argparse.ArgumentParser, help_text: str, aliases: list[str], *, top: bool = False
) -> Iterator[str]:
    subcommands = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not top:
        yield f"{'##' if name.count(' ') == 1 else '###'} {name}\n\n{_text(command, help_text)}\n"
    if aliases:
        yield f"Also: {', '.join(code(alias) for alias in aliases)}.\n"
    if not subcommands or top:
        yield from _arguments(name, command)
    for action in subcommands:
        help_of = {choice.dest: choice.help or "" for choice in action._choices_actions}
        names: dict[argparse.ArgumentParser, list[str]] = {}
        for word, subparser in action.choices.items():
            names.setdefault(subparser, []).append(word)
        for subparser, (word, *others) in names.items():
            yield from _sections(f"{name} {word}", subparser, help_of.get(word, ""), others)


def _text(command: argparse.ArgumentParser, help_text: str) -> str:
    text = (command.description or help_text).strip()
    text = text[:1].upper() + text[1:]
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _arguments(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    actions = [action for action in command._actions if not isinstance(action, argparse._SubParsersAction)]
    shown = [action for action in actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    usage = " ".join([name, *(_usage(action) for action in shown)])
    yield f"```\n{usage}\n```\n"
    if shown:
        yield table(["argument", "meaning"], ([code(_spelling(action)), _meaning(action)] for action in shown))


def _usage(action: argparse.Action) -> str:
    text = _spelling(action).split(", ")[-1] if action.option_strings else _value(action)
    return text if action.required else f"[{text}]"


def _spelling(action: argparse.Action) -> str:
    if not action.option_strings:
        return _value(action)
    value = "" if action.nargs == 0 else f" {_value(action)}"
    return ", ".join(option + value for option in action.option_strings)


def _value(action: argparse.Action) -> str:
    metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
    if metavar is None:
        plain = action.dest.upper() if action.option_strings else action.dest
        metavar = "{" + ",".join(str(choice) for choice in action.choices) + "}" if action.choices else plain
    return f"{metavar}…" if action.nargs in {"+", "*"} else str(metavar)


def _meaning(action: argparse.Action) -> str:
    values = {**vars(action), "prog": "albatros"}
    return ((action.help or "") % values) if action.help else ""
