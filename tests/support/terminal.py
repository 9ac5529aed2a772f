"""A terminal as far as programs that move the cursor up and erase can tell."""

import io
import re


class Terminal(io.StringIO):
    """Says that it is one, and knows what is left to see."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """The lines that a person sees at the end."""
        lines: list[str] = []
        for part in re.split(r"(\x1b\[\d+A\x1b\[J)", self.getvalue()):
            if up := re.fullmatch(r"\x1b\[(\d+)A\x1b\[J", part):
                del lines[-int(up[1]) :]
            else:
                lines += part.splitlines()
        return lines
