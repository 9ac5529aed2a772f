"""Caddy with the site of `deploy/`, as an operator would include it: only paths and the address are put in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.process import Account, answers, free_port, hand_over, running
from tests.tools import ROOT, find, require

_SITE = "registry/Caddyfile"


@contextmanager
def serve_caddy(home: Path, account: Account, registry: Path) -> Iterator[str]:
    """Serve the static registry in a directory; gives `HOST:PORT`."""
    require("caddy")
    port = free_port()
    text = (ROOT / "deploy" / _SITE).read_text()
    for old, new in {"registry.example.org": f"http://127.0.0.1:{port}", "/srv/registry": str(registry)}.items():
        assert old in text, f"deploy/{_SITE} has no {old}"
        text = text.replace(old, new)
    config = home / "Caddyfile"
    config.write_text("{\n\tadmin off\n}\n" + text)
    hand_over(config, account)
    command = [find("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    ready = answers(f"http://127.0.0.1:{port}/v2/")
    with running(command, log=home / "log", ready=ready, account=account, env={"HOME": str(home)}):
        yield f"127.0.0.1:{port}"
