"""Compiles the kernel of `router_model` when the package is built; without it, NumPy serves."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_WHEELS = "sys_platform in 'linux darwin' and platform_machine in 'x86_64 aarch64 arm64'"
_ZIG = f"ziglang>=0.13; {_WHEELS}"


class KernelHook(BuildHookInterface[Any]):
    """Puts the library into a wheel, or beside the sources of an editable installation."""

    def dependencies(self) -> list[str]:
        """Zig's compiler as a wheel, where the system has none."""
        steps = self._steps()
        return [] if steps["library_path"]().exists() or steps["compiles"](steps["SYSTEM"]) else [_ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling. A failed compilation does not fail the build."""
        library = self._steps()["build"]()
        if isinstance(library, str):
            self.app.display_warning(f"The kernel was not compiled, and NumPy will serve instead: {library}")
        elif version != "editable":
            build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _steps(self) -> dict[str, Any]:
        return runpy.run_path(str(Path(self.root, "router_model/native/build.py")))
