"""Tables of things by name, to which a module of the user's may add (docs/extend.md)."""

from collections import UserDict
from typing import TypeVar

T = TypeVar("T")


class Names(UserDict[str, T]):
    """A table in which no name is given twice.

    A run says what it was by names: were one to mean something else in another process, exports,
    resumes and comparisons would take two things for one.
    """

    def __setitem__(self, name: str, thing: T) -> None:
        """Adds ``thing``.

        Raises:
            ValueError: the name is taken.
        """
        if name in self.data:
            raise ValueError(f"{name!r} is taken by {self.data[name]!r}: choose another name.")
        super().__setitem__(name, thing)
