"""What a Triton kernel becomes on a chip, found by compiling it: no GPU is needed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    aligned: frozenset[str] = frozenset()
    products: bool = True


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
    faults: tuple[str, ...] = field(default=())


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
