"""Generators of hostile files: pickles, checkpoints, resume files."""

# ruff: noqa: E501 - a case a line

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

NETWORK = {
    "scale": 2,
    "features": 8,
    "branching": [2],
    "fusion_features": 4,
    "body": {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 4},
}


# Opcodes of a pickle.


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def mapping(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def official(value: bytes) -> bytes:
    """A pickle of the official form with one value among its arrays."""
    return program(mapping(state_dict_D=mapping(**{"head.0.weight": value}), state_dict_C=b"}"))


PLAIN_STATE = group(integer(3), text("<"), b"NNN", integer(-1), integer(-1), integer(0))


def dtype(code: str = "f4", state: bytes = PLAIN_STATE) -> bytes:
    return named("numpy", "dtype") + group(text(code), b"\x89", b"\x88") + b"R" + state + b"b"


EMPTY_ARRAY = named("numpy.core.multiarray", "_reconstruct")
EMPTY_ARRAY += group(named("numpy", "ndarray"), group(integer(0)), raw(b"b")) + b"R"


def array(
    shape: bytes = group(integer(1)),
    kind: bytes | None = None,
    content: bytes = raw(bytes(4)),
    fortran: bytes = b"\x89",
) -> bytes:
    kind = dtype() if kind is None else kind
    return EMPTY_ARRAY + group(integer(1), shape, kind, fortran, content) + b"b"


def from_buffer(*arguments: bytes) -> bytes:
    return named("numpy._core.numeric", "_frombuffer") + group(*arguments) + b"R"


def doubled(levels: int, container: bytes = b"]") -> bytes:
    """A list that holds a list twice, that holds a list twice, and so on."""
    inner = b"]"
    for level in range(levels):
        put, get = b"r" + struct.pack("<I", level), b"j" + struct.pack("<I", level)
        inner = inner + put + container + b"(" + get * 100 + b"e"
    return inner


def pickles() -> dict[str, bytes]:
    """Pickles that have to be refused, by what is wrong with them."""
    cases = {
        "a dtype with forged fields and flags": official(
            array(kind=dtype(state=group(*[integer(3), text("<"), b"N", group(text("a")), mapping(a=b"N")], *[integer(n) for n in (8, 1, 63)])))
        ),
        "a dtype that writes through SETITEM": program(
            dtype(state=group(*[integer(3), text("|"), b"N", group(text("f0")), mapping(f0=group(dtype(), integer(1 << 30)))], *[integer(n) for n in (8, 1, 63)])),
            text("f0"), integer(1), b"s",
        ),
        "a dtype of version 4": official(array(kind=dtype(state=group(integer(4), text("<"), b"NNN", integer(-1), integer(-1), integer(0), b"}")))),
        "a dtype with an item size": official(array(kind=dtype(state=group(integer(3), text("<"), b"NNN", integer(1 << 30), integer(-1), integer(0))))),
        "a dtype whose state is a list": official(array(kind=dtype(state=b"]"))),
        "a dtype with flags": official(array(kind=dtype(state=group(integer(3), text("<"), b"NNN", integer(-1), integer(-1), integer(63))))),
        "a dtype made of a number": official(named("numpy", "dtype") + group(integer(4), b"\x89", b"\x88") + b"R"),
        "a dtype made of nothing": official(named("numpy", "dtype") + b")R"),
        "a dtype alone": official(dtype()),
        "the class of arrays alone": official(named("numpy", "ndarray")),
        "an array made by the class, stride 0": official(
            named("numpy", "ndarray") + group(group(integer(2**31)), text("f4"), raw(bytes(4)), integer(0), group(integer(0))) + b"R"
        ),
        "an array without a state": official(EMPTY_ARRAY),
        "an array with a state of two": official(EMPTY_ARRAY + group(integer(1), b"N") + b"b"),
        "an array of version 2": official(EMPTY_ARRAY + group(integer(2), group(integer(1)), dtype(), b"\x89", raw(bytes(4))) + b"b"),
        "an array without a dtype": official(array(kind=b"N")),
        "an array whose dtype is a name": official(array(kind=named("numpy", "dtype"))),
        "an array whose dtype is an array": official(array(kind=EMPTY_ARRAY)),
        "an array whose content is a list": official(array(content=b"]")),
        "an array whose content is a text": official(array(content=text("abcd"))),
        "an array that gets an item": program(array(), integer(0), integer(1), b"s"),
        "an array that is appended to": program(array(), integer(1), b"a"),
        "a reconstruction of another type": official(named("numpy.core.multiarray", "_reconstruct") + group(named("numpy", "dtype"), group(integer(0)), raw(b"b")) + b"R"),
        "a buffer without a shape": official(from_buffer(raw(bytes(4)), dtype())),
        "a buffer in the order K": official(from_buffer(raw(bytes(4)), dtype(), group(integer(1)), text("K"))),
        "a buffer of a text": official(from_buffer(text("abcd"), dtype(), group(integer(1)), text("C"))),
        "a state for a function": program(named("numpy", "dtype"), b"}", b"b"),
        "a state for a list": program(b"]", b"}", b"b"),
        "a state that is a list, for a dict": program(b"}", b"]", b"b"),
        "a call of a text": program(text("eval"), b")R"),
        "a call with a list": program(named("collections", "OrderedDict"), b"]R"),
        "bytes of a number": program(named("__builtin__", "bytes"), group(integer(2**40)), b"R"),
        "a memo index of 2,000,000,000": program(b"Nr" + struct.pack("<I", 2_000_000_000)),
        "a memo index in text": program(b"Np999999999\n"),
        "a negative memo index": program(b"Np-1\n"),
        "a memo index that holds nothing": program(b"h\x07"),
        "190,000 tuples": program(b")" + b"\x85" * 190_000),
        "190,000 lists": program(b"]" * 95_000 + b"a" * 94_999),
        "5,000,000 tuples": program(b")" + b"\x85" * 5_000_000),
        "25 dicts": program(b"}" + text("a") + b"}" + (text("a") + b"}") * 24 + b"s" * 25),
        "a list in itself": program(b"]q\x00h\x00a"),
        "a dict in itself": program(b"}q\x00", text("a"), b"h\x00s"),
        "lists that amount to 100^10 items": program(doubled(10)),
        "an integer of 250 bytes": program(b"\x8a\xfa" + b"\x7f" * 250),
        "an integer of 1,000,000 bytes": program(b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6),
        "an integer of 5,000 digits": program(b"L" + b"9" * 5000 + b"L\n"),
        "a key that is a list": program(b"}]Ns"),
        "a key that is a float": program(b"}F1.5\nNs"),
        "a key that is a tuple of tuples": program(b"})" + b"\x85" * 100_000 + b"Ns"),
        "a key twice": program(b"}", text("a"), b"Ns", text("a"), b"Ns"),
        "arrays of one buffer": program(
            raw(bytes(2**20)), b"q\x00", dtype(), b"q\x01]", b"(",
            from_buffer(b"h\x00", b"h\x01", group(integer(2**18)), text("C")) * 1000, b"e"),
        "one array many times": program(array(group(integer(2**20)), content=raw(bytes(2**22))), b"q\x00](", b"h\x00" * 50_000, b"e"),
        "an odd number of items": program(b"}(", text("a"), b"u"),
        "a text that states 4 GB": b"\x80\x04X\xff\xff\xff\xffabc",
        "bytes that state 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        "a bytearray that states 2^62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
        "a text that is not UTF-8": program(b"X\x02\x00\x00\x00\xff\xfe"),
        "no end": b"\x80\x04N",
        "nothing": b"",
        "an end alone": b".",
        "a protocol of the future": b"\x80\xc8N.",
        "no mark": program(b"t"),
        "more opcodes than a checkpoint has": program(b"]" + b"Na" * 150_000),
        "a group 3,000,000 deep": official(_official_key("body1.3000000.body.0.body.0.weight")),
        "a group of 5,000 digits": official(_official_key(f"body1.{'9' * 5000}.body.0.body.0.weight")),
        "a name that is not a text": program(integer(1), integer(2), b"\x93"),
        "a name of control characters": program(text("os\x1b[2J\x07"), text("system\r\n"), b"\x93"),
        "a name of a list in lists": program(doubled(10), text("x"), b"\x93"),
        "bytes made 60 times of one text": program(
            text("x" * 10**6), b"q\x00](", (named("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 60, b"e"),
        "bytes of another codec": program(named("_codecs", "encode"), text("x"), text("zlib"), b"\x86R"),
        "a key of 5,000,000 characters": program(b"}", text("k" * 5 * 10**6), b"Ns"),
        "a key of 5,000 characters": program(b"}", text("k" * 5000), b"Ns"),
        "more than 64 MiB": program(text("x" * (64 * 2**20))),
        "a text of four bytes a character": program(text("\U0001f600" + "x" * (60 * 2**20))),
        "image of another format": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }  # fmt: skip
    for code in (
        "O",
        "V8",
        "S4",
        "U4",
        "i4",
        "i8",
        "c8",
        "f16",
        "b1",
        "M8[s]",
        "<f4",
        "f4,f4",
        "(2,)f4",
        "float32",
        "",
    ):
        cases[f"an array of the type {code!r}"] = official(array(kind=dtype(code)))
    for order in ("|", "=", "", "<<", "\x00"):
        state = group(integer(3), text(order), b"NNN", integer(-1), integer(-1), integer(0))
        cases[f"a byte order {order!r}"] = official(array(kind=dtype(state=state)))
    shapes = {
        "negative": group(integer(-1)),
        "two negatives": group(integer(-1), integer(-1)),
        "too small": group(integer(0)),
        "too large": group(integer(2)),
        "2^62": group(integer(2**62)),
        "0 × 2^40": group(integer(0), integer(2**40)),
        "a product that overflows to 1": group(*[integer(2**31 - 1)] * 8),
        "9 dimensions": group(*[integer(1)] * 9),
        "a float": group(b"F1.0\n"),
        "a flag": group(b"\x88"),
        "a list": b"]",
        "nested": group(group(integer(1))),
        "a number": integer(1),
    }
    for name, shape in shapes.items():
        cases[f"a shape: {name}"] = official(array(shape))
        cases[f"a shape of a buffer: {name}"] = official(from_buffer(raw(bytes(4)), dtype(), shape, text("C")))
    for module, name in (
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("builtins", "bytearray"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy.core.multiarray", "scalar"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("functools", "partial"),
        ("collections", "OrderedDict.fromkeys"),
        ("d2csr.checkpoints", "load_model"),
    ):
        cases[f"a call of {module}.{name}"] = official(named(module, name) + b")R")
    opcodes = {
        "PERSID": b"Pid\n",
        "BINPERSID": b"NQ",
        "EXT1": b"\x82\x01",
        "INST": b"(ios\nsystem\n",
        "OBJ": b"(" + named("collections", "OrderedDict") + b"o",
        "NEWOBJ": named("collections", "OrderedDict") + b")\x81",
        "NEWOBJ_EX": named("collections", "OrderedDict") + b")}\x92",
        "NEXT_BUFFER": b"\x97",
        "READONLY_BUFFER": b"N\x98",
        "DUP": b"N2",
        "POP": b"NN0",
        "POP_MARK": b"N(1",
        "EMPTY_SET": b"\x8f",
        "FROZENSET": b"(\x91",
        "STRING": b"S'a'\n",
        "SHORT_BINSTRING": b"U\x01a",
    }
    return cases | {f"the opcode {name}": program(code) for name, code in opcodes.items()}


def _official_key(key: str) -> bytes:
    return array() + text(key) + array()


# Own checkpoints.


def content() -> dict[str, Any]:
    """The content of a checkpoint that loads."""
    from d2csr.checkpoints.own import PREFIX
    from d2csr.models import D2CSR

    torch.manual_seed(0)
    weights = D2CSR(**NETWORK).state_dict()
    return {
        "d2csr": {"format": 2, "version": "0", "network": NETWORK, "data": {"name": "pairs", "root": "/data"}},
        "state_dict": {PREFIX + name: value for name, value in weights.items()},
    }


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    value = content()
    change(value)
    return saved(value)


def rewritten(
    data: bytes, compression: int = zipfile.ZIP_STORED, **members: bytes | Callable[[bytes], bytes] | None
) -> bytes:
    """Write an archive again, with other members; ``data_pkl`` stands for ``data.pkl``, None leaves a member out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w", compression) as target:
        for name in source.namelist():
            change = members.get(name.partition("/")[2].replace(".", "_").replace("/", "_"), source.read(name))
            if change is not None:
                target.writestr(name, change(source.read(name)) if callable(change) else change)
    return file.getvalue()


def data_pickle(data: bytes) -> bytes:
    """Return the pickle inside an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def _directory_entry(data: bytes, index: int) -> int:
    at = data.index(b"PK\1\2")
    for _ in range(index):
        at = data.index(b"PK\1\2", at + 4)
    return at


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _with_pickle(pickled: bytes) -> bytes:
    return rewritten(saved(content()), data_pkl=pickled)


def _storage(length: int = 4, kind: str = "FloatStorage", key: str = "0") -> bytes:
    return group(text("storage"), named("torch", kind), text(key), text("cpu"), integer(length)) + b"Q"


def _tensor(
    offset: int = 0, shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), storage: bytes | None = None
) -> bytes:
    arguments = (
        _storage() if storage is None else storage,
        integer(offset),
        group(*map(integer, shape)),
        group(*map(integer, strides)),
        b"\x89",
        named("collections", "OrderedDict") + b")R",
    )
    return named("torch._utils", "_rebuild_tensor_v2") + group(*arguments) + b"R"


def _tensor_file(tensor: bytes) -> bytes:
    """An archive with one storage of 16 bytes, and one tensor in its state dict."""
    pickled = program(mapping(d2csr=mapping(network=b"}"), state_dict=mapping(**{"network.a": tensor})))
    return rewritten(saved({"a": torch.zeros(4)}), data_pkl=pickled)


def set_network(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["d2csr"].update(network={**NETWORK, **settings})


def set_body(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return set_network(body={**NETWORK["body"], **settings})


def set_weight(weight: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["state_dict"].update({"network.divergence.head.bias": weight})


def set_swin(**settings: Any) -> Callable[[dict[str, Any]], None]:
    """A small network of Transformers, and as many tensors and numbers as it may need."""

    def change(value: dict[str, Any]) -> None:
        set_network(
            branching=[1], body={"name": "swin", "groups": 1, "layers": 2, "heads": 1, "window": 2, **settings}
        )(value)
        value["state_dict"].update({f"network.more{i}": torch.zeros(1) for i in range(300)})
        set_weight(torch.zeros(400_000))(value)

    return change


def _storage_start(data: bytes) -> int:
    """Return where the content of the first storage begins in an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        at = next(member for member in archive.infolist() if "/data/" in member.filename).header_offset
    return at + 30 + sum(struct.unpack("<HH", data[at + 26 : at + 30]))


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def checkpoints() -> dict[str, bytes]:
    """Own checkpoints and zip files that have to be refused, by what is wrong with them."""
    good = saved(content())
    entry = _directory_entry(good, 0)
    names = ["format", "version", "network", "data"]
    numbers = {"a text": "9", "a list": [2], "a float": 2.0, "zero": 0, "negative": -1, "a flag": True, "null": None}
    cases = {f"a format: {name}": changed(lambda v, x=x: v["d2csr"].update(format=x)) for name, x in numbers.items()}
    cases |= {
        f"no network: {x!r:.20}": changed(lambda v, x=x: v["d2csr"].update(network=x)) for x in (None, 1, "a", [])
    }
    cases |= {
        f"an average: {x!r:.20}": changed(lambda v, x=x: v.update(average=x))
        for x in ([1], {"a": 1}, {1: torch.zeros(1)}, "a", {"a": None}, torch.ones(1).tolist())
    }
    cases |= {
        f"a data description: {x!r:.20}": changed(lambda v, x=x: v["d2csr"].update(data=x))
        for x in ([1], "a", {1: 2}, {"root": ["a"]}, {"test_list": 1.5}, {"name": {"a": 1}})
    }
    cases |= {
        f"a description: {name}": saved({"d2csr": {n: [1] for n in names if n != name}, "state_dict": {}})
        for name in names
    }
    for name, settings in {
        "1,000 groups": {"groups": 1000},
        "10,000,000 groups": {"groups": 10**7},
        "a name of 5,000,000 characters": {"name": "k" * 5 * 10**6},
        "a setting of 3,000 characters": {"k" * 3000: 1},
        "10^18 groups": {"groups": 10**18},
        "10,000,000 blocks": {"blocks": 10**7},
        "groups, a text": {"groups": "1"},
        "groups, a float": {"groups": 1.0},
        "groups, a flag": {"groups": True},
        "negative groups": {"groups": -1},
        "reduction 0": {"reduction": 0},
        "reduction 10^9": {"reduction": 10**9},
        "an unknown setting": {"colour": 1},
        "an unknown body": {"name": "mine"},
        "a body without a name": {"name": None},
    }.items():
        cases[f"a body with {name}"] = changed(set_body(**settings))
    for name, settings in {
        "4,000 features": {"features": 4000},
        "12,000 features": {"features": 12000},
        "features, 5,000,000 characters": {"features": "9" * 5 * 10**6},
        "features, control characters": {"features": "\x1b[2J\x07"},
        "features, a tensor": {"features": torch.zeros(3)},
        "a setting of 4,000 characters": {"k" * 4000: 1},
        "10^18 features": {"features": 10**18},
        "features, a list": {"features": [8]},
        "six levels of nine": {"branching": [9] * 6},
        "10,000 levels": {"branching": [1] * 10_000},
        "no level": {"branching": []},
        "branching, a text": {"branching": "22"},
        "branching, nested": {"branching": [[2]]},
        "fusion of 10^9": {"fusion_features": 10**9},
        "scale 7": {"scale": 7},
        "scale 8": {"scale": 8},
        "scale 2^60": {"scale": 2**60},
        "scale, a text": {"scale": "2"},
        "body null": {"body": None},
        "body a list": {"body": [1]},
        "an unknown setting": {"self": 1},
    }.items():
        cases[f"a network with {name}"] = changed(set_network(**settings))
    for name, body in {
        "attention tables of 1 GB": {"window": 32, "layers": 100},
        "a window of 10^9": {"window": 10**9},
        "a window of 2^62": {"window": 2**62},
        "a perceptron of 10^300": {"mlp_ratio": 1e300},
        "10^12 layers": {"layers": 10**12},
    }.items():
        cases[f"a body of Transformers with {name}"] = changed(set_swin(**body))
    cases |= {
        "a network with a setting whose key is a number": changed(lambda v: v["d2csr"].update(network={**NETWORK, 1: 2})),
        "a format of 5,000,000 characters": changed(lambda v: v["d2csr"].update(format="9" * 5 * 10**6)),
        "a weight whose name has 5,000,000 characters": changed(lambda v: v["state_dict"].update({"network." + "k" * 5 * 10**6: torch.zeros(1)})),
        "a weight whose name has 4,000 characters, NaN": changed(lambda v: v["state_dict"].update({"network." + "k" * 4000: torch.tensor([float("nan")])})),
        "pickle: bytes made 2,000 times of one text": _with_pickle(program(
            text("x" * 20 * 2**20), b"q\x00](", (named("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 2000, b"e")),
        "zip: a byte order of 100 MB": rewritten(good, byteorder=bytes(100 * 2**20)),
        "zip: a wrong check sum of a weight": _patched(good, _storage_start(good), b"\x55\xaa"),
        "small groups in one tensor": changed(
            lambda v: (
                set_network(features=1, body={**NETWORK["body"], "groups": 1000, "reduction": 1})(v),
                set_weight(torch.zeros(5_000_000))(v),
            )
        ),
        "a weight that is NaN": changed(set_weight(torch.full((8,), float("nan")))),
        "a weight that is infinite": changed(set_weight(torch.full((8,), float("-inf")))),
        "a weight too large for float32": changed(set_weight(torch.full((8,), 1e300, dtype=torch.float64))),
        "a weight of another shape": changed(set_weight(torch.zeros(2, 4))),
        "a weight that is a number": changed(set_weight(1)),
        "a weight that is expanded": changed(set_weight(torch.zeros(1).expand(8))),
        "a weight that is complex": changed(set_weight(torch.zeros(8, dtype=torch.complex64))),
        "a weight that is sparse": changed(set_weight(torch.zeros(8).to_sparse())),
        "a weight without memory": changed(set_weight(torch.zeros(8, device="meta"))),
        "a weight missing": changed(lambda v: v["state_dict"].pop("network.divergence.head.bias")),
        "a weight too many": changed(lambda v: v["state_dict"].update({"network.more": torch.zeros(1)})),
        "a weight of control characters": changed(lambda v: v["state_dict"].update({"network.\x1b[2J": torch.zeros(1)})),
        "nested 100 deep": changed(lambda v: v.update(more=_nested(100))),
        "nested 100 deep in the network": changed(set_network(features=_nested(100))),
        "pickle: nested 900,000 deep": _with_pickle(program(b")" + b"\x85" * 900_000)),
        "pickle: more than a million opcodes": _with_pickle(program(b"]" + b"Na" * 600_000)),
        "pickle: a memo index of 2^31": _with_pickle(program(b"Nr" + struct.pack("<I", 2**31))),
        "pickle: bytearray of 10^12": _with_pickle(program(named("__builtin__", "bytearray"), group(integer(10**12)), b"R")),
        "pickle: os.system": _with_pickle(program(named("os", "system"), group(text("exit")), b"R")),
        "pickle: lists that amount to 100^10": _with_pickle(program(doubled(10))),
        "pickle: empty": _with_pickle(b""),
        "pickle: 33 MB": _with_pickle(program(text("a" * 33 * 2**20))),
        "tensor: stride 0": _tensor_file(_tensor(0, (2**31,), (0,))),
        "tensor: overlapping": _tensor_file(_tensor(0, (2, 3), (1, 1))),
        "tensor: negative stride": _tensor_file(_tensor(3, (4,), (-1,))),
        "tensor: negative offset": _tensor_file(_tensor(-1)),
        "tensor: behind its storage": _tensor_file(_tensor(1)),
        "tensor: far behind its storage": _tensor_file(_tensor(2**39, (1,))),
        "tensor: fewer strides": _tensor_file(_tensor(0, (2, 2), (1,))),
        "tensor: 9 dimensions": _tensor_file(_tensor(0, (1,) * 9, (1,) * 9)),
        "tensor: 0 × 2^60": _tensor_file(_tensor(0, (0, 2**60), (1, 1))),
        "storage: longer than its member": _tensor_file(_tensor(storage=_storage(2**40))),
        "storage: shorter than its member": _tensor_file(_tensor(0, (1,), storage=_storage(1))),
        "storage: of no member": _tensor_file(_tensor(storage=_storage(key="9"))),
        "storage: outside its folder": _tensor_file(_tensor(storage=_storage(key="../data.pkl"))),
        "storage: of an unknown type": _tensor_file(_tensor(storage=_storage(kind="QInt8Storage"))),
        "storage: a number": _tensor_file(_tensor(storage=integer(1))),
        "storage: alone": _tensor_file(_storage()),
        "storage: used 1,000 times": _tensor_file(b"](" + _tensor() + b"q\x00" + b"h\x00" * 1000 + b"e"),
        "zip: compressed": rewritten(good, zipfile.ZIP_DEFLATED),
        "zip: a bomb": rewritten(good, zipfile.ZIP_DEFLATED, data_0=bytes(50 * 2**20)),
        "zip: bzip2": rewritten(good, zipfile.ZIP_BZIP2),
        "zip: without data.pkl": rewritten(good, data_pkl=None),
        "zip: without a storage": rewritten(good, data_0=None),
        "zip: a storage too short": rewritten(good, data_0=b"abc"),
        "zip: of another byte order": rewritten(good, byteorder=b"big"),
        "zip: a byte order of noise": rewritten(good, byteorder=b"\xff\xfe"),
        "zip: with a comment": good[:-2] + b"\x05\x00abcde",
        "zip: with something before": b"PK\3\4" + bytes(100) + good,
        "zip: with something behind": good + b"abc",
        "zip: cut": good[: len(good) // 2],
        "zip: an end alone": b"PK\3\4" + b"PK\5\6" + bytes(18),
        "zip: a directory of 4 GB": good[:-10] + b"\xfe\xff\xff\xff" + good[-6:],
        "zip: a wrong check sum": _patched(good, good.index(b"little"), b"litter"),
        "zip: sizes beyond the file": _patched(good, entry + 20, struct.pack("<LL", 2**31, 2**31)),
        "zip: an offset beyond the file": _patched(good, entry + 42, struct.pack("<L", 2**31)),
        "zip: encrypted": _patched(good, entry + 8, struct.pack("<H", 2057)),
        "zip: two entries of one member": _patched(
            good, _directory_entry(good, 1) + 42, good[entry + 42 : entry + 46]
        ),
        "zip: two members of one name": _twice(good),
        "zip: 150,000 empty members": _many_members(150_000),
        "zip: a second folder": rewritten(good).replace(b"archive/byteorder", b"another/byteorder"),
    }  # fmt: skip
    return cases


def _twice(data: bytes) -> bytes:
    name = b"archive/version"
    return data.replace(b"archive/data/1", b"archive/data/0") if b"archive/data/1" in data else data.replace(name, b"x")


def _many_members(count: int) -> bytes:
    header = b"PK\3\4" + bytes(22) + struct.pack("<HH", 1, 0) + b"a"
    entry = b"PK\1\2" + bytes(24) + struct.pack("<HHH", 1, 0, 0) + bytes(12) + b"a"
    directory = entry * count
    end = b"PK\5\6" + bytes(4) + struct.pack("<HHLLH", 65535, 65535, len(directory), len(header), 0)
    return header + directory + end


# Exports as safetensors.


def safetensors_file(header: Any, content: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def exported(architecture: str | None = None) -> bytes:
    """An export of the model of :func:`content`; ``architecture`` is the JSON in its metadata."""
    from safetensors.torch import save

    from d2csr.checkpoints.safetensors_file import ARCHITECTURE

    weights = {name.removeprefix("network."): value.contiguous() for name, value in content()["state_dict"].items()}
    return save(weights, {ARCHITECTURE: json.dumps(NETWORK) if architecture is None else architecture})


def safetensors_files() -> dict[str, bytes]:
    """Safetensors files that have to be refused, by what is wrong with them."""
    metadata = {"__metadata__": {"d2csr.architecture": json.dumps(NETWORK)}}

    def one(dtype: Any = "F32", shape: Any = (1,), size: int = 4, **more: Any) -> bytes:
        about = {"dtype": dtype, "shape": shape, "data_offsets": [0, size], **more}
        return safetensors_file({**metadata, "a": about}, bytes(size))

    types = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "I32": 4, "I64": 8, "C64": 8}
    cases = {f"a type: {dtype}": one(dtype, (1,), size) for dtype, size in types.items()}
    cases |= {
        f"a type: {dtype!r}": one(dtype, (8,), size) for dtype, size in {"F4": 4, "F6_E2M3": 6, "X": 8, "": 8}.items()
    }
    cases |= {f"a type: {dtype!r}": one(dtype) for dtype in (1, None, ["F32"])}
    shapes = {
        "100,000 dimensions": [0] * 100_000,
        "65 dimensions": [1] * 65,
        "9 dimensions": [1] * 9,
        "negative": [-1],
        "a float": [1.0],
        "a flag": [True],
        "a text": "1",
        "a number": 1,
        "0 × 2^62": [0, 2**62],
        "overflow": [2**32] * 3,
        "too large": [2],
        "nested": [[1]],
    }
    for name, shape in shapes.items():
        empty = "2^62" in name or "100,000" in name
        cases[f"a shape: {name}"] = one(shape=shape, size=0 if empty else 4)
    f32 = {"dtype": "F32", "shape": [1]}
    places = {
        "overlapping": ([0, 4], [0, 4]),
        "with a gap": ([0, 4], [8, 12]),
        "backwards": ([4, 0], [4, 8]),
        "behind the end": ([0, 4], [2**40, 2**40 + 4]),
    }
    for name, (first, second) in places.items():
        cases[f"places: {name}"] = safetensors_file(
            {**metadata, "a": {**f32, "data_offsets": first}, "b": {**f32, "data_offsets": second}}, bytes(8)
        )
    strange: dict[str, Any] = {
        "a float": [0.0, 4.0],
        "one number": [0],
        "a text": "04",
        "flags": [False, True],
        "null": None,
    }
    cases |= {f"places: {name}": one(data_offsets=value) for name, value in strange.items()}
    whole = exported()
    architectures = {
        "no JSON": "{",
        "empty": "{}",
        "null": "null",
        "a list": "[1]",
        "nested 900 deep": f'{{"features": {"[" * 900}{"]" * 900}}}',
        "nested 100,000 deep": "[" * 100_000,
        "NaN": json.dumps({**NETWORK, "features": float("nan")}),
        "infinite": json.dumps({**NETWORK, "scale": float("inf")}),
        "a number of 5,000 digits": f'{{"scale": {"9" * 5000}}}',
        "a number of 4,000 digits": json.dumps({**NETWORK, "scale": int("9" * 4000)}),
        "a text of 1,000,000 characters": json.dumps({**NETWORK, "scale": "9" * 10**6}),
        "a name of 1,000,000 characters": json.dumps({**NETWORK, "k" * 10**6: 1}),
        "a surrogate": json.dumps({**NETWORK, "body": {"name": "\ud800"}}),
        "a key twice": json.dumps(NETWORK)[:-1] + ', "features": 8}',
        "control characters": json.dumps({**NETWORK, "features": "\x1b[2J"}),
        "100,000 levels": json.dumps({**NETWORK, "branching": [1] * 100_000}),
        "12,000 features": json.dumps({**NETWORK, "features": 12_000}),
        "an unknown setting": json.dumps({**NETWORK, "_target_": "os.system"}),
    }
    cases |= {f"an architecture: {name}": exported(value) for name, value in architectures.items()}
    return cases | {
        "no metadata": safetensors_file({"a": {**f32, "data_offsets": [0, 4]}}, bytes(4)),
        "metadata that are a list": safetensors_file({"__metadata__": [1]}),
        "metadata of numbers": safetensors_file({"__metadata__": {"d2csr.architecture": 1}}),
        "a header that is a list": safetensors_file(b"[1]"),
        "a tensor that is a number": safetensors_file({**metadata, "a": 1}),
        "a name twice": safetensors_file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "a header of 2^63 bytes": safetensors_file(b"{}", length=2**63),
        "a header of 1 GB": safetensors_file(b"{}", length=2**30),
        "a header of 3 MB of spaces": safetensors_file(b"{" + b" " * 3 * 2**20 + b"}"),
        "a header nested 500,000 deep": safetensors_file(b'{"a":' + b"[" * 500_000),
        "a header that is not UTF-8": safetensors_file(b'{"\xff\xfe": 1}'),
        "a header longer than the file": safetensors_file(b"{}", length=1000),
        "30,000 tensors": safetensors_file({**metadata, **{f"{i:05}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}}),
        "no tensors": safetensors_file(metadata),
        "cut": whole[:-1],
        "cut in the header": whole[:100],
        "longer": whole + b"\0",
        "a weight that is NaN": whole[:-4] + struct.pack("<f", float("nan")),
    }  # fmt: skip


# Training checkpoints.


def training_content() -> dict[str, Any]:
    """The content of a training checkpoint that resumes, without Lightning's counters."""
    from d2csr.resumable_loop import random_state

    value = content()
    parameter = value["state_dict"]["network.divergence.head.bias"]
    value["optimizer_states"] = [
        {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(parameter)}}, "param_groups": [{"params": [0], "lr": 1e-4}]}
    ]  # fmt: skip
    value |= {"lr_schedulers": [], "loops": {}, "callbacks": {}, "hyper_parameters": {"optimization": "alternating"}}
    value |= {"epoch": 1, "global_step": 3, "settings": {"seed": 1}}
    value["position"] = {
        "epoch": 1,
        "batch": 0,
        "step": 3,
        "closed": True,
        "patches": 4,
        "rows": 3,
        "random": [random_state()],
    }
    return value


def _entry(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(entries)


def _position(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["position"].update(entries)


def _random(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["position"]["random"][0].update(entries)


def _moment(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["optimizer_states"][0]["state"][0].update(exp_avg=value)


def resume_files() -> dict[str, bytes]:
    """Training checkpoints that have to be refused, by what is wrong with them."""
    numbers = np.random.RandomState(0).get_state(legacy=True)
    keys = torch.from_numpy(np.asarray(numbers[1], np.int64))
    changes = {
        "no position": lambda v: v.pop("position"),
        "no optimizer": lambda v: v.pop("optimizer_states"),
        "no step": lambda v: v.pop("global_step"),
        "no epoch": lambda v: v.pop("epoch"),
        "a position that is a list": _entry(position=[1]),
        "an unknown entry of the position": _position(colour=1),
        "a negative epoch": _position(epoch=-1),
        "an epoch of 2^60": _position(epoch=2**60),
        "a batch that is a text": _position(batch="1"),
        "a batch that is a flag": _position(batch=True),
        "a step that is a tensor": _position(step=torch.tensor(1)),
        "closed, a number": _position(closed=1),
        "a negative number of rows": _position(rows=-5),
        "random states that are a dict": _position(random={}),
        "a random state that is a list": _position(random=[[1]]),
        "an empty random state": _position(random=[{}]),
        "Python's state: too short": _random(python=[3, [1, 2], None]),
        "Python's state: negative": _random(python=[3, [-1] * 625, None]),
        "Python's state: an index of 10^9": _random(python=[3, [1] * 624 + [10**9], None]),
        "Python's state: of another version": _random(python=[9, [1] * 625, None]),
        "numpy's state: too short": _random(numpy=["MT19937", keys[:5], 1, 0, 0.0]),
        "numpy's state: a position of 10^9": _random(numpy=["MT19937", keys, 10**9, 0, 0.0]),
        "numpy's state: another generator": _random(numpy=["PCG64", keys, 1, 0, 0.0]),
        "numpy's state: a list": _random(numpy=["MT19937", [1] * 624, 1, 0, 0.0]),
        "torch's state: too short": _random(torch=torch.zeros(3, dtype=torch.uint8)),
        "torch's state: noise": _random(torch=torch.full((5056,), 255, dtype=torch.uint8)),
        "torch's state: floats": _random(torch=torch.zeros(5056)),
        "CUDA's state: a number": _random(cuda=1),
        "CUDA's state: numbers": _random(cuda=[1, 2]),
        "optimizers that are a dict": _entry(optimizer_states={}),
        "an optimizer that is a list": _entry(optimizer_states=[[]]),
        "an optimizer without groups": _entry(optimizer_states=[{"state": {}}]),
        "an optimizer whose state is a list": _entry(optimizer_states=[{"state": [], "param_groups": []}]),
        "an optimizer whose groups are numbers": _entry(optimizer_states=[{"state": {}, "param_groups": [1]}]),
        "a moment of another shape": _moment(torch.zeros(7, 7)),
        "a moment that is expanded": _moment(torch.zeros(1).expand(8)),
        "schedulers that are numbers": _entry(lr_schedulers=[1]),
        "loops that are a list": _entry(loops=[1]),
        "loops of numbers": _entry(loops={"fit_loop": 1}),
        "callbacks that are a list": _entry(callbacks=[1]),
        "hyper-parameters that are a list": _entry(hyper_parameters=[1]),
        "settings that are a list": _entry(settings=[1]),
        "settings that hold a tensor": _entry(settings={"data": {"batch_size": torch.zeros(2)}}),
        "a step that is a float": _entry(global_step=1.5),
        "schedules that are a list": _entry(schedulers=[1]),
        "schedules of 2^53 epochs": _entry(schedulers={"stage": 0, "count": 2**53}),
        "schedules of -2^53 epochs": _entry(schedulers={"stage": 0, "count": -(2**53)}),
    }
    cases = {}
    for name, change in changes.items():
        value = training_content()
        change(value)
        cases[name] = saved(value)
    return cases


# Random damage.


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield a file with flipped bits, cut off, with parts moved, repeated or replaced."""
    generator = random.Random(seed)
    for _ in range(count):
        broken = bytearray(data)
        for _ in range(generator.choice((1, 1, 2, 8))):
            at, length = generator.randrange(len(broken)), generator.choice((1, 2, 4, 30))
            kind = generator.randrange(5)
            if kind == 0:
                broken[at] ^= 1 << generator.randrange(8)
            elif kind == 1:
                broken[at : at + length] = generator.randbytes(length)
            elif kind == 2:
                del broken[at : at + length]
            elif kind == 3:
                broken[at:at] = broken[at - length : at]
            else:
                other = generator.randrange(len(broken))
                broken[at : at + length] = broken[other : other + length]
            broken = broken or bytearray(b"\0")
        if generator.random() < 0.1:
            del broken[generator.randrange(len(broken)) :]
        yield bytes(broken)


def small_official(protocol: int) -> bytes:
    """An official checkpoint of a few hundred bytes; its arrays make no network."""
    arrays = {f"head.0.{kind}": np.ones((2, 3), "f4") for kind in ("weight", "bias")}
    return pickle.dumps({"state_dict_D": arrays, "state_dict_C": {"x": np.ones(2, ">f8")}}, protocol=protocol)
