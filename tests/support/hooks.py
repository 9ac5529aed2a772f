"""Webhooks of a forge in memory, which tests change as they like."""

from dataclasses import dataclass, field

from albatros.errors import ForgeError
from albatros.forges.base import Hook, HookState


@dataclass
class MemoryHooks:
    """Webhooks in memory: the addresses that each repo's point to, and whether they are whole."""

    hooks: dict[str, dict[str, bool]] = field(default_factory=dict)
    fails: ForgeError | None = None
    rung: list[str] = field(default_factory=list)

    def look(self, owner: str, name: str, url: str) -> Hook:
        whole = self._of(owner, name).get(url)
        state = HookState.MISSING if whole is None else HookState.READY if whole else HookState.DIFFERS
        return Hook(state, f"the webhook is {state}")

    def ensure(self, owner: str, name: str, url: str) -> Hook:
        self._of(owner, name)[url] = True
        return Hook(HookState.READY, "the webhook was made")

    def remove(self, owner: str, name: str, url: str) -> Hook:
        self._of(owner, name).pop(url, None)
        return Hook(HookState.MISSING, "the webhook was removed")

    def ring(self, owner: str, name: str, url: str) -> bool:
        self.rung.append(url)
        return True

    def _of(self, owner: str, name: str) -> dict[str, bool]:
        if self.fails is not None:
            raise self.fails
        return self.hooks.setdefault(f"{owner}/{name}", {})
