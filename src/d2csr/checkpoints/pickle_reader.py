"""Interpreter for the few pickle opcodes that checkpoints use.

``pickle.load`` runs a program that the file chooses. This reader walks the opcodes with :func:`pickletools.genops`
instead and builds plain values and inert records. It imports and calls nothing that a file names: the caller gives one
Python function for each known name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from d2csr.errors import one_line, shown_name

MAX_DEPTH = 20  # of containers; a training checkpoint has about 8
MAX_BITS = 64  # of an integer; larger ones cost quadratic time to print
MAX_KEY = 4096  # characters of a key; Lightning's longest has about 200


class PickleError(Exception):
    """A pickle that is malformed or asks for more than plain values and known records."""


@dataclass(frozen=True)
class Name:
    """A global that a pickle names, known to its reader."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record:
    """Inert description of an object that a pickle builds; a subclass that has a state checks it in ``build``."""

    def build(self, state: Any) -> None:
        """Set the state; raises PickleError for a state that checkpoints do not have."""
        raise PickleError(f"it sets the state of a {type(self).__name__.lower()}")


Function = Callable[..., Any]
Names = Mapping[tuple[str, str], Function | None]


def read_pickle(data: bytes, names: Names, *, max_opcodes: int, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Return the content of a pickle as plain values, and records made by the caller's functions.

    Values are None, bool, int, float, str, bytes, list, tuple and dict with str or int keys; an OrderedDict is a dict.
    Containers are nested at most ``MAX_DEPTH`` levels, and written out in full they have at most ``max_opcodes`` items.

    Args:
        data: the pickle, of protocol 0 to 5.
        names: the globals that it may name, each with the function that stands in for a call of it; None: never called.
        max_opcodes: the length of program to accept.
        persistent: makes a record of a persistent id; None refuses them.

    Raises:
        PickleError: the pickle is malformed, too large, or asks for something else.
    """
    interpreter = _Interpreter(names, persistent)
    try:
        result = interpreter.run(data, max_opcodes)
    except PickleError:
        raise
    except Exception as error:  # of genops and of the stack, by how the pickle is malformed
        raise PickleError(f"malformed pickle ({type(error).__name__}: {one_line(error)})") from None
    _check_nesting(result, max_opcodes)
    return result


def make_records(value: Any, make: Callable[[Record | Name], Any]) -> Any:
    """Return the content of a pickle with what ``make`` returns in place of each record and each name."""
    match value:
        case dict():
            return {key: make_records(item, make) for key, item in value.items()}
        case list() | tuple():
            return type(value)([make_records(item, make) for item in value])
        case Record() | Name():
            return make(value)
    return value


class _Interpreter:
    def __init__(self, names: Names, persistent: Callable[[Any], Any] | None) -> None:
        self._names = {**names, **_COMMON}
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._left = 0  # bytes that calls may still make

    def run(self, data: bytes, max_opcodes: int) -> Any:
        self._left = len(data)
        pop = self._stack.pop
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= max_opcodes:
                raise PickleError(f"more than {max_opcodes:,} opcodes")
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return pop()
                case "MARK":
                    self._marks.append(len(self._stack))
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    if not 0 <= argument <= count:
                        raise PickleError(f"memo index {argument} at opcode {count}")
                    self._memo[argument] = self._stack[-1]
                case "MEMOIZE":
                    self._memo[len(self._memo)] = self._stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    self._stack.append(self._memo[argument])
                case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS":
                    self._fill(opcode.name)
                case "BUILD":
                    state = pop()
                    _build(self._stack[-1], state)
                case _:
                    self._stack.append(self._value(opcode.name, argument))
        raise PickleError("it ends without STOP")

    def _value(self, opcode: str, argument: Any) -> Any:
        """Return the value that an opcode pushes."""
        match opcode:
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1":
                if argument.bit_length() > MAX_BITS:
                    raise PickleError(f"an integer of more than {MAX_BITS} bits")
                return argument
            case "FLOAT" | "BINFLOAT" | "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE":
                return argument
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                return bytes(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                return _CONSTANTS[opcode]()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self._pop(int(opcode[-1])))
            case "LIST":
                return self._pop_mark()
            case "TUPLE":
                return tuple(self._pop_mark())
            case "DICT":
                return _insert({}, self._pop_mark())
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                return self._name(module, name)
            case "STACK_GLOBAL":
                return self._name(*self._pop(2))
            case "REDUCE":
                return self._call(*self._pop(2))
            case "BINPERSID" if self._persistent is not None:
                return self._persistent(self._stack.pop())
        raise PickleError(f"it uses the opcode {opcode}, which no checkpoint needs")

    def _pop(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _pop_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _fill(self, opcode: str) -> None:
        items = self._pop_mark() if opcode.endswith("S") else self._pop(1 if opcode == "APPEND" else 2)
        container = self._stack[-1]
        if opcode.startswith("SETITEM"):
            _insert(container, items)
        elif type(container) is list:
            container.extend(items)
        else:
            raise PickleError("it appends to something that is not a list")

    def _name(self, module: Any, name: Any) -> Name:
        if not (isinstance(module, str) and isinstance(name, str) and (module, name) in self._names):
            text = [shown_name(part) if isinstance(part, str) else "?" for part in (module, name)]
            raise PickleError(f"it asks for {'.'.join(text)}, which no checkpoint needs")
        return Name(module, name)

    def _call(self, callee: Any, arguments: Any) -> Any:
        function = self._names[callee.module, callee.name] if isinstance(callee, Name) else None
        if function is None or not isinstance(arguments, tuple):
            raise PickleError(f"it calls {callee if isinstance(callee, Name) else 'a value that is not a function'}")
        result = function(*arguments)
        if isinstance(result, bytes):
            self._left -= len(result)
            if self._left < 0:
                raise PickleError("byte strings that amount to more than the file")
        return result


def _insert(container: Any, items: list[Any]) -> Any:
    if type(container) is not dict:
        raise PickleError("it sets an item of something that is not a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):
            raise PickleError("a dict with a key that is neither a string nor an integer")
        if type(key) is str and len(key) > MAX_KEY:
            raise PickleError(f"a dict with a key of {len(key):,} characters")
        if key in container:
            raise PickleError(f"a dict with the key {str(key)[:100]!r} twice")
        container[key] = value
    return container


def _build(target: Any, state: Any) -> None:
    """Give a record its state; the attributes of an OrderedDict, torch's ``_metadata``, are ignored."""
    if type(target) is dict and isinstance(state, dict):
        return
    if not isinstance(target, Record):
        raise PickleError("it sets the state of something that has none")
    target.build(state)


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes, which protocols 0 to 2 store as text."""
    if encoding != "latin1":
        raise PickleError(f"it asks for the codec {encoding[:40]!r}")
    return text.encode("latin-1")


_COMMON: Names = {
    ("collections", "OrderedDict"): lambda: {},
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # the only bytes that protocols 0 to 2 make by a call of the class
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple},
}


def _check_nesting(value: Any, most: int) -> None:
    """Bound depth and total size of nested containers; a container that is shared counts each time, a cycle fails."""
    known: dict[int, tuple[int, int]] = {}

    def measure(value: Any, depth: int) -> tuple[int, int]:
        if not isinstance(value, dict | list | tuple):
            return 0, 1
        height, size = known.get(id(value), (0, 0))
        if not size:
            if depth >= MAX_DEPTH:
                raise PickleError(f"containers nested more than {MAX_DEPTH} levels")
            inner = [measure(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
            height = 1 + max((height for height, _ in inner), default=0)
            size = 1 + sum(size for _, size in inner)
            known[id(value)] = height, size
        if depth + height > MAX_DEPTH:
            raise PickleError(f"containers nested more than {MAX_DEPTH} levels")
        if size > most:
            raise PickleError(f"shared containers that amount to more than {most:,} values")
        return height, size

    measure(value, 0)
