"""states.md, from the enums of the domain and the docstrings of their members."""

import ast
import inspect
from collections.abc import Iterator
from enum import StrEnum

from albatros.domain import states
from scripts.reference.markdown import code, table

MACHINES = (states.BuildState, states.JobState, states.AttemptState, states.PublicationState)
WORDS = (states.Reason, states.Trigger, states.JobKind)
INTRODUCTION = """# States and reasons

What a Build, Job, Attempt or Publication can be, the moves between, and the one reason of an end that is no success.
The API, the events and the database use these words.
"""


def page() -> str:
    """states.md."""
    documented = _member_docs()
    parts = [INTRODUCTION]
    for machine in MACHINES:
        rows = ([code(state), _next(state), documented[machine.__name__].get(state.name, "")] for state in machine)
        parts.append(f"## {machine.__name__}\n\n{inspect.getdoc(machine)}\n")
        parts.append(table(["state", "may become", "meaning"], rows))
        parts.append("```mermaid\nstateDiagram-v2\n" + "\n".join(_diagram(machine)) + "\n```\n")
    for word in WORDS:
        rows = ([code(member), documented[word.__name__].get(member.name, "")] for member in word)
        parts.append(f"## {word.__name__}\n\n{inspect.getdoc(word)}\n")
        parts.append(table(["word", "meaning"], rows))
    infrastructure = ", ".join(code(reason) for reason in states.Reason if reason in states.INFRASTRUCTURE_REASONS)
    parts.append(
        f"The commit is not at fault when the reason is {infrastructure}: another Attempt is made, and a Build that "
        "ends so is `errored`.\n"
    )
    return "\n".join(parts)


def _next(state: StrEnum) -> str:
    order = list(type(state))
    moves = sorted(states.moves_from(state), key=lambda new: order.index(type(state)(new)))
    return ", ".join(code(new) for new in moves) or "an end"


def _diagram(machine: type[StrEnum]) -> Iterator[str]:
    yield f"    [*] --> {next(iter(machine))}"
    for old in machine:
        for new in machine:
            if new in states.moves_from(old):
                yield f"    {old} --> {new}"
        if states.is_end(old):
            yield f"    {old} --> [*]"


def _member_docs() -> dict[str, dict[str, str]]:
    """Class, then member, to the string that stands below the member."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(states)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = dict(_docs_of(node))
    return found


def _docs_of(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(statement, ast.Assign)
            and isinstance(target := statement.targets[0], ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(constant := following.value, ast.Constant)
        ):
            yield target.id, " ".join(str(constant.value).split())
