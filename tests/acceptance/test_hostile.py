"""A hostile flake that reaches for the server's keys, database, blobs, config and secrets gets nothing of them."""

import hashlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.executors.isolation import DEFAULT_UID
from tests.support.flakes import AMD64, HOST_SYSTEM, IMAGE_CONFIG, derivation, flake, hello, wait_for
from tests.support.hostile import Fortress, make_fortress
from tests.support.line import list_of
from tests.support.runner import FLAKES, git
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git", "git-lfs")
STOLEN = f"packages.{HOST_SYSTEM}"


@pytest.fixture(scope="module")
def fortress() -> Iterator[Fortress]:
    with make_fortress() as made:
        yield made


def run(fortress: Fortress, name: str, files: dict[str, str]) -> dict[str, object]:
    """Push these files and wait for the end; the Build, after a look for what leaked."""
    repo = fortress.line.repo(name)
    commit = repo.push_files(files)
    return end(fortress, name, commit)


def end(fortress: Fortress, name: str, commit: str) -> dict[str, object]:
    fortress.line.wait(fortress.line.repo(name), commit)
    fortress.check_nothing_leaked()
    return fortress.line.build(commit)


def test_the_secrets_are_where_the_flakes_look_and_would_be_found(fortress: Fortress) -> None:
    for path in fortress.files:
        assert path.stat().st_size > 0
    needles = fortress.needles()
    seen = b"".join(path.read_bytes() for path in fortress.files)
    for what in ("the key", "the database", "a registry's password", "the webhook secret", "another repo's artifact"):
        assert needles[what] in seen, what
    fortress.check_nothing_leaked()
    leak = fortress.line.paths.static / "leak"
    leak.write_bytes(b"before" + fortress.key)
    with pytest.raises(AssertionError, match="leak holds"):
        fortress.check_nothing_leaked()
    leak.unlink()


def readers(path: Path) -> list[str]:
    """Nix expressions that would give something of a file or directory, as a string."""
    return [
        f'builtins.readFile "{path}"',
        f"builtins.readFile {path}",
        f'builtins.toJSON (builtins.readDir "{path.parent}")',
        f'builtins.readFile (builtins.path {{ path = "{path}"; name = "stolen"; }})',
        f'"${{builtins.fetchTree {{ type = "path"; path = "{path.parent}"; }}}}"',
        f'builtins.readFile (builtins.fetchurl "file://{path}")',
        f'"${{builtins.fetchGit "file://{path.parent}"}}"',
        f'"${{builtins.filterSource (p: t: true) "{path}"}}"',
        f'builtins.readFile (builtins.toPath "{path}")',
        f'builtins.toString (import "{path}")',
        f'builtins.hashFile "sha256" "{path}"',
    ]


def test_evaluation_reads_nothing(fortress: Fortress) -> None:
    expressions = [text for path in (fortress.files[0], fortress.line.paths.config) for text in readers(path)]
    expressions += ['builtins.getEnv "ALBATROS_TOKEN_FILE"', 'builtins.getEnv "HOME"', "builtins.toString <nixpkgs>"]
    thief = derivation("stolen", "echo stolen: $stolen > $out", more="inherit stolen;")
    attributes = {f"{STOLEN}.by{number}": f"let stolen = {text}; in {thief}" for number, text in enumerate(expressions)}
    build = run(fortress, "evaluation", {"flake.nix": flake(attributes)})
    assert build["state"] == "failed"
    made = [job for job in list_of(build["jobs"]) if job["kind"] == "build" and job["state"] == "succeeded"]
    # Only the environment evaluates: to nothing.
    assert len(made) <= 2, [job["attributes"] for job in made]


@pytest.mark.parametrize("name", ["path-input", "locked-path", "read-file", "builder", "link-output", "link-binary"])
def test_the_hostile_fixtures_get_nothing(fortress: Fortress, name: str) -> None:
    key = fortress.files[0]
    words = {"@SECRET@": str(key), "@SECRET_DIR@": str(key.parent), "@SECRET_NAME@": key.name}
    files = {}
    for source in (FLAKES / "hostile" / name).iterdir():
        text = source.read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        files[source.name] = text
    if name == "link-binary":
        files[".albatros.toml"] = IMAGE_CONFIG.replace('output = "hello"', 'output = "stolen"')
    build = run(fortress, name, files)
    assert build["state"] == ("succeeded" if name == "builder" else "failed")


