"""Evaluates a flake without building it: every package and check with its derivation, its system and what it needs.

One call reads them all. Where that call fails, each attribute gets a call of its own and fails alone, with its trace.
"""

import json
import re
import shutil
from typing import NamedTuple, cast

from albatros.runner.attributes import attribute_path, nix_selection, nix_string
from albatros.runner.failure import JobFailedError, Reason, shorten
from albatros.runner.locks import inputs_expression, refuse_local_inputs, refuse_local_locks
from albatros.runner.nix import STORE_PATH, Nix, NixCall, failure
from albatros.runner.nixlog import NixLog
from albatros.runner.source import Clone
from albatros.runner.work import Work

CATEGORIES = ("packages", "checks")
ERROR_LIMIT = 8 << 10
OUTPUT_LIMIT = 64 << 20
FLAKE_LIMIT = 1 << 20
LOCK_LIMIT = 16 << 20
# What `tryEval` cannot catch (a type error, `abort`) ends the whole call.
ALL = """
let
  flake = builtins.getFlake REF;
  set = v: if builtins.isAttrs v then v else { };
  one = d:
    let
      entry =
        if (d.type or null) == "derivation" then { drvPath = d.drvPath; system = d.system; name = d.name; }
        else { kind = builtins.typeOf d; };
      r = builtins.tryEval (builtins.deepSeq entry entry);
    in if r.success then r.value else null;
  category = c: builtins.mapAttrs (s: a: builtins.mapAttrs (n: one) (set a)) (set (flake.${c} or { }));
in { packages = category "packages"; checks = category "checks"; }
"""
NAMES = """
let
  flake = builtins.getFlake REF;
  set = v: if builtins.isAttrs v then v else { };
  names = a: let r = builtins.tryEval (builtins.attrNames (set a)); in if r.success then r.value else null;
  category = c: builtins.mapAttrs (s: names) (set (flake.${c} or { }));
in { packages = category "packages"; checks = category "checks"; }
"""
ONE = """
let
  d = (builtins.getFlake REF).PATH;
in if (d.type or null) == "derivation" then { drvPath = d.drvPath; system = d.system; name = d.name; }
   else { kind = builtins.typeOf d; }
"""

Path3 = tuple[str, str, str]
"""Category, system, name."""


class Attribute(NamedTuple):
    """One attribute of the flake: its derivation, or why it has none."""

    attribute: str
    drv_path: str | None
    system: str | None
    name: str | None
    error: str | None
    needs: tuple[str, ...] = ()

    def document(self) -> dict[str, object]:
        """As the runner protocol writes it."""
        if self.drv_path is None:
            return {"attribute": self.attribute, "drv_path": None, "error": self.error}
        return {**self._asdict(), "needs": list(self.needs)}


def evaluate(work: Work, nix: Nix, clone: Clone, *, may_be_missing: bool) -> list[Attribute]:
    """Every attribute of the flake. Raises JobFailedError when it is no flake, or when there is none and has to be."""
    if may_be_missing and clone.git.file("flake.nix", FLAKE_LIMIT) is None:
        return []
    return Evaluation(work, nix, clone).run(may_be_empty=may_be_missing)


