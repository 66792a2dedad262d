"""Images that stand in for PostgreSQL's and Moto's, which come from a registry not reached here.

Debian's PostgreSQL and Moto's Python package, behind what the two images promise: what is started,
as whom, where data lies, and which variables are read.
"""

from importlib.metadata import version
from pathlib import Path

from tests.docker.buildah import Buildah

POSTGRESQL = "postgresql:stand-in"
MOTO = "moto:stand-in"


def build_stand_ins(store: Buildah, base: str, folder: Path) -> None:
    """Build both images on a bare Debian.

    Args:
        folder: takes what the images are built from.
    """
    dockerfiles = {POSTGRESQL: _postgresql(base), MOTO: _moto(base)}
    for image, dockerfile in dockerfiles.items():
        context = folder / image.partition(":")[0]
        context.mkdir()
        (context / "Dockerfile").write_text(dockerfile)
        (context / "start").write_text(_START_POSTGRESQL)
        store.build(context, context / "Dockerfile", image, {})


def _postgresql(base: str) -> str:
    return f"""\
FROM {base}
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \\
    --no-install-recommends postgresql >/dev/null
RUN install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data \\
    && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
COPY start /usr/local/bin/start
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
CMD ["sh", "/usr/local/bin/start"]
"""


_START_POSTGRESQL = """\
set -eu
mkdir -p /var/run/postgresql
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
: "${POSTGRES_PASSWORD:?}"
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    printf '%s\\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username "$POSTGRES_USER" --pwfile /tmp/password --auth scram-sha-256 >/dev/null
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_USER" | postgres --single postgres >/dev/null
fi
exec postgres -c listen_addresses='*'
"""


def _moto(base: str) -> str:
    return f"""\
FROM {base}
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \\
    python3 -m venv /opt/moto && /opt/moto/bin/pip install -qq 'moto[server]=={version("moto")}'
ENTRYPOINT ["/opt/moto/bin/moto_server", "-H", "0.0.0.0"]
"""
