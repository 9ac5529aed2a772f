"""Runs one Job from clone to result. Imported only after the first line of log was sent, to have that line soon."""

from albatros.runner.build import build
from albatros.runner.evaluate import Attribute, evaluate
from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.nix import Nix
from albatros.runner.outputs import send_outputs
from albatros.runner.script import SCRIPT, run_script
from albatros.runner.source import Clone, fetch
from albatros.runner.work import Work

CONFIG_LIMIT = 64 << 10


def run_job(work: Work) -> dict[str, object]:
    """Do what the order says; the result without what is known only when the log is closed."""
    result: dict[str, object] = {
        "outcome": "succeeded",
        "reason": None,
        "message": "",
        "nix_version": None,
        "evaluation": None,
        "outputs": [],
    }
    try:
        _run(work, result)
    except JobFailedError as error:
        result |= {"outcome": "failed", "reason": str(error.reason), "message": work.log.mask(error.message)}
        work.log.line(f"failed ({error.reason}): {error.message}")
    except OSError as error:
        reason = Reason.DISK_FULL if error.errno == 28 else Reason.DRIVER
        message = work.log.mask(f"The runner could not go on: {error}.")
        result |= {"outcome": "failed", "reason": str(reason), "message": message}
        work.log.line(f"failed ({reason}): {message}")
    return result


def _run(work: Work, result: dict[str, object]) -> None:
    clone = fetch(work)
    nix = Nix(work, clone.environment)
    result["nix_version"] = nix.version()
    work.log.line(f"Nix {result['nix_version']}, {nix.store_words()}")
    order = work.order.build
    if work.order.script is not None:
        run_script(work, nix, clone, work.order.script)
        return
    if order is None:
        _evaluate(work, nix, clone, result)
        return
    nix.verify_sandbox()
    outputs = build(work, nix, clone, order)
    result["outputs"] = send_outputs(work, nix, order, outputs)
    work.log.line(f"built {order.attribute}: {', '.join(outputs.values())}")


def _evaluate(work: Work, nix: Nix, clone: Clone, result: dict[str, object]) -> None:
    has_script = clone.git.is_program(SCRIPT)
    config = clone.git.settings(".albatros.toml", CONFIG_LIMIT)
    known = {"config": config, "commit_time": clone.commit_time, "script": has_script}
    # Reported even if the flake does not evaluate: it may say that this commit is not to be built.
    result["evaluation"] = {**known, "attributes": []}
    attributes = evaluate(work, nix, clone, may_be_missing=has_script)
    documents = [_masked(work, attribute).document() for attribute in attributes]
    result["evaluation"] = {**known, "attributes": documents}
    failed = sum(attribute.drv_path is None for attribute in attributes)
    work.log.line(f"evaluated {len(attributes)} attributes, {failed} of them failed")
    if has_script:
        work.log.line(f"there is a script, {SCRIPT}")


def _masked(work: Work, attribute: Attribute) -> Attribute:
    """An attribute whose error, which may be anything that Nix or git said, holds no secret."""
    return attribute if attribute.error is None else attribute._replace(error=work.log.mask(attribute.error))
