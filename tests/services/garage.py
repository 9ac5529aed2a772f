"""A real Garage on free loopback ports: one node, one bucket that is a website too, one key."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from albatros.registries.base import Credentials
from tests.services.process import answers, free_port, lend, private_dir, run, running, unprivileged
from tests.tools import find, require

REGION = "garage"
BUCKET = "registry"
SITE_BUCKET = "localhost"
"""Its own web host: programs that know no `Host` header of ours reach it as `localhost`, and speak plain HTTP to it."""
_WEB_DOMAIN = "web.localhost"
_CONFIG = """\
metadata_dir = "{home}/meta"
data_dir = "{home}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "{region}"
api_bind_addr = "127.0.0.1:{s3}"
root_domain = ".s3.localhost"
[s3_web]
bind_addr = "127.0.0.1:{web}"
root_domain = ".{web_domain}"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
"""


@dataclass(frozen=True, slots=True)
class GarageServer:
    """A running Garage, with one key that may do everything with its one bucket."""

    endpoint: str
    web: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def url(self) -> str:
        """The URL of a configured registry or store."""
        return self.url_of(BUCKET)

    def url_of(self, place: str) -> str:
        """The URL of a bucket, or of a prefix in one."""
        return f"s3://{place}?endpoint={quote(self.endpoint, safe=':/')}&region={REGION}&s3ForcePathStyle=true"

    @property
    def credentials(self) -> Credentials:
        """Its key, as a configured registry has it."""
        return Credentials(self.access_key, self.secret_key, "the test")

    @property
    def site(self) -> str:
        """`HOST:PORT` at which the bucket `SITE_BUCKET` is a website."""
        return f"localhost:{self.web.rpartition(':')[2]}"

    @property
    def web_host(self) -> str:
        """The `Host` header with which `web` serves the bucket to anyone."""
        return f"{BUCKET}.{_WEB_DOMAIN}"


@pytest.fixture(scope="session")
def garage() -> Iterator[GarageServer]:
    """One Garage for the session: a test works under a prefix of its own."""
    require("garage")
    account = unprivileged()
    access_key, secret_key = f"GK{secrets.token_hex(12)}", secrets.token_hex(32)
    ports = {name: free_port() for name in ("rpc", "s3", "web", "admin")}
    with private_dir("garage", account) as home:
        config = home / "garage.toml"
        values = {"home": home, "secret": secrets.token_hex(32), "region": REGION, "web_domain": _WEB_DOMAIN}
        config.write_text(_CONFIG.format(**values, **ports))
        command = [str(lend(Path(find("garage")), home, account)), "-c", str(config)]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "GARAGE_DEFAULT_ACCESS_KEY": access_key,
            "GARAGE_DEFAULT_SECRET_KEY": secret_key,
            "GARAGE_DEFAULT_BUCKET": BUCKET,
        }
        start = [*command, "server", "--single-node", "--default-bucket"]
        ready = answers(f"http://127.0.0.1:{ports['admin']}/health")
        with running(start, log=home / "log", ready=ready, account=account, env=env):
            may = ["allow", "--read", "--write", "--owner", "--key", access_key]
            for step in (["create"], may, ["website", "--allow"]):
                run([*command, "bucket", *step, SITE_BUCKET], account=account, env=env)
            run([*command, "bucket", "website", "--allow", BUCKET], account=account, env=env)
            s3, web = (f"http://127.0.0.1:{ports[name]}" for name in ("s3", "web"))
            yield GarageServer(s3, web, access_key, secret_key)
