"""Record anew what real Nomads say: python -m tests.support.nomad_record [SCENARIO...]; `nomad` is on PATH.

It writes the exchanges that a scenario keeps and that no fixture holds yet; `--all` replaces those that are there.
"""

import sys

from tests.support.nomad_exchanges import FIXTURES, Talk, write
from tests.support.nomad_scenarios import ONE_NODE, TWO_NODES, acls
from tests.support.nomad_worlds import nomad_world


def main(arguments: list[str]) -> None:
    everything = "--all" in arguments
    wanted = [name for name in arguments if name != "--all"]
    for scenario in (*ONE_NODE, *TWO_NODES, acls):
        if wanted and scenario.__name__ not in wanted:
            continue
        with nomad_world("real", clients=2 if scenario in TWO_NODES else 1, acl=scenario is acls) as world:
            talk = Talk(world)
            scenario(talk)
        for name, exchange in talk.kept.items():
            if everything or not (FIXTURES / f"{name}.json").exists():
                write(name, exchange)
                sys.stderr.write(f"{name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
