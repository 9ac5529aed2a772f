"""A server's receiving end over a forge in memory, for tests of what becomes of webhooks."""

from pydantic import SecretStr
from sqlalchemy import func, select

from albatros.db.models import Base, Build, RefHead
from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.domain.inbound import HeadMoved, Inbound, RepoInfo
from albatros.domain.states import Trigger
from albatros.flows.receive import Receipt, receive
from albatros.settings import ForgeKind, ForgeSettings, LimitSettings, Settings
from tests.support.forges import MemoryForge

A, B, C = "a" * 40, "b" * 40, "c" * 40
MAIN = "refs/heads/main"
GOOD = {"x-signature": "good"}
HELLO = RepoInfo("alba", "hello", private=False, default_branch="main")


def settings_with(**limits: int) -> Settings:
    forge = ForgeSettings(
        name="home", kind=ForgeKind.GITEA, url="http://127.0.0.1", webhook_secret=SecretStr("s3cret"), repos=("alba/*",)
    )
    return Settings(forges=(forge,), limits=LimitSettings(**limits))


class Inbox:
    """A server's receiving end, with a forge whose heads follow what is pushed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.signals = Signals()
        self.writer = Writer(database, self.signals)
        self.settings = settings_with()
        self.forge = MemoryForge()
        self.forge.add("alba/hello")
        self._deliveries = 0

    def send(self, inbound: Inbound, body: bytes = b"{}", flavor: str = "") -> Receipt:
        self.forge.inbound = inbound
        return receive(self.settings, self.writer, self.forge, GOOD, body, flavor)

    def deliver(
        self, before: str | None, after: str | None, ref: str = MAIN, repo: RepoInfo = HELLO, flavor: str = ""
    ) -> Receipt:
        """A webhook with an id of its own; the forge's heads stay as they are."""
        self._deliveries += 1
        kind = Trigger.TAG if ref.startswith("refs/tags/") else Trigger.PUSH
        move = HeadMoved(ref, before, after, kind, "alba", "a title")
        return self.send(Inbound(f"d{self._deliveries}", "push", repo, (move,)), flavor=flavor)

    def push(self, before: str | None, after: str | None, ref: str = MAIN) -> Receipt:
        """Move the forge's head, and send the webhook of it."""
        heads = self.forge.refs["alba/hello"]
        if after is None:
            heads.pop(ref, None)
        else:
            heads[ref] = after
        return self.deliver(before, after, ref)

    def count(self, table: type[Base]) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def builds(self) -> list[tuple[str, int]]:
        with self.database.read() as session:
            return [(b.commit, b.sequence) for b in session.scalars(select(Build).order_by(Build.id))]

    def head(self, ref: str = MAIN) -> tuple[str | None, int]:
        with self.database.read() as session:
            head = session.scalars(select(RefHead).where(RefHead.ref == ref)).one()
            return head.commit, head.sequence
