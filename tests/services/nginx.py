"""nginx before a static registry, with the locations that the registry generated, as an operator would include them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.process import Account, answers, free_port, hand_over, running
from tests.tools import find, require

_CONFIG = """\
daemon off; master_process off; pid {home}/pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
  uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
  server {{ listen 127.0.0.1:{port}; root {home}/registry; include {home}/registry/.albatros/nginx.conf; }}
}}
"""


@contextmanager
def serve_nginx(home: Path, account: Account) -> Iterator[str]:
    """Serve the filled static registry `home/registry`; gives `HOST:PORT`."""
    require("nginx")
    port = free_port()
    config = home / "nginx.conf"
    config.write_text(_CONFIG.format(home=home, port=port))
    hand_over(config, account)
    command = [find("nginx"), "-e", "stderr", "-c", str(config)]
    with running(command, log=home / "log", ready=answers(f"http://127.0.0.1:{port}/v2/"), account=account):
        yield f"127.0.0.1:{port}"
