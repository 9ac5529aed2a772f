"""Reading albatros.toml, the environment and files of secrets; every mistake gets a sentence that names the key."""

from pathlib import Path

import pytest

from albatros.errors import ConfigError
from albatros.settings import ExecutorKind, ForgeKind, Settings, ShutdownMode, known_keys, load, sections

FORGE = """
[[forges]]
name = "home"
kind = "gitea"
url = "https://git.example.org"
webhook_secret = "from the file"
"""
NOMAD = "[executor]\nkind = 'nomad'\n"
OAUTH = """
oauth_client_id = "an-application"
oauth_client_secret = "its-secret"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "albatros.toml"


def read(config: Path, text: str, **environment: str) -> Settings:
    config.write_text(text)
    return load(config, environment)


def refused(config: Path, text: str, **environment: str) -> str:
    config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(config, environment)
    return caught.value.detail


def test_everything_has_a_default() -> None:
    settings = load(None, {})
    assert settings == Settings()
    assert settings.database_url == "sqlite:////var/lib/albatros/albatros.sqlite3"
    assert settings.store_url == "dir:/var/lib/albatros/blobs"
    assert settings.executor.shutdown is ShutdownMode.HAND_BACK


@pytest.mark.parametrize(
    "server", ["", "url = 'https://ci.example.org'", "url = 'http://localhost:1'", "url = 'http://[::1]:1'"]
)
def test_nomad_reaches_the_server_by_https_or_on_its_own_machine(config: Path, server: str) -> None:
    settings = read(config, f"{NOMAD}[server]\n{server}\n[nomad]\ntoken = 'acl-token'\n")
    assert settings.executor.kind is ExecutorKind.NOMAD
    assert settings.secrets() == ["acl-token"]


def test_the_file_is_read(config: Path) -> None:
    settings = read(
        config,
        '[server]\nlisten = "0.0.0.0:80"\ndata = "/data"\n[executor]\nsandbox_paths = ["/bin"]\nslots = 7\n' + FORGE,
    )
    assert settings.server.listen == "0.0.0.0:80"
    assert settings.store_url == "dir:/data/blobs"
    assert settings.executor.sandbox_paths == ("/bin",)
    assert settings.executor.slots == 7
    assert settings.forges[0].kind is ForgeKind.GITEA
    assert settings.forges[0].webhook_secret.get_secret_value() == "from the file"


def test_the_environment_goes_before_the_file(config: Path) -> None:
    settings = read(
        config,
        '[server]\nlisten = "0.0.0.0:80"\npublic = false\n',
        ALBATROS_SERVER__LISTEN="[::1]:9000",
        ALBATROS_SERVER__PUBLIC="true",
        ALBATROS_EXECUTOR__SLOTS="3",
        ALBATROS_EXECUTOR__SANDBOX_PATHS='["/bin", "/usr"]',
        ALBATROS_SERVICES="/opt",
        OTHER__THING="x",
    )
    assert settings.server.listen == "[::1]:9000"
    assert settings.server.public is True
    assert settings.executor.slots == 3
    assert settings.executor.sandbox_paths == ("/bin", "/usr")


def test_every_secret_may_be_a_file(config: Path, tmp_path: Path) -> None:
    for name in ("url", "token", "webhook", "password", "flake"):
        (tmp_path / name).write_text(f"secret {name}\n")
    settings = read(
        config,
        f"""
[[forges]]
name = "home"
kind = "forgejo"
url = "https://git.example.org"
token_file = "{tmp_path}/token"
webhook_secret_file = "{tmp_path}/webhook"
flake_tokens = {{ "git.example.org_file" = "{tmp_path}/flake", "other.example.org" = "plain token" }}
[[registries]]
name = "hub"
url = "docker://docker.io/alba"
password_file = "{tmp_path}/password"
""",
        ALBATROS_DATABASE__URL_FILE=str(tmp_path / "url"),
    )
    assert settings.database_url == "secret url"
    assert settings.forges[0].token.get_secret_value() == "secret token"
    assert settings.forges[0].webhook_secret.get_secret_value() == "secret webhook"
    tokens = {host: token.get_secret_value() for host, token in settings.forges[0].flake_tokens.items()}
    assert tokens == {"git.example.org": "secret flake", "other.example.org": "plain token"}
    assert settings.registries[0].password.get_secret_value() == "secret password"


def test_every_secret_is_known_to_the_log(config: Path) -> None:
    settings = read(
        config,
        """
