"""The program that an executor starts beside Nix, for one Attempt.

Standard library only, and nothing else of albatros: it travels alone, as one zipapp.
It believes its server and nobody else: the repo, its flake and what it builds are hostile.
"""

PROTOCOL_VERSION = 1
