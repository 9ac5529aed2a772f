"""Artifacts over HTTP: lists, and downloads that are files and nothing that a browser would run."""

import hashlib
import os
from pathlib import Path

from albatros.db.models import Artifact
from tests.support.api import Api


def stored(api: Api, data: bytes, path: str = "bin/hello") -> int:
    """The id of an artifact whose bytes are in the store."""
    blob = api.store.put([data])
    found: int = api.reader.get("/api/v1/artifacts").json()["items"][0]["id"]
    with api.context.database.write() as session:
        row = session.get_one(Artifact, found)
        row.digest, row.size, row.path = blob.digest, blob.size, path
    return found


def test_a_download_is_the_bytes_under_their_digest(api: Api) -> None:
    data = os.urandom(600_000)
    path = f"/api/v1/artifacts/{stored(api, data)}/content"
    answer = api.reader.get(path)
    assert answer.content == data
    assert answer.headers["etag"] == f'"sha256:{hashlib.sha256(data).hexdigest()}"'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert int(answer.headers["content-length"]) == len(data)
    part = api.reader.get(path, headers={"range": "bytes=300000-"})
    assert (part.status_code, part.content) == (206, data[300000:])
    assert api.reader.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    resumed = api.reader.get(path, headers={"range": "bytes=5-", "if-range": '"sha256:other"'})
    assert (resumed.status_code, resumed.content) == (200, data)
    assert api.reader.head(path).headers["content-length"] == str(len(data))


def test_a_file_name_cannot_leave_its_header(api: Api) -> None:
    found = stored(api, b"x", 'bin/a"; filename=evil.sh\r\nX-Evil: 1\u202e')
    answer = api.reader.get(f"/api/v1/artifacts/{found}/content")
    disposition = answer.headers["content-disposition"]
    assert "x-evil" not in answer.headers
    assert disposition.count('"') == 2
    assert "\r" not in disposition
    assert disposition.isascii()


def test_lists_narrow_to_a_build_or_a_job(api: Api) -> None:
    def items(**query: int) -> list[dict[str, object]]:
        found: list[dict[str, object]] = api.reader.get("/api/v1/artifacts", params=query).json()["items"]
        return found

    of_build = items(build=api.seeded.published)
    assert len(of_build) == 4
    job = int(str(of_build[0]["job_id"]))
    assert [one["id"] for one in items(job=job)] == [of_build[0]["id"]]
    assert items(build=api.seeded.failed, job=job) == []


def test_an_artifact_whose_bytes_are_gone_is_not_found(api: Api) -> None:
    found = api.reader.get("/api/v1/artifacts").json()["items"][0]["id"]
    assert api.reader.get(f"/api/v1/artifacts/{found}").status_code == 200
    assert api.reader.get(f"/api/v1/artifacts/{found}/content").status_code == 404
    assert api.reader.get("/api/v1/artifacts/999999/content").status_code == 404


def test_a_whole_output_is_named_after_its_store_path(api: Api, tmp_path: Path) -> None:
    found = stored(api, b"x", "")
    assert api.reader.get(f"/api/v1/artifacts/{found}").json()["file_name"] == "hello"
