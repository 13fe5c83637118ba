"""Download files of the Hugging Face Hub, with an error in one line within seconds if there is no network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from avseg.errors import CheckpointError

_SECONDS = 5.0
"""Time after which the Hub counts as unreachable; its client alone tries again for half a minute."""


def download(repository: str, fetch: Callable[..., str], **options: Any) -> Path:
    """Download from the Hub; without a network, use the files of an earlier download.

    Args:
        repository: ``owner/name``.
        fetch: ``snapshot_download`` or ``hf_hub_download`` of huggingface_hub.
        **options: Its further arguments.

    Returns:
        The path that ``fetch`` returns.

    Raises:
        CheckpointError: When the Hub refuses or cannot be reached, and there is no earlier download.
    """
    unreachable = _unreachable()
    try:
        return Path(fetch(repository, local_files_only=unreachable is not None, **options))
    except Exception as error:
        # The Hub client raises a dozen kinds: unknown repository, no such file, no permission.
        reason = unreachable or next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{repository} is no local folder or file, and the Hub reports: {reason}") from error


def _unreachable() -> str | None:
    """Return why the Hub cannot be reached, in one line; None if it can."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "it is switched off by HF_HUB_OFFLINE"
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception as error:  # the errors of the HTTP library, which differs between versions of the client
        return f"{constants.ENDPOINT} cannot be reached ({' '.join(str(error).split()) or type(error).__name__})"
    return None
