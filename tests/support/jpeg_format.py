"""A JPEG parsed in pure Python: markers, restart segments, and coefficients."""

import re
from typing import NamedTuple

import numpy as np

SOF0, DHT, SOS, DQT, DRI, APP9, COM = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xE9, 0xFE


class Component(NamedTuple):
    """A color plane, as SOF lists it."""

    h: int
    v: int


class Parts(NamedTuple):
    """A JPEG of one scan."""

    markers: list[tuple[int, bytes]]  # code and payload, up to and including SOS
    segments: list[bytes]
    restarts: list[int]  # the markers between the segments

    def payloads(self, code: int) -> list[bytes]:
        return [payload for marker, payload in self.markers if marker == code]

    def kept(self) -> list[tuple[int, bytes]]:
        """APPn and COM, without the segments' index."""
        return [(code, payload) for code, payload in self.markers
                if (code & 0xF0 == 0xE0 or code == COM)
                and not (code == APP9 and payload.startswith(b"GLUONTRICKS\0"))]

    @property
    def interval(self) -> int:
        return int.from_bytes(self.payloads(DRI)[0], "big") if self.payloads(DRI) else 0

    def index(self) -> list[int] | None:
        """The segments' lengths as the index states them; None if there is none."""
        found = [payload for payload in self.payloads(APP9) if payload[:12] == b"GLUONTRICKS\0"]
        if not found:
            return None
        assert len(found) == 1
        assert found[0][12:14] == b"\x01\x02"
        assert len(found[0]) % 2 == 0
        return [int.from_bytes(found[0][i:i + 2], "big") for i in range(14, len(found[0]), 2)]


def take_apart(data: bytes) -> Parts:
    """Raises AssertionError if the bytes are not a JPEG of one scan that ends with EOI."""
    assert data[:2] == b"\xff\xd8"
    assert data[-2:] == b"\xff\xd9"
    markers, at = [], 2
    while not markers or markers[-1][0] != SOS:
        assert data[at] == 0xFF
        length = int.from_bytes(data[at + 2:at + 4], "big")
        markers.append((data[at + 1], data[at + 4:at + 2 + length]))
        at += 2 + length
    pieces = re.split(rb"\xff([\xd0-\xd7])", data[at:-2])
    assert not any(re.search(rb"\xff[^\0]", piece) for piece in pieces[::2])
    return Parts(markers, pieces[::2], [piece[0] for piece in pieces[1::2]])


def components(parts: Parts) -> list[Component]:
    frame, = (payload for code, payload in parts.markers if code in (SOF0, 0xC1))
    return [Component(frame[6 + 3 * i + 1] >> 4, frame[6 + 3 * i + 1] & 15)
            for i in range(frame[5])]


def size(parts: Parts) -> tuple[int, int]:
    """Width and height."""
    frame, = (payload for code, payload in parts.markers if code in (SOF0, 0xC1))
    return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")


def _tables(parts: Parts) -> dict[int, dict[tuple[int, int], int]]:
    """{class and number: {(bits, code): symbol}}"""
    tables = {}
    for payload in parts.payloads(DHT):
        while payload:
            counts, symbols = payload[1:17], iter(payload[17:])
            code, table = 0, {}
            for bits, count in enumerate(counts, 1):
                for _ in range(count):
                    table[bits, code] = next(symbols)
                    code += 1
                code <<= 1
            tables[payload[0]] = table
            payload = payload[17 + sum(counts):]
    return tables


class _Bits:
    def __init__(self, segment: bytes):
        data = segment.replace(b"\xff\0", b"\xff")
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def take(self, count: int) -> int:
        assert self._at + count <= len(self._bits), "the segment is too short"
        self._at += count
        return int(self._bits[self._at - count:self._at] or "0", 2)

    def symbol(self, table: dict) -> int:
        bits, code = 0, 0
        while (bits, code) not in table:
            bits, code = bits + 1, code << 1 | self.take(1)
            assert bits <= 16
        return table[bits, code]

    def signed(self, count: int) -> int:
        value = self.take(count)
        return value if count == 0 or value >> (count - 1) else value - (1 << count) + 1

    def check_end(self) -> None:
        """Less than a byte may be left, all ones."""
        rest = self._bits[self._at:]
        assert len(rest) < 8
        assert "0" not in rest


def _block(bits: _Bits, dc: dict, ac: dict, before: int) -> np.ndarray:
    block = np.zeros(64, int)
    block[0] = before + bits.signed(bits.symbol(dc))
    k = 1
    while k < 64:
        symbol = bits.symbol(ac)
        if symbol == 0:
            break
        k += symbol >> 4
        block[k] = bits.signed(symbol & 15)
        k += 1
    return block


def coefficients(parts: Parts) -> list[np.ndarray]:
    """Each component's quantized coefficients, (block rows, block columns, 64) in zigzag order.

    Every segment is decoded by itself; blocks outside the image are dropped.
    """
    tables, planes, (width, height) = _tables(parts), components(parts), size(parts)
    scan, = parts.payloads(SOS)
    numbers = [scan[2 + 2 * i] for i in range(scan[0])]
    if len(planes) == 1:
        planes = [Component(1, 1)]
    h_max, v_max = (max(values) for values in zip(*planes, strict=True))
    across, down = -(-width // (8 * h_max)), -(-height // (8 * v_max))
    found = [np.zeros((down * plane.v, across * plane.h, 64), int) for plane in planes]
    interval, total = parts.interval or across * down, across * down
    assert len(parts.segments) == -(-total // interval)
    for start, segment in zip(range(0, total, interval), parts.segments, strict=True):
        bits, before = _Bits(segment), [0] * len(planes)
        for mcu in range(start, min(start + interval, total)):
            row, column = divmod(mcu, across)
            for i, plane in enumerate(planes):
                dc, ac = tables[numbers[i] >> 4], tables[16 + (numbers[i] & 15)]
                for y in range(plane.v):
                    for x in range(plane.h):
                        block = _block(bits, dc, ac, before[i])
                        before[i] = block[0]
                        found[i][row * plane.v + y, column * plane.h + x] = block
        bits.check_end()
    return [blocks[:-(-height * plane.v // (8 * v_max)), :-(-width * plane.h // (8 * h_max))]
            for blocks, plane in zip(found, planes, strict=True)]
