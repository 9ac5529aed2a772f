"""The server's typed settings: `albatros.toml`, then the environment, then secrets from files.

Every key `[a] b` is also `ALBATROS_A__B`; every secret `x` is also `x_file`, a path whose content is the secret.
An unknown key is refused with the nearest known one. Nothing here opens a connection.
"""

from albatros.settings.executors import (
    BuilderSettings,
    ExecutorKind,
    ExecutorSettings,
    NomadDriver,
    NomadSettings,
    ShutdownMode,
)
from albatros.settings.model import (
    DatabaseSettings,
    ForgeKind,
    ForgeSettings,
    LimitSettings,
    OperatorSettings,
    RegistrySettings,
    RetentionSettings,
    ServerSettings,
    Settings,
    SigningSettings,
    StoreSettings,
    known_keys,
    sections,
)
from albatros.settings.reading import ENVIRONMENT_PREFIX, load, private_files

__all__ = [
    "ENVIRONMENT_PREFIX",
    "BuilderSettings",
    "DatabaseSettings",
    "ExecutorKind",
    "ExecutorSettings",
    "ForgeKind",
    "ForgeSettings",
    "LimitSettings",
    "NomadDriver",
    "NomadSettings",
    "OperatorSettings",
    "RegistrySettings",
    "RetentionSettings",
    "ServerSettings",
    "Settings",
    "ShutdownMode",
    "SigningSettings",
    "StoreSettings",
    "known_keys",
    "load",
    "private_files",
    "sections",
]
