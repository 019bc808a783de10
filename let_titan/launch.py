"""How the processes of a run find each other: by torchrun's variables, or one without any."""

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from torch.distributed import DistNetworkError
from torchtitan.tools.logging import logger

from let_titan.errors import ConfigError

PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
MEETING = ("MASTER_ADDR", "MASTER_PORT")
INTERFACE = "GLOO_SOCKET_IFNAME"
ANYWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses for documentation (RFC 5737, 3849), to which the way is the default one."""

CURE = "start it with torchrun --nproc_per_node N -m let_titan.train, which sets them all"


def complete_environment() -> None:
    """Makes a plain ``python -m let_titan.train`` a run of one process.

    Raises:
        ConfigError: some of torchrun's variables are set, and others are not.
    """
    missing = [name for name in PLACE if name not in os.environ]
    if len(missing) == len(PLACE):
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        logger.info("One process: torchrun --nproc_per_node N -m let_titan.train makes it N.")
    elif missing:
        raise ConfigError(f"{', '.join(missing)} must be set where others of {PLACE} are: {CURE}.")
    wrong = [name for name in PLACE if not os.environ[name].isdecimal()]
    if wrong:
        raise ConfigError(f"{wrong[0]} = {os.environ[wrong[0]]!r} must be a number: {CURE}.")
    if os.environ["WORLD_SIZE"] == "1":
        os.environ.setdefault("MASTER_ADDR", "localhost")
        os.environ.setdefault("MASTER_PORT", "0")  # any free one
    missing = [name for name in MEETING if name not in os.environ]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be set for several processes: {CURE}.")
    world_size = os.environ["WORLD_SIZE"]
    if world_size != "1" and os.environ.get("LOCAL_WORLD_SIZE") != world_size:
        name_interface(os.environ["MASTER_ADDR"])


def name_interface(master: str) -> None:
    """Names the interface by which gloo connects nodes, where it would take the loopback.

    gloo listens where the machine's own name leads. On many nodes that is 127.0.1.1, as Debian's
    /etc/hosts has it, and other nodes are refused there. NCCL, which chooses by itself, runs, but
    ranks wait for each other's files and downloads in groups of gloo, and torch's checkpoint
    process makes another.

    Args:
        master: the address of rank 0.
    """
    if INTERFACE in os.environ or not gloo_takes_loopback():
        return
    ways = {f"the way to {master}": (master,), "the default way": ANYWHERE}
    for way, addresses in ways.items():
        interface = next(filter(None, map(interface_towards, addresses)), None)
        if interface is not None:
            os.environ[INTERFACE] = interface
            logger.info(
                f"This machine's own name leads to no address that others reach: {INTERFACE}="
                f"{interface}, {way}. Set it if nodes are connected by another interface."
            )
            return


def gloo_takes_loopback() -> bool:
    """Whether gloo would listen where this machine alone can connect.

    It takes the first of the addresses of the machine's name that is one of its own, and the
    loopback if there is none (torch's ProcessGroupGloo.cpp).
    """
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter where a part of the name is too long for a DNS
        return True
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as tried:
                tried.bind(address)
        except OSError:
            continue
        return ipaddress.ip_address(bare(address[0])).is_loopback
    return True


def interface_towards(address: str) -> str | None:
    """Returns the interface by which a packet to ``address`` would leave; None: by none."""
    try:
        family, kind, protocol, _, to = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as unsent:
            unsent.connect(to)
            own = bare(unsent.getsockname()[0])
    except (OSError, UnicodeError):
        return None
    if ipaddress.ip_address(own).is_loopback:
        return None
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, has in interfaces if own in {bare(a.address) for a in has}), None)


def bare(address: str | int) -> str:
    """Returns an IPv6 address without its zone, any other as it is."""
    return str(address).partition("%")[0]


@contextmanager
def rendezvous_errors() -> Iterator[None]:
    """Says where the processes could not meet, instead of a traceback of torch's.

    Raises:
        ConfigError: the port is in use, or nobody answers there.
    """
    try:
        yield
    except DistNetworkError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = "it is in use" if "EADDRINUSE" in str(error) else str(error).splitlines()[0]
        raise ConfigError(
            f"The processes cannot meet at {address} ({reason}): give torchrun another "
            "--master_port, or --standalone on a single machine, which finds a free one."
        ) from error
