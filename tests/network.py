"""A network of this machine's own, whose members share nothing else, and whose cables can be pulled."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

RAY_ASKS_FOR = "8.8.8.8"


class NamespacesMissingError(RuntimeError):
    """This machine cannot pretend to be several."""


class Cable:
    """What joins a network namespace to the network.

    Attributes:
        address: of the namespace.
        inside: the beginning of a command line, whose rest runs in the namespace.
    """

    def __init__(self, network: str, number: int) -> None:
        self._name = f"{network}-{number}"  # of the namespace, and of the cable's end at the bridge
        self.address = f"{_prefix(network)}.{number}"
        self.inside = ("nsenter", f"--net=/run/netns/{self._name}")
        _ip("netns", "add", self._name)
        _ip("link", "add", self._name, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("link", "set", self._name, "master", network, "up")
        own = ("-netns", self._name)
        _ip(*own, "link", "set", "lo", "up")
        _ip(*own, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip(*own, "link", "set", "eth0", "up")
        # Ray takes the address on the way to this one for its own. Nothing else leads out: whoever asks for a host's
        # name is refused at once, rather than after 10 seconds.
        _ip(*own, "route", "add", RAY_ASKS_FOR, "via", f"{_prefix(network)}.1")

    def pull(self) -> None:
        """What is sent from now on is lost, at both ends, and nobody is told."""
        _ip("link", "set", self._name, "down")

    def plug(self) -> None:
        """As before `pull`."""
        _ip("link", "set", self._name, "up")

    def remove(self) -> None:
        """The namespace goes with its last process, and its cable with it."""
        _ip("netns", "delete", self._name)


class Network:
    """A bridge, at which this machine itself has `address`."""

    def __init__(self) -> None:
        for number in random.sample(range(256), 256):  # where others do the same, both get one of their own
            self._name = f"mrc{number}"
            if subprocess.run(["ip", "link", "add", self._name, "type", "bridge"], capture_output=True).returncode == 0:
                break
        else:
            raise NamespacesMissingError("no bridge can be made here, which takes Linux, root and `ip` of iproute2")
        self.address = f"{_prefix(self._name)}.1"
        self._cables: list[Cable] = []
        _ip("address", "add", f"{self.address}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")

    def lay_cable(self) -> Cable:
        """To a new namespace."""
        self._cables.append(Cable(self._name, len(self._cables) + 2))
        return self._cables[-1]

    def close(self) -> None:
        for cable in self._cables:
            cable.remove()
        _ip("link", "delete", self._name)


@contextmanager
def network() -> Iterator[Network]:
    """Up within the context. Raises NamespacesMissingError."""
    made = Network()
    try:
        yield made
    finally:
        made.close()


def _prefix(name: str) -> str:
    """Of the addresses in a network."""
    return f"10.213.{name.removeprefix('mrc')}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
