"""From what an evaluation reported to Jobs, and from what Jobs built to images. Pure: no database, no bytes.

The report comes from a runner, which is as hostile as the repo it evaluates: everything in it is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from albatros.domain.repo_config import ImageConfig, RepoConfig
from albatros.domain.text import plain
from albatros.errors import EvaluationError

_STORE_DRV = re.compile(r"/nix/store/[0-9a-z]{32}-[A-Za-z0-9+._?=-]{1,211}\.drv", re.ASCII)
_SYSTEM = re.compile(r"[a-z0-9_]{1,31}-[a-z0-9]{1,31}", re.ASCII)
_PACKAGE = re.compile(r"packages\.(?P<system>[a-z0-9_]+-[a-z0-9]+)\.(?P<name>[^.]+)", re.ASCII)
_MAIN_OUTPUTS = ("image", "docker", "container", "default")
MAX_ERROR = 8 << 10


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One attribute as evaluation reported it: a derivation, or the error that it ended in."""

    attribute: str
    drv_path: str | None
    system: str
    name: str
    error: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One derivation to build, whatever attributes name it; or (without `drv_path`) an attribute that failed."""

    key: str
    drv_path: str | None
    system: str
    name: str
    attributes: tuple[str, ...]
    error: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A file that becomes one platform of an image."""

    attribute_system: str
    """The system in the attribute's name: the platform that the author had in mind."""
    job_id: int
    binary: str | None


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image, and where its platforms come from."""

    config: ImageConfig
    is_main: bool
    """It takes the repo's own name in a registry; another one is called below it."""
    parts: tuple[ImagePart, ...]


def package_of(attribute: str) -> tuple[str, str] | None:
    """`packages.x86_64-linux.hello` → (`x86_64-linux`, `hello`); None for anything else."""
    match = _PACKAGE.fullmatch(attribute)
    return (match["system"], match["name"]) if match else None


def read_evaluation(items: object, limit: int) -> tuple[Evaluated, ...]:
    """Check the `attributes` of a runner's report. Raises EvaluationError."""
    if not isinstance(items, list) or len(items) > limit:
        raise EvaluationError(
            f"the evaluation reported no list of at most {limit} attributes; raise limits.attributes if it must"
        )
    evaluated = tuple(_read_one(item) for item in items)
    if len({item.attribute for item in evaluated}) != len(evaluated):
        raise EvaluationError("the evaluation reported one attribute twice; run the build again")
    return evaluated


def _read_one(item: object) -> Evaluated:
    if not isinstance(item, dict):
        raise EvaluationError("the evaluation reported an attribute that is no object")
    attribute, drv_path, error = item.get("attribute"), item.get("drv_path"), item.get("error")
    if not isinstance(attribute, str) or not 0 < len(attribute) <= 255 or not attribute.isprintable():
        raise EvaluationError("the evaluation reported an attribute without a usable name")
    if drv_path is None:
        text = plain(error, MAX_ERROR) or "it does not evaluate, and Nix gave no reason"
        return Evaluated(attribute, None, "", attribute.rpartition(".")[2], text, ())
    system, needs = item.get("system"), item.get("needs") or []
    if not isinstance(drv_path, str) or not _STORE_DRV.fullmatch(drv_path):
        raise EvaluationError(f"{attribute}: the evaluation reported a derivation path that is none")
    if not isinstance(system, str) or not _SYSTEM.fullmatch(system):
        raise EvaluationError(
            f"{attribute}: the derivation's system is not one that Nix knows; set `system` to such as x86_64-linux"
        )
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise EvaluationError(f"{attribute}: the evaluation reported unreadable dependencies")
    return Evaluated(attribute, drv_path, system, plain(item.get("name"), 255), "", tuple(needs))


