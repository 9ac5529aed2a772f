"""The templates themselves."""

import re
from pathlib import Path

import pytest

from albatros.assets import web_dir

TEMPLATES = sorted((web_dir() / "templates").iterdir())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_holds_no_script_and_no_style(path: Path) -> None:
    """The content security policy would not let them run."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", text) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_form_that_changes_something_carries_the_token_of_its_session(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]+)"[^>]*>(.*?)</form>', text, re.DOTALL)
    assert len(forms) == text.count('method="post"')
    for action, fields in forms:
        # Whoever logs in has no session yet; the origin of the form is looked at.
        assert 'name="form_token"' in fields or action == "/login", action
