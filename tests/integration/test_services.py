"""The servers of tests/services are what other tests take them for."""

import hashlib
import hmac
import json
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime
from http import HTTPStatus

import psycopg
import pytest

from tests.services.garage import BUCKET, REGION, GarageServer
from tests.services.gitea_server import ADMIN, GiteaServer
from tests.services.nomad import NomadServer, start_cluster, wait_for
from tests.services.postgres import USER, PostgresCluster
from tests.services.registry import RegistryServer, Request, start_registry
from tests.tools import needs


def _status(request: str | urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("postgresql+psycopg", "postgresql"))


def test_each_test_gets_an_empty_postgres_database(postgres_url: str, postgres_cluster: PostgresCluster) -> None:
    with _connect(postgres_url) as connection:
        connection.execute("CREATE TABLE seen (id int)")
        assert connection.info.server_version >= 150000
        assert connection.info.user == USER
    with postgres_cluster.connect("template1") as template:
        assert template.execute("SELECT to_regclass('seen')").fetchone() == (None,)


def test_a_postgres_database_is_dropped_although_a_connection_is_open(postgres_cluster: PostgresCluster) -> None:
    """A test that fails leaves its connection behind; the next run of the fixture must not hang on it."""
    with postgres_cluster.connect() as admin:
        admin.execute("CREATE DATABASE left_open")
        with postgres_cluster.connect("left_open"):
            admin.execute("DROP DATABASE left_open WITH (FORCE)")
        found = admin.execute("SELECT count(*) FROM pg_database WHERE datname = 'left_open'").fetchone()
    assert found == (0,)


def test_the_registry_starts_empty_takes_an_upload_and_tells_its_requests(registry_server: RegistryServer) -> None:
    base = f"http://{registry_server.host}/v2"
    assert _status(f"{base}/hello/tags/list") == HTTPStatus.NOT_FOUND
    assert _status(urllib.request.Request(f"{base}/hello/blobs/uploads/", method="POST")) == HTTPStatus.ACCEPTED
    assert registry_server.requests() == [
        Request("GET", "/v2/hello/tags/list", HTTPStatus.NOT_FOUND),
        Request("POST", "/v2/hello/blobs/uploads/", HTTPStatus.ACCEPTED),
    ]


def test_two_registries_run_side_by_side_and_are_gone_afterwards() -> None:
    with start_registry() as one, start_registry() as other:
        assert one.host != other.host
        assert [_status(f"http://{r.host}/v2/") for r in (one, other)] == [HTTPStatus.OK, HTTPStatus.OK]
    with pytest.raises(urllib.error.URLError, match="refused"):
        _status(f"http://{one.host}/v2/")


def test_gitea_knows_its_administrator_and_makes_repos(gitea: GiteaServer) -> None:
    name = f"r-{uuid.uuid4().hex[:8]}"
    made = gitea.api("POST", "/user/repos", {"name": name, "auto_init": True})
    assert isinstance(made, dict)
    assert made["full_name"] == f"{ADMIN}/{name}"
    assert made["clone_url"] == f"{gitea.url}/{ADMIN}/{name}.git"
    assert _status(f"{gitea.url}/{ADMIN}/{name}/raw/branch/main/README.md") == HTTPStatus.OK


def test_gitea_is_an_oci_registry_that_asks_for_a_token(gitea: GiteaServer) -> None:
    assert _status(f"http://{gitea.host}/v2/") == HTTPStatus.UNAUTHORIZED


def test_garage_stores_for_its_key_only_and_serves_the_bucket_to_anyone(garage: GarageServer) -> None:
    name = f"{uuid.uuid4().hex}/hello.txt"
    target = f"{garage.endpoint}/{BUCKET}/{name}"
    unsigned = urllib.request.Request(target, data=b"hello", method="PUT")
    assert _status(unsigned) == HTTPStatus.FORBIDDEN
    assert _status(_signed_put(garage, f"/{BUCKET}/{name}", b"hello")) == HTTPStatus.OK
    page = urllib.request.Request(f"{garage.web}/{name}", headers={"Host": garage.web_host})
    with urllib.request.urlopen(page, timeout=60) as answer:
        assert answer.read() == b"hello"
    stranger = urllib.request.Request(f"{garage.web}/{name}", headers={"Host": "other.web.localhost"})
    assert _status(stranger) == HTTPStatus.NOT_FOUND


def _batch_job(name: str, script: str) -> dict[str, object]:
    task = {"Name": "main", "Driver": "raw_exec", "Config": {"command": "/bin/sh", "args": ["-c", script]}}
    group = {"Name": "main", "Tasks": [{**task, "Resources": {"CPU": 20, "MemoryMB": 16}}]}
    return {"Job": {"ID": name, "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group]}}


def _states(nomad: NomadServer, job: str) -> list[str]:
    return [alloc["ClientStatus"] for alloc in json.loads(nomad.call("GET", f"/v1/job/{job}/allocations?all=true")[1])]


def test_a_nomad_dev_agent_runs_a_job_and_knows_no_acls(nomad_dev: NomadServer) -> None:
    name = f"t-{uuid.uuid4()}"
    assert nomad_dev.call("POST", "/v1/jobs", _batch_job(name, "exit 0"))[0] == HTTPStatus.OK
    wait_for(lambda: _states(nomad_dev, name) == ["complete"], nomad_dev.agents["dev"].home / "log")
    assert json.loads(nomad_dev.call("GET", "/v1/acl/token/self")[1])["AccessorID"] == "acls-disabled"


@needs("nomad")
def test_a_nomad_client_that_reboots_runs_its_task_again_in_the_same_allocation() -> None:
    with start_cluster(acl=True, clients=1) as nomad:
        log = nomad.agents["server"].home / "log"
        assert nomad.call("POST", "/v1/jobs", _batch_job("again", "exec sleep 1000"))[0] == HTTPStatus.OK
        wait_for(lambda: _states(nomad, "again") == ["running"], log)
        nomad.agents["client-1"].reboot()

        def started_twice() -> bool:
            (alloc,) = json.loads(nomad.call("GET", "/v1/job/again/allocations?all=true")[1])
            events = [event["Type"] for event in alloc["TaskStates"]["main"]["Events"]]
            return events.count("Started") == 2

        wait_for(started_twice, log)


def _signed_put(server: GarageServer, path: str, body: bytes) -> urllib.request.Request:
    """An upload signed with AWS Signature Version 4, written out here so that no code of Albatros judges itself."""
    now = datetime.now(UTC)
    day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    payload = hashlib.sha256(body).hexdigest()
    host = server.endpoint.removeprefix("http://")
    headers = {"host": host, "x-amz-content-sha256": payload, "x-amz-date": moment}
    names = ";".join(headers)
    canonical = "\n".join(["PUT", path, "", *(f"{k}:{v}" for k, v in headers.items()), "", names, payload])
    scope = f"{day}/{REGION}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{server.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"Credential={server.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return urllib.request.Request(
        server.endpoint + path,
        data=body,
        method="PUT",
        headers={**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"},
    )