def reach_for(fortress: Fortress) -> str:
    """Shell text of a builder that tries every way to the server's files, and keeps what it gets."""
    tries = "".join(
        f"cat '{path}' '/proc/1/root{path}' /proc/*/root'{path}' >> $out/seen; ln '{path}' $out/hard-{n}; "
        f"ln -s '{path}' $out/soft-{n}; cp '{path}' $out/copy-{n}; ls -laR '{path.parent}' >> $out/seen\n"
        for n, path in enumerate(fortress.files)
    )
    return f"""PATH=/usr/bin:/bin
mkdir $out
{tries}cat /proc/*/environ /proc/*/cmdline /proc/[0-9]*/maps >> $out/seen
grep -r canary /tmp /build /var /etc '{fortress.line.paths.root}' >> $out/seen
env >> $out/seen; ls -la / /proc >> $out/seen; cat $out/seen
echo through
"""


def test_a_builder_reaches_nothing(fortress: Fortress) -> None:
    build = run(
        fortress, "builder-reaches", {"flake.nix": flake({f"{STOLEN}.x": derivation("x", reach_for(fortress))})}
    )
    assert build["state"] == "succeeded", build["message"]
    (artifact,) = list_of(build["artifacts"])
    assert artifact["kind"] == "directory-tar"
    assert "through" in fortress.line.log_of(build, STOLEN)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be the user that the runner is")
def test_the_runners_user_can_open_none_of_it(fortress: Fortress) -> None:
    server = Path(f"/proc/{fortress.line.server.pid}")
    for path in (*fortress.files, server / "environ", server / "mem", server / "root" / fortress.files[0]):
        done = subprocess.run(
            ["/bin/cat", path], capture_output=True, check=False, user=DEFAULT_UID, group=DEFAULT_UID, extra_groups=[]
        )
        assert (done.returncode, done.stdout) == (1, b""), path
        assert b"Permission denied" in done.stderr


@pytest.mark.parametrize("binary", ["../../../../../../../etc/passwd", "/etc/passwd", "bin/../../../keys/attempt.key"])
def test_a_path_in_the_repos_settings_stays_inside_the_output(fortress: Fortress, binary: str) -> None:
    config = f'[images.hello]\noutput = "hello"\nbinary = "{binary}"\n'
    name = f"binary-{hashlib.sha256(binary.encode()).hexdigest()[:8]}"
    build = run(fortress, name, {**hello("hostile", [AMD64]), ".albatros.toml": config})
    assert (build["state"], build["reason"]) == ("failed", "evaluation_failed")
    assert "images.hello.binary" in str(build["message"])


@pytest.mark.parametrize("link", [".albatros.toml", "flake.nix", "flake.lock", "data.txt"])
def test_links_in_the_repo_are_not_followed(fortress: Fortress, link: str) -> None:
    repo = fortress.line.repo(f"link-{link.strip('.').replace('.', '-')}")
    script = derivation("reads", "/usr/bin/cat $src > $out", more="src = ./data.txt;")
    repo.commit({"flake.nix": flake({f"{STOLEN}.reads": script}), "data.txt": "harmless"})
    (repo.work / link).unlink(missing_ok=True)
    (repo.work / link).symlink_to(fortress.line.paths.config)
    commit = repo.commit_all()
    repo.push()
    assert end(fortress, repo.full_name.partition("/")[2], commit)["state"] == "failed"


@pytest.fixture
def sign(fortress: Fortress) -> Path:
    """A file that a program of the repo would make, if one ran."""
    fortress.line.paths.gate.chmod(0o777)
    return fortress.line.paths.gate / "a-program-of-the-repo-ran"


HARMLESS = {"flake.nix": flake({f"{STOLEN}.x": derivation("x", "echo > $out")})}


def test_lfs_settings_of_the_repo_run_nothing(fortress: Fortress, sign: Path) -> None:
    evil = f'[lfs "customtransfer.evil"]\n\tpath = /bin/touch\n\targs = {sign}\n'
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 10\n"
    files = {
        **HARMLESS,
        ".lfsconfig": f"[lfs]\n\tstandalonetransferagent = evil\n{evil}",
        ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        "big.bin": pointer,
    }
    assert run(fortress, "lfs", files)["state"] in {"failed", "errored"}
    assert not sign.exists()


@pytest.mark.parametrize("way", ["data", "ext"])
def test_submodules_lead_nowhere(fortress: Fortress, sign: Path, way: str) -> None:
    url = {"data": str(fortress.line.paths.data), "ext": f"ext::sh -c touch% {sign}"}[way]
    repo = fortress.line.repo(f"submodule-{way}")
    modules = f'[submodule "s"]\n\tpath = s\n\turl = {url}\n\tupdate = !touch {sign}\n'
    parent = repo.commit({**HARMLESS, ".gitmodules": modules})
    git(repo.work, "update-index", "--add", "--cacheinfo", f"160000,{parent},s")
    git(repo.work, "commit", "--quiet", "--message=submodule")
    commit = git(repo.work, "rev-parse", "HEAD")
    repo.push()
    assert end(fortress, f"submodule-{way}", commit)["state"] in {"failed", "errored"}
    assert not sign.exists()


