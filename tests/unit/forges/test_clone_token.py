"""What every forge with an API gives a runner: the token for clones, and the API's own only where there is none.

With submodules, that is: without them GitLab makes one for the project alone.
"""

import pytest
from pydantic import SecretStr

from albatros.bootstrap import build_forge
from albatros.settings import ForgeKind, ForgeSettings


@pytest.mark.parametrize("kind", [kind for kind in ForgeKind if kind is not ForgeKind.GIT])
def test_runners_clone_with_a_token_of_their_own(kind: ForgeKind) -> None:
    settings = ForgeSettings(
        name="home",
        kind=kind,
        url="https://git.example.org",
        token=SecretStr("may-write"),
        webhook_secret=SecretStr("s3cret"),
        submodules=True,
    )
    assert build_forge(settings).clone_source("alba", "hello").password == "may-write"
    narrowed = settings.model_copy(update={"clone_token": SecretStr("may-read")})
    assert build_forge(narrowed).clone_source("alba", "hello").password == "may-read"
