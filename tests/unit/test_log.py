"""One event a line, secrets masked in whatever form, nothing that speaks to a terminal."""

import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from albatros import log

LOG = log.get_logger("albatros.test")


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_secrets", ())
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(params=[False, True], ids=["text", "json"])
def json_lines(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_text_is_one_line_of_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    LOG.info("build queued", build=7, ref="refs/heads/main", title='say "hi"', empty="")
    assert capsys.readouterr().err.endswith(
        'Z info    albatros.test: build queued build=7 ref=refs/heads/main title="say \\"hi\\"" empty=""\n'
    )


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json_lines=True)
    LOG.warning("two\nlines", build=7)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"level": "warning", "logger": "albatros.test", "message": "two\nlines", "build": 7}


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level="warning")
    LOG.debug("a")
    LOG.info("b")
    LOG.warning("c")
    LOG.error("d")
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["warning", "error"]


def test_an_exception_comes_with_its_trace(capsys: pytest.CaptureFixture[str], json_lines: bool) -> None:
    log.configure(json_lines=json_lines)
    log.register_secrets(["swordfish"])
    try:
        int("the password is swordfish")
    except ValueError:
        LOG.exception("it broke")
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "the password is ***" in text
    assert '"level": "error"' in text or " error " in text
    assert "swordfish" not in text


@pytest.mark.parametrize(
    "secret", ["swordfish", 'with "quotes"', "back\\slash", "ümläut-pass", "a/b+c=d?e f", "tab\tkey"]
)
def test_a_secret_is_masked_in_every_form(capsys: pytest.CaptureFixture[str], json_lines: bool, secret: str) -> None:
    log.configure(json_lines=json_lines)
    log.register_secrets([secret])
    url = f"https://user:{quote(secret, '')}@example.org"
    message = f"message {secret} end"
    LOG.info(message, field=secret, longer=f"x {secret} y", nested=[secret], url=url)
    text = capsys.readouterr().err
    assert text.count("***") == 5
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1], quote(secret, "")):
        assert form not in text


def test_a_secret_inside_another_leaves_no_rest() -> None:
    log.register_secrets(["secret"])
    log.register_secrets(["secret-and-more"])
    assert log.mask("it is secret-and-more or secret") == "it is *** or ***"


def test_short_values_would_mask_ordinary_words() -> None:
    log.register_secrets(["", "a", "12345", "123456"])
    assert log.mask("a 12345 123456") == "a 12345 ***"


@pytest.mark.parametrize("hostile", ["a\n2026 error faked", "\x1b[2Jcleared", "\u202eright to left", "\r over", "\x85"])
def test_a_stranger_writes_no_line_of_his_own(
    capsys: pytest.CaptureFixture[str], json_lines: bool, hostile: str
) -> None:
    log.configure(json_lines=json_lines)
    message = f"branch {hostile}"
    LOG.info(message, title=hostile)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.strip("\n").isprintable()