[database]
url = "postgresql+psycopg://alba:p%40ssword@db/alba"
[server]
url = "https://ci.example.org"
[[forges]]
name = "home"
kind = "gitea"
url = "https://git.example.org"
token = "token-1"
webhook_secret = "secret-1"
oauth_client_id = "an-application"
oauth_client_secret = "oauth-1"
flake_tokens = { "h" = "flake-1" }
[[registries]]
name = "hub"
url = "docker://docker.io/alba"
password = "password-1"
""",
    )
    secrets = set(settings.secrets())
    assert secrets == {"token-1", "secret-1", "oauth-1", "flake-1", "password-1", "p%40ssword", "p@ssword"}
    shown = repr(settings)
    assert not [secret for secret in secrets if secret in shown]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[sever]\n", "unknown key 'sever'; did you mean 'server'?"),
        ("[server]\nlistn = 1\n", "unknown key 'server.listn'; did you mean 'listen'?"),
        (
            "[[forges]]\n" + FORGE.split("]]")[1] + "webhok_secret = 1\n",
            "unknown key 'forges.0.webhok_secret'; did you mean",
        ),
        ("[server]\nqqqqqqq = 1\n", "unknown key 'server.qqqqqqq'; known here: listen, url"),
        ("[server]\nurl_file = '/x'\n", "unknown key 'server.url_file'; did you mean 'url'?"),
        ("[executor]\nslots = 0\n", "executor.slots: Input should be greater than or equal to 1"),
        ("[executor]\nkind = 'cron'\n", "executor.kind: Input should be 'local' or 'nomad'"),
        (NOMAD + "[server]\nurl = 'http://ci.example.org'\n", "needs server.url to be https://, and it is http://ci"),
        (NOMAD + "[server]\nlisten = '0.0.0.0:80'\n", "needs server.url to be https://, and it is http://0.0.0.0:80"),
        ("[nomad]\naddresses = ['nomad:4646']\n", "nomad: nomad.addresses: ? is no http:// or https:// URL"),
        ("[nomad]\naddresses = []\n", "nomad.addresses: Tuple should have at least 1 item"),
        ("[nomad]\ndriver = 'docker'\n", "nomad.driver = 'docker' needs nomad.image"),
        ("[nomad]\ncert_file = '/c.pem'\n", "nomad.cert_file and nomad.key_file belong together"),
        ("[limits]\njob_seconds = -1\n", "limits.job_seconds: Input should be greater than 0"),
        ("server = 3\n", "server: Input should be a valid dictionary"),
        (FORGE + FORGE, "settings: two forges are named 'home': give each a name of its own"),
        (
            FORGE.replace("from the file", "short"),
            "forges.0.webhook_secret: webhook_secret must have at least 6 characters",
        ),
        (FORGE + 'oauth_client_id = "x"\n', "oauth_client_id and oauth_client_secret belong together"),
        (FORGE + OAUTH, "set server.url: forges.oauth_client_id lets people log in"),
        (FORGE.replace("gitea", "git") + OAUTH, "nobody can log in with bare repositories"),
        (FORGE + '[[operators]]\nforge = "work"\nlogin = "alba"\n', "of forge 'work', which no [[forges]] is named"),
        (FORGE.replace('"home"', '"Home/.."'), "forges.0.name: String should match pattern"),
        ("[server\n", "is not TOML: "),
    ],
)
def test_a_mistake_gets_a_sentence(config: Path, text: str, sentence: str) -> None:
    detail = refused(config, text)
    assert detail.startswith(str(config))
    assert sentence in detail


def test_all_mistakes_are_told_at_once(config: Path) -> None:
    detail = refused(config, "[server]\nlistn = 1\n[executor]\nslots = 0\n")
    assert "server.listn" in detail
    assert "executor.slots" in detail


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"ALBATROS_SERVR__LISTEN": "x"}, "unknown key 'servr'; did you mean 'server'?"),
        ({"ALBATROS_SERVER__LISTN": "x"}, "unknown key 'server.listn'; did you mean 'listen'?"),
        ({"ALBATROS_EXECUTOR__SLOTS": "many"}, "executor.slots: Input should be a valid integer"),
        ({"ALBATROS_EXECUTOR__SANDBOX_PATHS": "/bin"}, 'is not a TOML list such as ["a", "b"]'),
        (
            {"ALBATROS_FORGES__TOKEN": "x"},
            "ALBATROS_FORGES__TOKEN: the environment can only set keys of a plain [section]",
        ),
        ({"ALBATROS_DATABASE__URL_FILE": "/nowhere"}, "url_file = '/nowhere' cannot be read: No such file"),
        (
            {"ALBATROS_DATABASE__URL": "a", "ALBATROS_DATABASE__URL_FILE": "b"},
            "both url and url_file are set; keep one",
        ),
    ],
)
def test_a_mistake_in_the_environment_gets_a_sentence(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environment)
    assert sentence in caught.value.detail


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file .*; give a file with --config"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="binary is not TOML"):
        load(tmp_path / "binary", {})
    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        load(None, {"ALBATROS_DATABASE__URL_FILE": str(tmp_path / "binary")})


def test_no_error_repeats_a_secret(config: Path) -> None:
    text = FORGE.replace('"from the file"', '"tiny"') + 'token = ["hunter2"]\nflake_tokens = { h = ["swordfish"] }\n'
    detail = refused(config, text)
    assert "forges.0.token" in detail
    assert not [secret for secret in ("tiny", "hunter2", "swordfish") if secret in detail]


def test_sections_and_keys_are_listed() -> None:
    assert known_keys() == list(sections()) == list(Settings.model_fields)
    assert known_keys(("forges", 0))[:3] == ["name", "kind", "url"]
    assert known_keys(("nothing",)) == []