def plan_jobs(evaluated: Sequence[Evaluated]) -> tuple[PlannedJob, ...]:
    """One Job per drvPath, in the order of first mention, with edges only between these Jobs and never in a circle."""
    if not evaluated:
        raise EvaluationError(
            "the flake has no packages and no checks; add outputs such as packages.x86_64-linux.default"
        )
    by_key: dict[str, list[Evaluated]] = {}
    for item in evaluated:
        by_key.setdefault(item.drv_path or f"attribute:{item.attribute}", []).append(item)
    jobs = {key: _merge(key, items, by_key) for key, items in by_key.items()}
    _refuse_circles(jobs)
    return tuple(jobs.values())


def _merge(key: str, items: Sequence[Evaluated], known: Mapping[str, object]) -> PlannedJob:
    first = items[0]
    needs = tuple(sorted({need for item in items for need in item.needs if need in known and need != key}))
    attributes = tuple(dict.fromkeys(item.attribute for item in items))
    return PlannedJob(key, first.drv_path, first.system, first.name, attributes, first.error, needs)


def _refuse_circles(jobs: Mapping[str, PlannedJob]) -> None:
    waiting = {key: set(job.needs) for key, job in jobs.items()}
    while ready := [key for key, needs in waiting.items() if not needs]:
        for key in ready:
            del waiting[key]
        for needs in waiting.values():
            needs.difference_update(ready)
    if waiting:
        raise EvaluationError(
            f"the evaluation reported derivations that need one another in a circle: {', '.join(sorted(waiting)[:3])}"
        )


def plan_images(
    config: RepoConfig, repo_name: str, jobs: Iterable[tuple[int, Sequence[str]]], image_attributes: frozenset[str]
) -> tuple[PlannedImage, ...]:
    """Group what was built into images.

    `jobs` are (id, attributes); `image_attributes` those attributes whose output is a container image archive. Without
    `[images]` each name under `packages` whose outputs are archives becomes an image. Raises EvaluationError.
    """
    packages: dict[str, dict[str, int]] = {}
    for job_id, attributes in jobs:
        for attribute in attributes:
            if package := package_of(attribute):
                packages.setdefault(package[1], {})[package[0]] = job_id
    wanted = config.images
    if wanted is None:
        found = {name: systems for name, systems in packages.items() if _any_archive(name, systems, image_attributes)}
        wanted = tuple(ImageConfig(name=_image_name(name), output=name) for name in _without_aliases(found))
        _refuse_shared_names(wanted)
    main = _main_output([image.output for image in wanted], repo_name)
    return tuple(_planned(image, packages, is_main=image.output == main) for image in wanted)


def _any_archive(name: str, systems: Mapping[str, int], image_attributes: frozenset[str]) -> bool:
    return any(f"packages.{system}.{name}" in image_attributes for system in systems)


def _image_name(output: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", output.lower()).strip("-") or "image"


def _refuse_shared_names(images: Sequence[ImageConfig]) -> None:
    taken: dict[str, str] = {}
    for image in images:
        other = taken.setdefault(image.name, image.output)
        if other != image.output:
            raise EvaluationError(
                f"packages.<system>.{other} and packages.<system>.{image.output} would both be the image {image.name}; "
                "rename one, or name the images that you mean in .albatros.toml"
            )


def _without_aliases(found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """`default` that is the same derivations as another name is no second image."""
    names: list[str] = []
    for name in sorted(found, key=lambda candidate: (candidate == "default", candidate)):
        if all(found[name] != found[kept] for kept in names):
            names.append(name)
    return sorted(names)


def _main_output(outputs: Sequence[str], repo_name: str) -> str:
    for candidate in (repo_name, *_MAIN_OUTPUTS):
        if candidate in outputs:
            return candidate
    return outputs[0] if len(outputs) == 1 else ""


def _planned(image: ImageConfig, packages: Mapping[str, Mapping[str, int]], *, is_main: bool) -> PlannedImage:
    systems = packages.get(image.output)
    if not systems:
        raise EvaluationError(
            f"image {image.name}: the flake has no packages.<system>.{image.output}; check [images.{image.name}] output"
        )
    parts = tuple(ImagePart(system, systems[system], image.binary) for system in sorted(systems))
    return PlannedImage(image, is_main, parts)
