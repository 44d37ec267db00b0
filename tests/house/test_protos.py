"""The contracts: commented, regular, and the generated code beside them up to date."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from tests.house.tree import GENERATED, ROOT

# Verbs of calls that change something.
MUTATING = ("Put", "Register", "Create", "Update", "Delete", "Amend", "Merge", "Accept", "Cancel")

# Field numbers of descriptor.proto, which paths of source comments are made of.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM = 2, 3, 4
ENUM_VALUE, SERVICE_METHOD = 2, 2

Path_ = tuple[int, ...]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """Descriptors of our .proto files with their comments."""
    out = tmp_path_factory.mktemp("descriptors") / "all.pb"
    names = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "protos").rglob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            f"--descriptor_set_out={out}",
            "--include_source_info",
            *names,
        ],
        cwd=ROOT,
        check=True,
    )
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def _things(file: FileDescriptorProto) -> Iterator[tuple[Path_, str]]:
    """Everything in a file that must be commented, with its path."""
    for i, message in enumerate(file.message_type):
        yield from _in_message(message, (FILE_MESSAGE, i), message.name)
    for i, enum in enumerate(file.enum_type):
        yield (FILE_ENUM, i), enum.name
        for j, value in enumerate(enum.value[1:], start=1):
            yield (FILE_ENUM, i, ENUM_VALUE, j), f"{enum.name}.{value.name}"
    for i, service in enumerate(file.service):
        yield (FILE_SERVICE, i), service.name
        for j, method in enumerate(service.method):
            yield (FILE_SERVICE, i, SERVICE_METHOD, j), f"{service.name}.{method.name}"


def _in_message(message: DescriptorProto, path: Path_, name: str) -> Iterator[tuple[Path_, str]]:
    yield path, name
    for i, field in enumerate(message.field):
        yield (*path, MESSAGE_FIELD, i), f"{name}.{field.name}"
    for i, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _in_message(nested, (*path, MESSAGE_NESTED, i), f"{name}.{nested.name}")


def test_everything_is_commented(files: list[FileDescriptorProto]) -> None:
    """Every message, field, enum, value, service and call says what it means."""
    bare: list[str] = []
    for file in files:
        commented = {
            tuple(place.path)
            for place in file.source_code_info.location
            if place.leading_comments.strip() or place.trailing_comments.strip()
        }
        bare += [f"{file.name}: {name}" for path, name in _things(file) if path not in commented]
    assert bare == []


def test_enums_start_unspecified(files: list[FileDescriptorProto]) -> None:
    """Zero means that the sender did not say."""
    firsts = {
        f"{file.name}: {enum.name}": (enum.value[0].name, enum.value[0].number)
        for file in files
        for enum in (*file.enum_type, *(e for m in file.message_type for e in m.enum_type))
    }
    assert {
        name: first
        for name, first in firsts.items()
        if not first[0].endswith("_UNSPECIFIED") or first[1] != 0
    } == {}


def test_changes_carry_a_request_id(files: list[FileDescriptorProto]) -> None:
    """A call that changes something can be repeated without doing it twice."""
    messages = {f".{f.package}.{m.name}": m for f in files for m in f.message_type}
    without = [
        f"{service.name}.{method.name}"
        for file in files
        for service in file.service
        for method in service.method
        if method.name.startswith(MUTATING)
        and "request_id" not in {field.name for field in messages[method.input_type].field}
    ]
    assert without == []


def test_packages_are_versioned(files: list[FileDescriptorProto]) -> None:
    """A file lies in the folder of its package, and the package ends in its version."""
    wrong = [
        file.name
        for file in files
        if file.package.replace(".", "/") != str(Path(file.name).parent.relative_to("protos"))
        or not file.package.endswith(".v1")
    ]
    assert wrong == []


def test_no_floats_of_single_precision(files: list[FileDescriptorProto]) -> None:
    """Measured values keep their digits."""
    assert [
        f"{message.name}.{field.name}"
        for file in files
        for message in file.message_type
        for field in message.field
        if field.type == FieldDescriptorProto.TYPE_FLOAT
    ] == []


def test_generated_code_is_current(tmp_path: Path) -> None:
    """Generating again gives what is committed, byte for byte."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_protos", "--out", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    made = {
        path.relative_to(tmp_path): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.name.endswith(GENERATED)
    }
    kept = {
        path.relative_to(ROOT): path.read_bytes()
        for path in (ROOT / "protos").rglob("*")
        if path.name.endswith(GENERATED)
    }
    assert sorted(made) == sorted(kept)
    assert [str(name) for name in made if made[name] != kept[name]] == []


def test_buf_finds_nothing() -> None:
    """The linter of the field agrees, but for what buf.yaml excepts with a reason."""
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run([buf, "lint"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
