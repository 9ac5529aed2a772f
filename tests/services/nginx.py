"""nginx with the sites of `deploy/`, as an operator would include them: only paths, ports and hosts are put in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.services.process import Account, answers, free_port, hand_over, running
from tests.tools import ROOT, find, require

_CONFIG = """\
daemon off; master_process off; pid {home}/pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
  uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
  include {home}/site.conf;
}}
"""


@contextmanager
def serve_nginx(home: Path, account: Account, site: str, replacing: Mapping[str, str]) -> Iterator[str]:
    """Serve `deploy/SITE` with other words in it, all of which must occur; gives `HOST:PORT`."""
    port = free_port()
    text = (ROOT / "deploy" / site).read_text()
    for old, new in {**replacing, "listen 80;": f"listen 127.0.0.1:{port};"}.items():
        assert old in text, f"deploy/{site} has no {old}"
        text = text.replace(old, new)
    with run_nginx(home, account, text, port):
        yield f"127.0.0.1:{port}"


@contextmanager
def run_nginx(home: Path, account: Account, site: str, port: int) -> Iterator[None]:
    """nginx with the text of a site that listens on this port of loopback."""
    require("nginx")
    (home / "site.conf").write_text(site)
    config = home / "nginx.conf"
    config.write_text(_CONFIG.format(home=home))
    hand_over(config, account)
    command = [find("nginx"), "-e", "stderr", "-c", str(config)]
    with running(command, log=home / "log", ready=answers(f"http://127.0.0.1:{port}/v2/"), account=account):
        yield
