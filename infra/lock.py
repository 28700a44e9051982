"""Turn `pip freeze` into constraints.txt.

Local version labels (`+cpu`) go, so that any build of a version fits. Triton and the CUDA
libraries are left to torch, which pins them itself where it brings them.
"""

from __future__ import annotations

import sys

LEFT_TO_TORCH = ("triton", "nvidia-", "cuda-", "pip=", "setuptools=", "wheel=")

if __name__ == "__main__":
    sys.stdout.write("# Every version the tests ran with; `make lock` writes this file.\n")
    for line in sorted(sys.stdin, key=str.lower):
        if "==" in line and not line.lower().startswith(LEFT_TO_TORCH):
            sys.stdout.write(line.split("+")[0].rstrip() + "\n")
