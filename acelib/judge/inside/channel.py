"""Messages between the referee and the candidate: one JSON line each, with a size cap."""

import os

import wire

MESSAGE_BYTES = 4_000_000


class Closed(Exception):
    """The other side is gone, or sent more than a message may hold."""


class Channel:
    def __init__(self, fd: int):
        self._fd, self._buffer = fd, b""

    def send(self, node) -> None:
        data = wire.dumps(node) + b"\n"
        if len(data) > MESSAGE_BYTES:
            raise ValueError(f"a value larger than {MESSAGE_BYTES:,} bytes")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            raise Closed from None

    def receive(self):
        chunks, size = [self._buffer], len(self._buffer)
        while b"\n" not in chunks[-1]:
            try:
                chunk = os.read(self._fd, 65536)
            except OSError:
                chunk = b""
            size += len(chunk)
            if not chunk or size > MESSAGE_BYTES + 65536:
                raise Closed
            chunks.append(chunk)
        line, _, self._buffer = b"".join(chunks).partition(b"\n")
        return wire.loads(line)