def test_a_builder_with_the_hosts_network_is_a_stranger_to_the_server(fortress: Fortress) -> None:
    url = fortress.line.server.url
    script = f"""/usr/bin/python3 - <<'END'
import urllib.request, urllib.error
for method, path in (("GET", "/api/v1/builds"), ("GET", "/api/v1/artifacts"), ("POST", "/runner/v1/claim"),
                     ("POST", "/runner/v1/blobs/query"), ("POST", "/webhooks/home")):
    try:
        request = urllib.request.Request("{url}" + path, b"{{}}" if method == "POST" else None,
                                         {{"Content-Type": "application/json"}}, method=method)
        print(path, urllib.request.urlopen(request, timeout=60).status)
    except urllib.error.HTTPError as error:
        print(path, error.code)
END
exit 1
"""
    digest = f'outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{"0" * 64}";'
    fixed = derivation("fixed", script, more=digest)
    build = run(fortress, "fixed-output", {"flake.nix": flake({f"{STOLEN}.fixed": fixed})})
    log = fortress.line.log_of(build, STOLEN)
    for path in ("/api/v1/builds", "/api/v1/artifacts", "/runner/v1/claim", "/runner/v1/blobs/query", "/webhooks/home"):
        assert f"{path} 401" in log


def test_a_runner_that_was_taken_over_gets_nothing_of_another_repo(fortress: Fortress) -> None:
    line = fortress.line
    repo = line.repo("mallory")
    gate = line.paths.gate / "mallory"
    commit = repo.push_files({"flake.nix": flake({f"{STOLEN}.x": derivation("x", f"PATH=/usr/bin\n{wait_for(gate)}")})})
    eventually(lambda: "waiting" in line.log_of(line.build(commit), STOLEN), lambda: line.server.log)
    query = "SELECT id, nonce FROM attempts WHERE state = 'claimed'"
    ((attempt, nonce),) = line.sql(query)
    token = fortress.attempt_token(str(attempt))
    nonce = str(nonce)
    stolen = f"{fortress.artifact}\n".encode()
    digest, size = f"sha256:{hashlib.sha256(stolen).hexdigest()}", len(stolen)

    other = secrets.token_hex(16)
    claim = {"protocol": 1, "nonce": other, "host": "elsewhere", "pid": 1, "allocation": None}
    assert fortress.as_runner(token, "POST", "/runner/v1/claim", claim).status == 409
    assert fortress.as_runner(secrets.token_hex(32), "POST", "/runner/v1/claim", claim).status == 401
    assert fortress.as_runner(token, "POST", "/runner/v1/heartbeat", {"nonce": other}).status == 409
    closed = str(line.sql("SELECT id FROM attempts WHERE state = 'succeeded' ORDER BY created_at")[0][0])
    answer = fortress.as_runner(fortress.attempt_token(closed), "POST", "/runner/v1/heartbeat", {"nonce": nonce})
    assert answer.status in {409, 410}

    asked = {"nonce": nonce, "blobs": [{"digest": digest, "size": size}]}
    assert fortress.as_runner(token, "POST", "/runner/v1/blobs/query", asked).document == {"missing": [digest]}
    lie = fortress.as_runner(token, "PUT", f"/runner/v1/blobs/{digest}", raw=b"other bytes", nonce=nonce)
    assert lie.status == 400
    for path in ("..%2f..%2fkeys%2fattempt.key", "sha256:..%2f..%2fx", f"sha512:{'0' * 128}"):
        assert fortress.as_runner(token, "PUT", f"/runner/v1/blobs/{path}", raw=b"x", nonce=nonce).status in {400, 404}
    result = {
        "nonce": nonce, "outcome": "succeeded", "reason": None, "message": "", "nix_version": "2.8.0",
        "log_pieces": 0, "log_bytes": 0, "evaluation": None,
        "outputs": [{
            "output": "out", "store_path": "/nix/store/x", "nar_hash": "sha256:0", "nar_size": 1, "closure": [],
            "files": [{"path": "", "kind": "file", "digest": digest, "size": size, "executable": False}],
        }],
    }  # fmt: skip
    assert fortress.as_runner(token, "POST", "/runner/v1/result", result).status == 200
    build = end(fortress, "mallory", commit)
    assert (build["state"], build["reason"]) == ("failed", "build_failed")
    assert "did not upload" in str(build["message"])
    assert not list_of(build["artifacts"])
    assert fortress.as_runner(token, "POST", "/runner/v1/heartbeat", {"nonce": nonce}).status == 410
    line.open_gate("mallory")
