"""Where the files lie that are no Python: pages, migrations, example repos, the example config.

In a checkout they lie beside the package, in an installed wheel inside it under `_data`.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _locate(name: str) -> Path:
    packed = _PACKAGE / "_data" / name
    return packed if packed.exists() else _PACKAGE.parent / name


def web_dir() -> Path:
    """The directory that holds `templates/` and `static/`."""
    return _locate("web")


def migrations_dir() -> Path:
    """The directory that holds Alembic's `env.py` and `versions/`."""
    return _locate("migrations")


def examples_dir() -> Path:
    """The directory that holds one example repo in each subdirectory."""
    return _locate("examples")


def deploy_dir() -> Path:
    """The directory that holds what an operator installs beside the server, such as git's hook."""
    return _locate("deploy")


def example_config() -> Path:
    """The commented `albatros.toml` that a new operator starts from."""
    return _locate("deploy/albatros.example.toml")
