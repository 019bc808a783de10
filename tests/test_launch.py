"""How nodes find each other: the interface that gloo is given."""

import socket
from types import SimpleNamespace

import psutil
import pytest

from let_titan import launch
from let_titan.launch import ANYWHERE, INTERFACE, complete_environment, interface_towards

MASTER = "10.9.9.1"
TWO_NODES = {
    "RANK": "1",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": MASTER,
    "MASTER_PORT": "29500",
}
WAYS = {MASTER: "veth", ANYWHERE[0]: "eth0"}
HERE = {"127.0.1.1", "::1", "10.9.9.2", "fd00::2"}
"""The node's own addresses."""


class Sockets:
    """In the place of the system's: what can be bound, and by which way a packet would leave."""

    def __init__(self, family, kind, protocol):
        self.kind = kind

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def bind(self, address):
        assert self.kind == socket.SOCK_STREAM
        if address[0] not in HERE:
            raise OSError("not here")

    def connect(self, address):
        assert self.kind == socket.SOCK_DGRAM  # so that nothing is sent
        self.to = address[0]

    def getsockname(self):
        return ("fd00::2%veth" if ":" in self.to else "10.9.9.2", 1)


def names(known):
    """In the place of socket.getaddrinfo: ``known`` addresses of each name."""

    def look_up(name, port, type):
        if name not in known:
            raise socket.gaierror("no such name")
        family = socket.AF_INET6 if ":" in known[name][0] else socket.AF_INET
        return [(family, type, 0, "", (address, port or 0)) for address in known[name]]

    return look_up


@pytest.fixture
def node(monkeypatch):
    """A node whose name leads to its loopback, as on Debian, and the interfaces towards others."""

    def start(own=("127.0.1.1",), ways=WAYS, **changes):
        for name, value in {**TWO_NODES, INTERFACE: None, **changes}.items():
            monkeypatch.setenv(name, value or "")  # noted, so that what launch sets goes with it
            if value is None:
                monkeypatch.delenv(name)

        known = {"node": own} if own else {}
        monkeypatch.setattr(launch.socket, "gethostname", lambda: "node")
        monkeypatch.setattr(launch.socket, "getaddrinfo", names(known))
        monkeypatch.setattr(launch.socket, "socket", Sockets)
        monkeypatch.setattr(launch, "interface_towards", ways.get)
        complete_environment()
        return launch.os.environ.get(INTERFACE)

    return start


def test_a_node_whose_name_is_its_loopbacks_names_its_way_to_rank_0(node):
    assert node() == "veth"
    assert node(own=None) == "veth"  # gloo takes the loopback where a name leads nowhere,
    assert node(own=("203.0.113.7",)) == "veth"  # and where it leads to no address of its own
    assert node(own=("203.0.113.7", "127.0.1.1")) == "veth"
    assert node(own=("::1",)) == "veth"
    assert node(LOCAL_WORLD_SIZE=None) == "veth"  # a launcher that does not say how many are here


def test_rank_0s_node_to_which_the_way_is_its_loopback_takes_the_default_one(node):
    for address in ANYWHERE:
        assert node(ways={address: "eth0"}) == "eth0"
    assert node(ways={}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"own": ("10.9.9.2",)},
        {"own": ("fd00::2",)},
        {"own": ("203.0.113.7", "10.9.9.2", "127.0.1.1")},
        {"LOCAL_WORLD_SIZE": "2"},
        {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0"},
    ],
    ids=["a name that others reach", "by IPv6", "by its second address", "one node", "one process"],
)
def test_elsewhere_gloo_chooses(changes, node):
    assert node(**changes) is None


def test_a_users_choice_stays(node):
    assert node(**{INTERFACE: "ib0"}) == "ib0"


@pytest.mark.parametrize("name", ["a" * 64, "node..7"])
def test_a_name_that_no_dns_takes_leads_nowhere(name, monkeypatch):
    monkeypatch.setattr(launch.socket, "gethostname", lambda: name)
    assert launch.gloo_takes_loopback()


def test_the_interface_towards_an_address(monkeypatch):
    """No packet is sent: the system is asked by which it would."""
    assert interface_towards("127.0.0.1") is interface_towards("a" * 64) is None
    has = {"lo": ["127.0.0.1", "::1"], "eth0": ["10.9.9.2"], "veth": ["fd00::2%veth"]}
    entries = {name: [SimpleNamespace(address=each) for each in has[name]] for name in has}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: entries)
    monkeypatch.setattr(launch.socket, "socket", Sockets)
    monkeypatch.setattr(launch.socket, "getaddrinfo", names({"a": [MASTER], "b": ["fd00::1"]}))
    assert interface_towards("a") == "eth0"
    assert interface_towards("b") == "veth"
    assert interface_towards("elsewhere") is None
    del entries["eth0"]
    assert interface_towards("a") is None
