"""Write every generated file."""

import sys

from scripts.reference.pages import ROOT, generate


def main() -> int:
    for path, text in generate().items():
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
