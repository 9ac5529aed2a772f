#!/usr/bin/env python3
"""Pictures of the dashboard for the documents, from a seeded server: docs/images/*.png.

usage: scripts/screenshots.py [DIRECTORY]
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.api import Api  # noqa: E402 - the project is not on the path before
from tests.support.chromium import DESKTOP, PHONE, Screen, chromium, prefer, resize  # noqa: E402
from tests.support.seed_cluster import cluster_build  # noqa: E402
from tests.support.site import seeded_site  # noqa: E402
from tests.tools import missing  # noqa: E402

MAX_BYTES = 200_000


@dataclass(frozen=True)
class Picture:
    name: str
    path: str
    screen: Screen = DESKTOP
    scheme: str = "light"


def pictures(site: Api) -> list[Picture]:
    seeded, cluster = site.seeded, cluster_build(site.context.database)
    return [
        Picture("builds", "/"),
        Picture("builds-phone", "/", PHONE),
        Picture("build", f"/builds/{seeded.published}"),
        Picture("build-phone", f"/builds/{seeded.published}", PHONE),
        Picture("build-failed-dark", f"/builds/{seeded.failed}", scheme="dark"),
        Picture("build-publishing", f"/builds/{seeded.retrying}"),
        Picture("job", f"/jobs/{seeded.running_job}"),
        Picture("job-dark-phone", f"/jobs/{seeded.running_job}", PHONE, "dark"),
        Picture("repo", "/repos/home/alba/hello"),
        Picture("merge-result", f"/builds/{cluster.build}"),
        Picture("job-nomad", f"/jobs/{cluster.running}"),
        Picture("job-waits-phone", f"/jobs/{cluster.waiting}", PHONE),
        Picture("job-script", f"/jobs/{cluster.script}"),
    ]


def main(target: Path) -> int:
    if lacking := missing("chromium"):
        print(f"no pictures: {lacking}", file=sys.stderr)
        return 1
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, seeded_site(Path(data)) as site, chromium() as browser:
        for picture in pictures(site):
            resize(browser, picture.screen)
            prefer(browser, picture.scheme)
            browser.get(site.url + picture.path)
            png = browser.get_screenshot_as_png()
            if len(png) > MAX_BYTES:
                print(f"{picture.name} has {len(png)} bytes, more than {MAX_BYTES}", file=sys.stderr)
                return 1
            (target / f"{picture.name}.png").write_bytes(png)
            print(f"{target / picture.name}.png {len(png)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"))
