"""What the supervisor and its zygote say to each other besides the files: fixed rows of numbers."""

import socket
from struct import Struct

LIMITS = ("cpu", "idle", "total_cpu", "wall", "memory", "file")  # seconds, then bytes
KILLED = (None, "cpu", "total_cpu", "idle", "wall")
MESSAGE_BYTES = 8192  # more than the names of all of the standard library
RIGHTS_BYTES = socket.CMSG_SPACE(8)  # two files
_ORDER, _REPLY = Struct("4d2q"), Struct("2i2d?")


def pack_order(limits: dict, warm) -> bytes:
    """The limits of a job and the names of the modules to have ready for it."""
    return _ORDER.pack(*map(limits.__getitem__, LIMITS)) + ",".join(warm).encode()


def unpack_order(message: bytes) -> tuple[dict, list[str]]:
    names = message[_ORDER.size :].decode()
    return dict(zip(LIMITS, _ORDER.unpack_from(message))), names.split(",") if names else []


def unpack_rights(rights) -> list[int]:
    """The files that came with an order (what socket.recv_fds does, which imports something in each call)."""
    return [fd for _, _, data in rights for fd in memoryview(data).cast("i")]


def pack_reply(killed: str | None, code: int, cpu: float, over: float, clean: bool) -> bytes:
    """How the job ended: limit passed, exit code, CPU seconds, those beyond the limit; may the zygote go on?"""
    return _REPLY.pack(KILLED.index(killed), code, cpu, over, clean)


def unpack_reply(message: bytes) -> tuple[str | None, int, float, float, bool]:
    killed, *rest = _REPLY.unpack(message)
    return KILLED[killed], *rest
