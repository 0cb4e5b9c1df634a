"""vidgen: run, combine and measure video-diffusion research methods; a method is a small plugin, and methods compose.

Importing this package is light: torch arrives with the first call of ``generate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidgen_core.card import Plugin
from vidgen_core.hookspecs import HOOK_API_VERSION, hookimpl

if TYPE_CHECKING:
    from vidgen_core.api import Video, generate

__version__ = "0.1.0"
__all__ = ["HOOK_API_VERSION", "Plugin", "Video", "__version__", "generate", "hookimpl"]


def __getattr__(name: str) -> Any:
    if name in ("generate", "Video"):
        from vidgen_core import api

        return getattr(api, name)
    raise AttributeError(f"module 'vidgen_core' has no attribute '{name}'")
