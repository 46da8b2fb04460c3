"""`hsm-agent config show`: print every value that counts now, and where it comes from."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from agent.cli.options import Config, Output, is_json, with_options
from agent.cli.terminal import print_result, width
from agent.config.options import OPTIONS
from agent.config.origins import effective_options
from agent.hosts.local import local_host
from agent.render import config

if TYPE_CHECKING:
    from collections.abc import Mapping


def _show(*, given: Mapping[str, Any], config_file: Config = None, output: Output = "text") -> None:
    """Show every value that counts for configure now, and where it comes from.

    Secrets are hidden. Options given here count as they do for configure. Nothing is changed, and AWS is not asked.
    """
    as_json = is_json(output)
    found = effective_options(local_host(), given, config_file, os.environ)
    print_result(
        json.dumps(config.document(found), indent=2) + "\n" if as_json else config.screen(found, width())
    )


show = with_options(_show, given=OPTIONS)
