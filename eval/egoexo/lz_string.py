"""LZ-string, the compression of masks in Ego-Exo4D's relation files: `compressToEncodedURIComponent` and its inverse.

By hand, because the package of that name had its last release in 2018. Checked against lz-string 1.5.0 (JavaScript).
Source: lz-string by pieroxy: LZ78 with codes that grow with the table, lowest bit first, 6 bits a character.
"""

from __future__ import annotations

from ...stream.errors import BadInput

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-$"
_BITS = {character: f"{value:06b}" for value, character in enumerate(_ALPHABET[:64])}
_NEW_BYTE, _NEW_WORD, _END = 0, 1, 2  # codes that are no phrase: a character of 8 or 16 bits follows; the text ends


def decompress(text: str) -> str:
    """The text that was compressed. Raises BadInput when this is no compressed text, or its end is missing."""
    bits = _Bits(text)
    first = bits.take(2)
    if first == _END:
        return ""
    if first > _END:
        raise _broken(text, "begins with a phrase")
    last = chr(bits.take(8 << first))
    phrases, out = ["", "", "", last], [last]
    while (code := bits.take(len(phrases).bit_length())) != _END:
        if code < _END:
            phrases.append(chr(bits.take(8 << code)))
            code = len(phrases) - 1
        if code > len(phrases):
            raise _broken(text, f"names phrase {code} of {len(phrases)}")
        phrase = phrases[code] if code < len(phrases) else last + last[0]
        out.append(phrase)
        phrases.append(last + phrase[0])
        last = phrase
    return "".join(out)


class _Bits:
    """The bits of a compressed text, to be taken from its start."""

    def __init__(self, text: str) -> None:
        try:
            self._reversed = "".join([_BITS[character] for character in text.replace(" ", "+")])[::-1]
        except KeyError as error:
            raise _broken(text, f"holds {error}") from error
        self._text, self._left = text, len(self._reversed)

    def take(self, count: int) -> int:
        """The number in the next `count` bits, lowest first."""
        self._left -= count
        if self._left < 0:
            raise _broken(self._text, "ends early")
        return int(self._reversed[self._left : self._left + count], 2)


def _broken(text: str, how: str) -> BadInput:
    return BadInput(f"compressed text of {len(text)} characters {how}, expected LZ-string for URIs; download the file again")


def compress(text: str) -> str:
    """The text compressed, for characters up to U+FFFF."""
    codes: dict[str, int] = {}
    new: set[str] = set()
    bits: list[str] = []
    count, width, room = 3, 2, 2  # codes given; bits of one; how many may still be written before it grows

    def grow() -> None:
        nonlocal width, room
        room -= 1
        if room == 0:
            width, room = width + 1, 1 << width

    def write(phrase: str) -> None:
        if phrase in new:
            wide = ord(phrase) > 255
            bits.extend((_lowest_first(_NEW_WORD if wide else _NEW_BYTE, width), _lowest_first(ord(phrase), 16 if wide else 8)))
            new.remove(phrase)
            grow()
        else:
            bits.append(_lowest_first(codes[phrase], width))
        grow()

    phrase = ""
    for character in text:
        if character not in codes:
            codes[character], count = count, count + 1
            new.add(character)
        if phrase + character in codes:
            phrase += character
        else:
            write(phrase)
            codes[phrase + character], count = count, count + 1
            phrase = character
    if phrase:
        write(phrase)
    bits.append(_lowest_first(_END, width))
    whole = "".join(bits)
    whole += "0" * (6 - len(whole) % 6)
    return "".join(_ALPHABET[int(whole[i : i + 6], 2)] for i in range(0, len(whole), 6))


def _lowest_first(value: int, width: int) -> str:
    return f"{value:0{width}b}"[::-1]
