"""Parse database URLs, and show them without their passwords."""

from pathlib import Path
from typing import Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from upscaled.state.errors import DatabaseRefused

_STARS: Final = "***"
_FORMS: Final = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"


def parse_database_url(database_url: str, data_dir: Path, password: str = "") -> URL:
    """Return the URL with the driver we use; an empty one is SQLite's file in `data_dir`.

    Args:
        password: of a PostgreSQL whose URL has none, unescaped.

    Raises:
        DatabaseRefused: a URL of another kind, or none that the password is for.
    """
    url = _parse(database_url, data_dir)
    if not password:
        return url
    if url.get_backend_name() != "postgresql" or url.username is None or url.password is not None:
        raise DatabaseRefused(
            "UPSCALED_DATABASE_PASSWORD is set, so UPSCALED_DATABASE_URL must be "
            "postgresql://USER@HOST/NAME, without a password"
        )
    return url.set(password=password)


def _parse(database_url: str, data_dir: Path) -> URL:
    if not database_url:
        return URL.create("sqlite", database=str(data_dir / "upscaled.sqlite3"))
    try:
        url = sa.make_url(database_url.replace("postgres://", "postgresql://", 1))
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):  # the last of a port that is no number
        raise DatabaseRefused(f"UPSCALED_DATABASE_URL is not a database URL: {_FORMS}") from None
    if _has_raw_at_sign(url):
        raise DatabaseRefused(
            "UPSCALED_DATABASE_URL: an @ in the password is written %40; or give the password as "
            "it is by UPSCALED_DATABASE_PASSWORD"
        )
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite")
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise DatabaseRefused(f"UPSCALED_DATABASE_URL={hide_password(database_url)}: {_FORMS}")


def find_sqlite_file(database_url: str, data_dir: Path) -> Path | None:
    """Return the path of SQLite's file, whether it exists or not; None for another database."""
    url = parse_database_url(database_url, data_dir)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def hide_password(database_url: str) -> str:
    """Return the URL with stars for its passwords, and only stars if it cannot be parsed."""
    try:
        url = sa.make_url(database_url)
    except (ArgumentError, ValueError):
        return _STARS
    if _has_raw_at_sign(url):
        return _STARS
    hidden = {name: _STARS for name in url.query if "pass" in name.lower()}
    shown = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return shown.replace(quote(_STARS), _STARS)


def _has_raw_at_sign(url: URL) -> bool:
    """Return whether an unescaped @ in a password made the rest of it part of the host."""
    return "@" in (url.host or "")
