"""The last lines of what a rank writes, which the launcher shows if it fails."""

import pytest

from gluon_tricks.parallel.launch import OutputTail


@pytest.mark.parametrize(("blocks", "lines"), [
    ([b"a\nb", b"c\n", b"d"], ["a", "bc", "d"]),
    ([b"1%\r2%\r\n\n\nend\n"], ["1%", "2%", "end"]),
    ([b"\xc3", b"\xa9 \xff\n"], ["é \ufffd"]),
    ([b"%d\n" % number for number in range(30)], [str(number) for number in range(10, 30)]),
    ([b"x" * 5000, b"y"], ["x" * 1999 + "y"]),
    ([b"x" * 5000 + b"\n"], ["x" * 2000]),
    ([], [])])
def test_the_last_lines(blocks, lines):
    tail = OutputTail()
    for block in blocks:
        tail.feed(block)
    assert tail.lines() == lines
