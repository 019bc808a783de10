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
WAYS = {MASTER: "veth", ANYWHERE: "eth0"}


@pytest.fixture
def node(monkeypatch):
    """A node whose name leads to its loopback, as on Debian, and the interfaces towards others."""

    def start(own="127.0.1.1", ways=WAYS, **changes):
        for name, value in {**TWO_NODES, INTERFACE: None, **changes}.items():
            monkeypatch.setenv(name, value or "")  # noted, so that what launch sets goes with it
            if value is None:
                monkeypatch.delenv(name)

        def by_name(_):
            if own is None:
                raise socket.gaierror("no such name")
            return own

        monkeypatch.setattr(launch.socket, "gethostbyname", by_name)
        monkeypatch.setattr(launch, "interface_towards", ways.get)
        complete_environment()
        return launch.os.environ.get(INTERFACE)

    return start


def test_a_node_whose_name_is_its_loopbacks_names_its_way_to_rank_0(node):
    assert node() == "veth"
    assert node(own=None) == "veth"  # for gloo no name is the loopback's, too
    assert node(LOCAL_WORLD_SIZE=None) == "veth"  # a launcher that does not say how many are here


def test_rank_0s_node_to_which_the_way_is_its_loopback_takes_the_default_one(node):
    assert node(ways={ANYWHERE: "eth0"}) == "eth0"
    assert node(ways={}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"own": "10.9.9.2"},
        {"LOCAL_WORLD_SIZE": "2"},
        {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0"},
    ],
    ids=["a name that others reach", "one node", "one process"],
)
def test_elsewhere_gloo_chooses(changes, node):
    assert node(**changes) is None


def test_a_users_choice_stays(node):
    assert node(**{INTERFACE: "ib0"}) == "ib0"


def test_the_interface_towards_an_address(monkeypatch):
    """No packet is sent: the system is asked by which it would."""
    assert interface_towards("127.0.0.1") is None
    assert interface_towards("no.such.name.invalid") is None
    own = {"lo": "127.0.0.1", "eth0": "192.168.3.4"}
    has = {name: [SimpleNamespace(address=address)] for name, address in own.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: has)

    class Unsent:
        def __init__(self, *kind):
            assert kind == (socket.AF_INET, socket.SOCK_DGRAM)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def connect(self, address):
            assert address[0] == MASTER

        def getsockname(self):
            return (own["eth0"], 1)

    monkeypatch.setattr(launch.socket, "socket", Unsent)
    assert interface_towards(MASTER) == "eth0"
    del has["eth0"]
    assert interface_towards(MASTER) is None