class Evaluation:
    """The steps of one evaluation."""

    def __init__(self, work: Work, nix: Nix, clone: Clone) -> None:
        self._work, self._nix, self._clone = work, nix, clone
        self._limits = work.order.limits
        self._full_name = work.order.repo.full_name

    def run(self, *, may_be_empty: bool) -> list[Attribute]:
        """Check the flake's inputs, then read all attributes."""
        check_flake(self._work, self._nix, self._clone)
        if shutil.which("nix-eval-jobs", path=self._nix.environment["PATH"]):
            found = self._with_eval_jobs()
        else:
            found = self._all() or self._each(self._names())
        if not found and not may_be_empty:
            text = f"The flake of {self._full_name} has neither packages nor checks; add `packages.<system>.<name>`."
            raise JobFailedError(Reason.EVALUATION_FAILED, text)
        for attribute in found:
            outcome = attribute.drv_path or f"does not evaluate: {attribute.error}"
            self._work.log.line(f"{attribute.attribute}: {outcome}")
        return self._with_needs(found)

    def _expression(self, text: str) -> str:
        return text.replace("REF", nix_string(self._clone.flake), 1)

    def _eval(self, text: str, log: NixLog) -> object | None:
        """The value of an expression, None when it does not evaluate."""
        call = NixCall(["eval", "--json", "--expr", self._expression(text)])
        status, output = evaluate_call(self._work, self._nix, call, log)
        return cast("object", json.loads(output)) if status == 0 else None

    def _all(self) -> list[Attribute] | None:
        value = self._eval(ALL, NixLog())
        if value is None:
            return None
        found = []
        for path, entry in self._entries(value):
            # `null` is an attribute that throws: it gets a call of its own, for its trace.
            found.append(self._one(path) if entry is None else to_attribute(path, entry))
        return found

    def _names(self) -> list[Path3]:
        log = NixLog()
        value = self._eval(NAMES, log)
        if value is None:
            raise failure(
                f"The flake of {self._full_name} does not evaluate", log.error_text(), Reason.EVALUATION_FAILED
            )
        return [path for path, _ in self._entries(value)]

    def _entries(self, value: object) -> list[tuple[Path3, object]]:
        """Flatten category → system → names, in order and within the limit."""
        found: list[tuple[Path3, object]] = []
        for category in CATEGORIES:
            for system, names in sorted(_objects(value).get(category, {}).items()):
                entries = names.items() if isinstance(names, dict) else ((name, None) for name in names or ())
                found += [((category, system, name), entry) for name, entry in entries]
        if len(found) > self._limits.attributes:
            most = self._limits.attributes
            text = f"The flake of {self._full_name} has {len(found)} attributes; at most {most} are built."
            raise JobFailedError(Reason.EVALUATION_FAILED, text)
        return found

    def _each(self, paths: list[Path3]) -> list[Attribute]:
        return [self._one(path) for path in paths]

    def _one(self, path: Path3) -> Attribute:
        log = NixLog()
        value = self._eval(ONE.replace("PATH", nix_selection(path), 1), log)
        if value is None:
            return Attribute(attribute_path(path), None, None, None, shorten(log.error_text(), ERROR_LIMIT))
        return to_attribute(path, value)

    def _with_eval_jobs(self) -> list[Attribute]:
        paths = self._names()
        found: list[Attribute] = []
        for category in [name for name in CATEGORIES if any(path[0] == name for path in paths)]:
            log = NixLog(self._work.log.line)
            megabytes = str(self._limits.memory_bytes >> 20)
            arguments = ["--flake", f"{self._clone.flake}#{category}", "--force-recurse", "--workers", "1"]
            arguments += ["--max-memory-size", megabytes, "--gc-roots-dir", self._work.folder("roots")]
            status, output = self._nix.run(NixCall(arguments, "nix-eval-jobs", OUTPUT_LIMIT), log)
            if status != 0:
                return self._each(paths)
            found += [from_eval_jobs(category, line) for line in output.splitlines() if line.strip()]
        return found[: self._limits.attributes]

    def _with_needs(self, found: list[Attribute]) -> list[Attribute]:
        """Add which of the reported derivations each one's closure contains."""
        reported = {attribute.drv_path for attribute in found if attribute.drv_path is not None}
        if len(reported) < 2:
            return found
        references = references_of(self._nix, sorted(reported))
        return [
            attribute._replace(needs=tuple(sorted(reported & closure(attribute.drv_path, references))))
            if attribute.drv_path is not None
            else attribute
            for attribute in found
        ]


def check_flake(work: Work, nix: Nix, clone: Clone) -> None:
    """Refuse a commit without a flake, and one whose inputs are not locked or lie on this machine."""
    name = work.order.repo.full_name
    flake = clone.git.file("flake.nix", FLAKE_LIMIT)
    if flake is None:
        text = (
            f"{name} has no flake.nix at the root of commit {work.order.repo.commit[:12]}; add one, or move it there."
        )
        raise JobFailedError(Reason.EVALUATION_FAILED, text)
    refuse_local_locks(clone.git.file("flake.lock", LOCK_LIMIT))
    refuse_local_inputs(_declared_inputs(work, nix, flake))
    # Not with --no-write-lock-file: that flag turns the refusal off, and an unlocked `path:` input then reads any file
    # that this user can read.
    log = NixLog()
    call = NixCall(["flake", "metadata", "--json", "--no-update-lock-file", clone.flake])
    status, _ = evaluate_call(work, nix, call, log)
    if status != 0:
        raise failure(f"The flake of {name} is not usable", log.error_text(), Reason.EVALUATION_FAILED)


