"""What the Triton kernels become on a chip, found by compiling them: no GPU is needed.

python -m mosaic_core.kernels.builds [--json] [--only NAME]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Architecture = Literal[80, 90, 100]
"""Compute capability: A100, H100 and H200, B200."""

ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

SHARED_LIMIT: Mapping[Architecture, int] = {80: 166_912, 90: 232_448, 100: 232_448}
"""Bytes of shared memory that one program may use; the compiler does not look."""

TENSOR_CORE: Mapping[Architecture, frozenset[str]] = {
    80: frozenset({"HMMA", "IMMA"}),
    90: frozenset({"HGMMA", "IGMMA"}),
    100: frozenset({"UTCHMMA", "UTCIMMA", "UTCQMMA"}),
}
_MMA = re.compile(r"\b(HMMA|IMMA|HGMMA|IGMMA|QGMMA|UTCHMMA|UTCIMMA|UTCQMMA)\b")
_NARROW_COPY = re.compile(r"\bLDGSTS\.E(?!\S*\.(?:64|128))\S*")
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


@dataclass(frozen=True)
class Build:
    """One kernel as the full configuration launches it.

    Attributes:
        name: as in the table of the docs.
        kernel: the `triton.jit` function.
        types: of each argument that is not a constant, as Triton writes them (`*fp16`, `i32`).
        constants: values of its `tl.constexpr` arguments.
        warps, stages: of the launch.
        aligned: arguments that are multiples of 16 (pointers always are).
        products: whether it multiplies matrices, so that tensor cores are due.
        architectures: chips that it is launched on.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    aligned: frozenset[str] = frozenset()
    products: bool = True
    architectures: tuple[Architecture, ...] = ARCHITECTURES


@dataclass(frozen=True)
class Usage:
    """What the compiled kernel takes, and what is wrong with it.

    Attributes:
        registers: of a thread.
        spilled: bytes of stack and local memory of a thread.
        shared: bytes of shared memory of a program.
        products: tensor-core instructions by name.
        narrow_copies: asynchronous copies of under 8 bytes, which are slow.
    """

    build: str
    architecture: Architecture
    registers: int
    spilled: int
    shared: int
    products: Mapping[str, int]
    narrow_copies: int
    faults: tuple[str, ...] = ()


def every_build() -> Iterator[Build]:
    """The `BUILDS` of all modules of the `triton` packages under `mosaic_core.kernels`."""
    import mosaic_core.kernels as kernels

    for module in sorted(
        found.name
        for found in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}.")
        if ".triton." in found.name
    ):
        yield from getattr(importlib.import_module(module), "BUILDS", ())


def compiled(build: Build, architecture: Architecture) -> Usage:
    """Compile a kernel for a chip and look at the machine code.

    Raises:
        CompilationError (of Triton): the kernel does not compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = build.kernel.arg_names
    unknown = set(names) ^ (set(build.types) | set(build.constants))
    if unknown:
        raise ValueError(
            f"{build.name}: arguments {sorted(unknown)} are not described or not there"
        )
    signature = {n: "constexpr" if n in build.constants else build.types[n] for n in names}
    aligned = [i for i, n in enumerate(names) if signature[n].startswith("*") or n in build.aligned]
    source = ASTSource(
        fn=build.kernel,
        signature=signature,
        constexprs=dict(build.constants),
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    kernel = triton.compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={
            "num_warps": build.warps,
            "num_stages": build.stages,
            "enable_fp_fusion": True,
        },
    )
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(kernel.asm["cubin"])
        cubin.flush()
        resources = _tool(tools / "cuobjdump", "--dump-resource-usage", cubin.name)
        code = _tool(tools / "cuobjdump", "-sass", cubin.name)
    found = _USAGE.search(resources)
    assert found is not None, resources
    registers, stack, local = map(int, found.groups())
    usage = Usage(
        build=build.name,
        architecture=architecture,
        registers=registers,
        spilled=stack + local,
        shared=kernel.metadata.shared,
        products=dict(Counter(_MMA.findall(code))),
        narrow_copies=len(_NARROW_COPY.findall(code)),
    )
    return Usage(**{**vars(usage), "faults": _faults(usage, build.products)})


def _faults(usage: Usage, products: bool) -> tuple[str, ...]:
    limit, chip = SHARED_LIMIT[usage.architecture], TENSOR_CORE[usage.architecture]
    faults = []
    if usage.spilled:
        faults.append(f"spills {usage.spilled} bytes a thread")
    if usage.shared > limit:
        faults.append(f"{usage.shared} bytes of shared memory, the chip has {limit}")
    if products and not chip & set(usage.products):
        faults.append(f"no tensor-core instruction of this chip ({', '.join(sorted(chip))})")
    if products and set(usage.products) - chip:
        faults.append(f"instructions of older chips: {', '.join(set(usage.products) - chip)}")
    if usage.narrow_copies:
        faults.append(f"{usage.narrow_copies} asynchronous copies of 4 bytes")
    return tuple(faults)


def _tool(program: Path, *arguments: str) -> str:
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, check=True
    ).stdout


def main() -> int:
    """Compile every kernel for every chip; 1 if one has a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="builds whose name holds this")
    given = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("TRITON_INTERPRET=1 leaves nothing to compile: unset it")
    builds = [build for build in every_build() if given.only in build.name]
    usages = [compiled(build, chip) for build in builds for chip in build.architectures]
    if given.json:
        print(json.dumps([asdict(usage) for usage in usages]))  # noqa: T201
    else:
        for u in usages:
            print(  # noqa: T201
                f"{u.build:44} sm_{u.architecture:<4} {u.registers:3} registers "
                f"{u.shared:7} B shared  {'; '.join(u.faults) or 'good'}"
            )
    return 1 if any(usage.faults for usage in usages) else 0


if __name__ == "__main__":
    sys.exit(main())
