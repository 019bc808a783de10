"""Whether wandb may send or record anything here. Standard library only: compare has no torch."""

import logging
import netrc
import os
from urllib.parse import urlsplit

PROJECT = "let_titan"

logger = logging.getLogger()  # torchtitan's, too


def is_silent() -> bool:
    """Whether wandb is to send and record nothing: it was told so, or there is no account."""
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not has_account():
        logger.info(
            "wandb: no account on this machine, nothing is sent (WANDB_MODE=offline records to the "
            "dump folder, wandb login sends)."
        )
        return True
    return mode == "disabled"


def has_account() -> bool:
    """Whether an API key is at hand: WANDB_API_KEY, or the netrc file that ``wandb login`` writes.

    That is $NETRC or ~/.netrc, which wandb reads even where others may.
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    file = os.path.expanduser(os.environ.get("NETRC") or "~/.netrc")  # Path's needs a home
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