def _declared_inputs(work: Work, nix: Nix, flake: str) -> object:
    log = NixLog()
    expression = work.write("inputs.nix", inputs_expression(flake))
    call = NixCall(["--eval", "--strict", "--json", "-"], "nix-instantiate", stdin=expression)
    status, output = evaluate_call(work, nix, call, log)
    if status != 0:
        text = f"flake.nix of {work.order.repo.full_name} is not usable"
        raise failure(text, log.error_text().replace("(string)", "flake.nix"), Reason.EVALUATION_FAILED)
    return cast("object", json.loads(output))


def evaluate_call(work: Work, nix: Nix, call: NixCall, log: NixLog) -> tuple[int, str]:
    """A Nix call that evaluates, within the order's memory. Raises JobFailedError (oom) when that is not enough."""
    memory = work.order.limits.memory_bytes
    status, output = nix.run(call._replace(stdout_limit=OUTPUT_LIMIT, memory_bytes=memory), log)
    text = log.error_text()
    if status < 0 or re.search(r"out of memory|bad_alloc|Cannot allocate memory", text, re.IGNORECASE):
        ended = f"signal {-status}" if status < 0 else "no memory left"
        text = f"The evaluation of {work.order.repo.full_name} ended with {ended}; its limit is {memory >> 20} MiB."
        raise JobFailedError(Reason.OOM, text)
    return status, output


def to_attribute(path: Path3, value: object) -> Attribute:
    """What an expression said of one attribute."""
    name = attribute_path(path)
    fields = value if isinstance(value, dict) else {}
    if "kind" in fields:
        return Attribute(name, None, None, None, f"{name} is not a derivation but of type {fields['kind']}.")
    drv_path, system, drv_name = (fields.get(key) for key in ("drvPath", "system", "name"))
    if not (isinstance(drv_path, str) and isinstance(system, str) and isinstance(drv_name, str)):
        return Attribute(name, None, None, None, f"{name} has no usable drvPath, system and name.")
    if not STORE_PATH.fullmatch(drv_path):
        return Attribute(name, None, None, None, f"{name}.drvPath is not a path of the Nix store.")
    return Attribute(name, drv_path, system, drv_name, None)


def from_eval_jobs(category: str, line: str) -> Attribute:
    """One line of nix-eval-jobs (its README, «Example»): `attrPath`, then `drvPath`, `system`, `name`, or `error`."""
    fields = cast("dict[str, object]", json.loads(line))
    parts = fields.get("attrPath")
    names = [str(part) for part in parts] if isinstance(parts, list) else [str(fields.get("attr"))]
    if fields.get("error"):
        error = shorten(str(fields["error"]), ERROR_LIMIT)
        return Attribute(attribute_path((category, *names)), None, None, None, error)
    system, _, name = (*names, "", "")[:3] if len(names) < 2 else (names[0], "", ".".join(names[1:]))
    return to_attribute((category, system, name), fields)


def references_of(nix: Nix, drv_paths: list[str]) -> dict[str, list[str]]:
    """References of every derivation in the closures of these."""
    output = nix.must(["path-info", "--derivation", "-r", "--json", *drv_paths])
    value: object = json.loads(output)
    # Nix before 2.19 answers with a list, later ones with an object keyed by path.
    items = (
        value.items()
        if isinstance(value, dict)
        else ((entry["path"], entry) for entry in cast("list[dict[str, object]]", value))
    )
    return {str(path): cast("list[str]", entry.get("references") or []) for path, entry in items}


def closure(root: str, references: dict[str, list[str]]) -> set[str]:
    """What `root` depends on, without itself."""
    seen: set[str] = set()
    queue = [root]
    while queue:
        for path in references.get(queue.pop(), []):
            if path not in seen:
                seen.add(path)
                queue.append(path)
    return seen - {root}


def _objects(value: object) -> dict[str, dict[str, dict[str, object] | list[str] | None]]:
    return cast("dict[str, dict[str, dict[str, object] | list[str] | None]]", value if isinstance(value, dict) else {})
