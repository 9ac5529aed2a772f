"""A forge in memory, for tests of flows: heads and statuses are dictionaries, and it can be made to fail."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from albatros.domain.inbound import Head, Inbound, Pull, RepoInfo
from albatros.errors import ForgeError, NotFoundError, UnauthorizedError
from albatros.forges.base import CloneSource, CommitStatus, Permission


@dataclass
class MemoryForge:
    """Takes a webhook whose `x-signature` is `good`, and reads what the test put into `inbound`."""

    name: str = "home"
    reads_disk: bool = False
    infos: dict[str, RepoInfo] = field(default_factory=dict)
    refs: dict[str, dict[str, str]] = field(default_factory=dict)
    people: dict[str, Permission] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)
    inbound: Inbound | None = None
    posted: list[CommitStatus] = field(default_factory=list)
    fails: ForgeError | None = None
    asked: list[str] = field(default_factory=list)

    def add(self, full_name: str, *, private: bool = False, **refs: str) -> None:
        """Add a repo with branches."""
        owner, name = full_name.split("/")
        self.infos[full_name] = RepoInfo(owner, name, private, "main")
        self.refs[full_name] = {f"refs/heads/{branch}": commit for branch, commit in refs.items()}

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        if headers.get("x-signature") != "good":
            raise UnauthorizedError("not signed")

    def parse(self, headers: Mapping[str, str], body: bytes) -> Inbound:
        assert self.inbound is not None
        return self.inbound

    def describe(self, owner: str, name: str) -> RepoInfo:
        self._ask(f"describe {owner}/{name}")
        if f"{owner}/{name}" not in self.infos:
            raise NotFoundError(f"no {owner}/{name}")
        return self.infos[f"{owner}/{name}"]

    def repos(self) -> Iterable[RepoInfo]:
        self._ask("repos")
        return list(self.infos.values())

    def heads(self, owner: str, name: str) -> Mapping[str, str]:
        self._ask(f"heads {owner}/{name}")
        return dict(self.refs[f"{owner}/{name}"])

    def head(self, owner: str, name: str, ref: str) -> Head | None:
        self._ask(f"head {ref}")
        for pull in self.pulls.values():
            if pull.ref == ref:
                return Head(pull.commit, pull.author, pull.title) if pull.open else None
        commit = self.refs.get(f"{owner}/{name}", {}).get(ref)
        return Head(commit, "alba", "a title") if commit is not None else None

    def permission(self, owner: str, name: str, login: str, subject: str = "") -> Permission:
        self._ask(f"permission {owner}/{name} {login}")
        return self.people.get(login, Permission.NONE)

    def pull(self, owner: str, name: str, number: int) -> Pull | None:
        self._ask(f"pull {owner}/{name} {number}")
        return self.pulls.get(number)

    def open_pulls(self, owner: str, name: str) -> Iterable[Pull]:
        self._ask(f"open_pulls {owner}/{name}")
        return [pull for pull in self.pulls.values() if pull.open]

    def clone_source(self, owner: str, name: str, *, credential: bool = True) -> CloneSource:
        return CloneSource(f"https://forge.example.org/{owner}/{name}.git")

    def post_status(self, owner: str, name: str, status: CommitStatus) -> None:
        self._ask(f"status {status.context}")
        self.posted.append(status)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails
