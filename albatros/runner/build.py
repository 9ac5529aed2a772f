"""Builds one derivation: evaluates its attribute again at the pinned commit, and builds that and no other."""

import json
from typing import cast

from albatros.runner.attributes import nix_selection, nix_string, split_attribute
from albatros.runner.evaluate import check_flake, evaluate_call
from albatros.runner.failure import JobFailedError, Reason, shorten
from albatros.runner.nix import STORE_PATH, Nix, NixCall, failure
from albatros.runner.nixlog import NixLog, short_name
from albatros.runner.order import BuildOrder
from albatros.runner.source import Clone
from albatros.runner.work import Work

LAST_LINES_LIMIT = 2000


def build(work: Work, nix: Nix, clone: Clone, order: BuildOrder) -> dict[str, str]:
    """Build the order's derivation; its outputs' store paths by name. Raises JobFailedError."""
    if not STORE_PATH.fullmatch(order.drv_path):
        raise JobFailedError(Reason.DRIVER, f"The order's {order.drv_path!r} is not a path of the Nix store.")
    check_flake(work, nix, clone)
    _evaluate(work, nix, clone, order)
    log = NixLog(work.log.line)
    # The link keeps a garbage collection from taking the outputs before they are uploaded.
    flags = ["--out-link", work.path("result"), "--json", "--log-format", "internal-json", "-v"]
    status, output = nix.run(NixCall(["build", *flags, _installable(nix, order.drv_path)]), log)
    if status != 0:
        raise _failed(order, log)
    outputs = _outputs(output)
    if not outputs:
        raise JobFailedError(Reason.DRIVER, f"Nix built {order.drv_path} and named no output: {shorten(output, 500)}")
    return outputs


def _evaluate(work: Work, nix: Nix, clone: Clone, order: BuildOrder) -> None:
    try:
        path = split_attribute(order.attribute)
    except ValueError as error:
        raise JobFailedError(Reason.DRIVER, f"The order's attribute is unusable: {error}.") from error
    expression = f"(builtins.getFlake {nix_string(clone.flake)}).{nix_selection(path)}.drvPath"
    log = NixLog(work.log.line)
    status, output = evaluate_call(work, nix, NixCall(["eval", "--raw", "--expr", expression]), log)
    if status != 0:
        raise failure(f"{order.attribute} does not evaluate", log.error_text(), Reason.EVALUATION_FAILED)
    if output.strip() != order.drv_path:
        text = (
            f"{order.attribute} evaluates to {output.strip()} here and to {order.drv_path} in the evaluation; "
            "look for what differs: Nix's version, its settings, or an impure flake."
        )
        raise JobFailedError(Reason.EVALUATION_FAILED, text)


def _installable(nix: Nix, drv_path: str) -> str:
    """All outputs of a derivation: since Nix 2.13 its bare path means the derivation's own file."""
    numbers = [int(part) if part.isdigit() else 0 for part in nix.version().split(".")[:2]]
    return drv_path if numbers < [2, 13] else f"{drv_path}^*"


def _failed(order: BuildOrder, log: NixLog) -> JobFailedError:
    error = failure(f"{order.attribute} ({short_name(order.drv_path)}) failed", log.error_text(), Reason.BUILD_FAILED)
    text = error.message
    if log.last_lines and error.reason in {Reason.BUILD_FAILED, Reason.OOM}:
        lines = shorten("\n".join(log.last_lines), LAST_LINES_LIMIT)
        text = f"{shorten(text, LAST_LINES_LIMIT - 100)}\nThe last lines of its log:\n{lines}"
    if "No space left on device" in "\n".join(log.last_lines):
        return JobFailedError(Reason.DISK_FULL, text)
    return JobFailedError(error.reason, text)


def _outputs(output: str) -> dict[str, str]:
    value: object = json.loads(output) if output.strip() else []
    results = value if isinstance(value, list) else []
    outputs = cast("dict[str, str]", results[0].get("outputs")) if results and isinstance(results[0], dict) else {}
    return {name: path for name, path in outputs.items() if STORE_PATH.fullmatch(str(path))}
