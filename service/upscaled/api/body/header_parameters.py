"""The parameters of a header like Content-Type or Content-Disposition, as clients write them.

More is taken than RFC 9110 (5.6.6) and RFC 2183 allow: blanks around `=`, and unquoted values with
characters that want quotes, such as a boundary with `=` or a file name with blanks.
"""

import re
from typing import Final

_NAME: Final = re.compile(r"[; \t]*([^;=]*)")
_QUOTED: Final = re.compile(r'=[ \t]*"((?:[^"\\]|\\.)*+)"?[^;]*', re.DOTALL)
_UNQUOTED: Final = re.compile(r"=([^;]*)")
_ESCAPED: Final = re.compile(r'\\(["\\])')


def parse_value(header: str) -> tuple[str, dict[str, str]]:
    """What stands before the first semicolon, in lower case, and the parameters behind it.

    Names are in lower case; of a repeated one the last value counts. Linear in the header's
    length: every character is passed over once.
    """
    value, _, rest = header.partition(";")
    parameters: dict[str, str] = {}
    position = 0
    while match := _NAME.match(rest, position):
        name, position = match[1].strip(" \t").lower(), match.end()
        if position == len(rest):
            break
        if quoted := _QUOTED.match(rest, position):
            parameters[name], position = _ESCAPED.sub(r"\1", quoted[1]), quoted.end()
        elif unquoted := _UNQUOTED.match(rest, position):
            parameters[name], position = unquoted[1].strip(" \t"), unquoted.end()
    return value.strip(" \t").lower(), parameters
