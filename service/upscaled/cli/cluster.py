"""`upscaled cluster`: check a Ray cluster, and print what deploys replicas on one."""

import sys
from contextlib import redirect_stdout
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Final

import typer

from upscaled.cli.console import fail, opened_state
from upscaled.cli.doctor import print_findings
from upscaled.config.values import require_package

if TYPE_CHECKING:
    from upscaled.upscale.model_choice import AutoChoice

commands = typer.Typer(
    no_args_is_help=True,
    help="Check a Ray cluster, and print the files that deploy replicas on it.",
)

Replicas = Annotated[int, typer.Option(min=1, metavar="N", help="Number of replicas.")]
Cpus = Annotated[
    float,
    typer.Option(
        min=0.1, metavar="CORES", help="Cores reserved for each replica; it uses as many threads."
    ),
]
Gpus = Annotated[
    float,
    typer.Option(min=0, metavar="GPUS", help="GPUs for each replica; 0.5: two replicas share one."),
]
Memory = Annotated[
    float,
    typer.Option(
        min=0, metavar="GIB", help="Memory reserved for each replica; 0: none is reserved."
    ),
]
Kubernetes = Annotated[
    bool,
    typer.Option(
        "--kubernetes", help="Print a RayService for KubeRay, with a pod for each replica."
    ),
]
Image = Annotated[
    str,
    typer.Option(
        metavar="IMAGE", help="With --kubernetes: image of the pods, such as upscaled:cpu-cluster."
    ),
]

_ADVICE: Final = "set RAY_ADDRESS and RAY_AUTH_TOKEN as on the nodes, and run it on one of them"


@commands.command()
def check(
    is_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look at every node of the cluster and at the replicas; each line is ok or what is wrong.

    Runs a task on each node, and changes nothing. Exit status 1 if there is a failure, or no
    cluster; 0 without.
    """
    _require_ray()
    from upscaled.doctor.cluster import check_cluster
    from upscaled.doctor.finding import failure
    from upscaled.pool.ray_serve.inspection import inspect_cluster
    from upscaled.pool.ray_serve.node_properties import ClusterUnreachable

    try:
        with redirect_stdout(sys.stderr):  # where Ray prints what it notices, of lost nodes for one
            report = inspect_cluster()
        findings = check_cluster(report)
    except ClusterUnreachable as error:
        findings = [failure("cluster", f"cannot be reached: {error}", _ADVICE)]
    print_findings(findings, is_json=is_json)


@commands.command()
def manifest(
    replicas: Replicas = 2,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    memory: Memory = 0,
    is_kubernetes: Kubernetes = False,
    image: Image = "",
) -> None:
    """Print Ray Serve's config file for `serve run`, or a RayService for `kubectl apply`.

    A changed --replicas scales without a restart; other changes replace replica after replica.
    """
    _require_ray()
    from importlib.metadata import version

    from upscaled.pool.ray_serve.kubernetes import PodOptions, as_yaml, default_image, ray_service
    from upscaled.pool.ray_serve.options import DeploymentArguments, serve_config

    if not all(isfinite(each) for each in (cpus, gpus, memory)):
        raise fail("--cpus, --gpus and --memory must be finite", 2)
    memory_mib = round(memory * 1024)
    arguments = DeploymentArguments(
        replicas=replicas, num_cpus=cpus, num_gpus=gpus, memory_mib=memory_mib
    )
    if not is_kubernetes:
        typer.echo(as_yaml(serve_config(arguments)), nl=False)
        return
    if gpus != int(gpus) or not memory_mib:
        raise fail("--kubernetes needs --memory, and whole --gpus: a pod shares none", 2)
    pod = PodOptions(image or default_image(int(gpus)), cpus, memory_mib, int(gpus))
    typer.echo(as_yaml(ray_service(arguments, pod, version("ray"))), nl=False)


@commands.command()
def thresholds(
    is_reset: Annotated[
        bool,
        typer.Option(
            "--reset", help="Delete the thresholds: the next front end that starts stores its own."
        ),
    ] = False,
) -> None:
    """Print which model `auto` uses up to which size, on all machines of a database.

    The first front end of a PostgreSQL or of a cluster stores that, and all others adopt it.
    """
    from upscaled.state.errors import UnreadableChoice

    with opened_state() as state:
        try:
            stored = state.auto_choice.read()
        except UnreadableChoice as error:
            if not is_reset:
                raise
            lines = [str(error)]
        else:
            lines = [] if stored is None else _describe_thresholds(stored)
        if is_reset:
            state.auto_choice.reset()
    if not lines:
        typer.echo("no thresholds are stored: the next front end that starts stores its own")
        return
    typer.echo("\n".join(lines))
    if is_reset:
        typer.echo("deleted the thresholds: the next front end that starts stores its own")


def _describe_thresholds(choice: "AutoChoice") -> list[str]:
    lines = []
    for scale, ladder in sorted(choice.ladders.items()):
        lines.append(f"x{scale}: {'; '.join(rung.describe() for rung in ladder)}")
        lines.append(f"    models and settings: {choice.plans.get(scale, '')}")
    return lines


def _require_ray() -> None:
    try:
        require_package("a cluster needs", "ray", "--no-deps -r requirements-cluster.lock")
    except ValueError as error:
        raise fail(error, 2) from None
