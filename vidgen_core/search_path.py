"""Hydra, kept to its own job: one tree from the chosen group options. Imported only when something is composed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import ContextVar

from hydra import compose, initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vidgen_core.catalog import CORE_CONF
from vidgen_core.errors import VidgenError

_confs: ContextVar[tuple[str, ...]] = ContextVar("plugin_confs", default=())
_hydra_is_one_per_process = threading.Lock()


class PluginConfs(SearchPathPlugin):
    """Adds ``pkg://<package>.conf`` of each vidgen plugin; adds nothing to other Hydra programs of the process."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for package in _confs.get():
            search_path.append("vidgen", f"pkg://{package}")


def compose_groups(groups: Sequence[str], plugin_confs: Sequence[str], entry: str = "config") -> DictConfig:
    """The tree of ``<entry>.yaml`` with the groups chosen as ``model=tiny``; Hydra's own state is as it was before.

    Raises VidgenError for a file of the configuration that cannot be composed.
    """
    Plugins.instance().register(PluginConfs)
    with _hydra_is_one_per_process:
        state = GlobalHydra.instance()
        outer, token = state.hydra, _confs.set(tuple(plugin_confs))
        state.clear()
        try:
            with initialize_config_module(CORE_CONF, version_base="1.3"):
                return compose(entry, overrides=list(groups))
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            reason = " ".join(str(error).partition("\nConfig search path:")[0].split())
            raise VidgenError(f"The files of {', '.join(groups)} cannot be composed: {reason}") from error
        finally:
            _confs.reset(token)
            GlobalHydra.instance().hydra = outer
