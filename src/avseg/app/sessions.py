"""Files of the users of ``avseg app``: one upload and one result folder per user, deleted after use.

An upload is deleted when its run ends, when another one replaces it, or when the user leaves. A result is deleted when
the user starts another run or leaves, and :data:`LONGEST_KEPT` seconds after its run at the latest. The server deletes
everything when it stops. Folders have random names that cannot be guessed: whoever has the link of a result may read
it.
"""

import os
import secrets
import shutil
from pathlib import Path
from threading import RLock, Timer

from avseg.errors import MediaError

LONGEST_KEPT = 3600.0
"""Seconds after which a result is deleted, even if its page is still open."""


class Sessions:
    """Uploads and results by user; all methods may be called from any thread.

    Args:
        root: Existing folder.
    """

    def __init__(self, root: Path) -> None:
        self._uploads, self._results = root / "uploads", root / "results"
        self._uploads.mkdir()
        self._results.mkdir()
        self._lock = RLock()
        self._upload: dict[str, Path] = {}
        self._token: dict[str, str] = {}

    def receive(self, user: str, file: Path) -> None:
        """Move an uploaded file to a folder of the user; it replaces an earlier one.

        Args:
            user: Key of the user.
            file: The file, in a folder of the web framework that users may share.

        Raises:
            MediaError: When another user's upload of the same file was moved at the same moment.
        """
        folder = self._uploads / secrets.token_urlsafe(16)
        with self._lock:
            self.drop(user)
            folder.mkdir()
            self._upload[user] = folder / file.name
        try:
            os.replace(file, folder / file.name)
        except FileNotFoundError:
            self.drop(user)
            raise MediaError(f"the upload of {file.name} was interrupted: upload it again") from None

    def drop(self, user: str) -> None:
        """Delete the upload of a user, if there is one."""
        with self._lock:
            file = self._upload.pop(user, None)
        if file is not None:
            shutil.rmtree(file.parent, ignore_errors=True)

    def take(self, user: str) -> Path:
        """Return the upload of a user; the caller deletes its folder.

        Raises:
            MediaError: When there is none.
        """
        with self._lock:
            file = self._upload.pop(user, None)
        if file is None:
            raise MediaError("there is no video: upload one first")
        return file

    def begin(self, user: str) -> str:
        """Delete the earlier result of a user and create the folder of the next one; return its name."""
        with self._lock:
            self.stop(user)
            token = secrets.token_urlsafe(16)
            (self._results / token).mkdir()
            self._token[user] = token
        return token

    def active(self, token: str) -> bool:
        """Return whether a result is still wanted: its user has neither left nor stopped the run."""
        with self._lock:
            return token in self._token.values()

    def expire(self, token: str) -> None:
        """Delete a result after :data:`LONGEST_KEPT` seconds."""
        timer = Timer(LONGEST_KEPT, self._delete, [token])
        timer.daemon = True
        timer.start()

    def stop(self, user: str) -> None:
        """Delete the result of a user; a run that is writing it ends."""
        with self._lock:
            token = self._token.get(user)
            if token is not None:
                self._delete(token)

    def leave(self, user: str) -> None:
        """Delete all files of a user."""
        self.drop(user)
        self.stop(user)

    def folder(self, token: str) -> Path:
        """Return the folder of a result."""
        return self._results / token

    def find(self, token: str, path: str) -> Path | None:
        """Return a file of a result; None if there is no such result, or no such file inside its folder."""
        if not self.active(token):
            return None
        folder = self.folder(token).resolve()
        file = (folder / path).resolve()
        return file if file.is_file() and folder in file.parents else None

    def _delete(self, token: str) -> None:
        with self._lock:
            self._token = {user: own for user, own in self._token.items() if own != token}
        shutil.rmtree(self.folder(token), ignore_errors=True)
