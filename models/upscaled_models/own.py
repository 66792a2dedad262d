"""The record of a user's own model, which lies beside its weights file. Loads no torch."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from upscaled_models.errors import ModelError
from upscaled_models.families import Family, Shape, check_shape
from upscaled_models.files import hash_file
from upscaled_models.registry import ModelSpec, describe_model


class OwnModel(BaseModel):
    """The content of `own/NAME.json`: the weights file, and the network that it fills."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int
    family: Family
    shape: dict[str, int | str]

    def describe(self, name: str) -> ModelSpec:
        """Return the spec of the model under that name.

        Raises:
            ValueError: no network of the family has such a shape.
        """
        return describe_model(
            name,
            self.family,
            self.shape,
            file_name=self.file,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            licence="the file's own",
            source="user",
        )


def make_record(weights: Path, file_name: str, family: Family, shape: Shape) -> OwnModel:
    """Return the record of the weights at `weights`, which will be installed as `file_name`."""
    return OwnModel(
        file=file_name,
        sha256=hash_file(weights),
        size_bytes=weights.stat().st_size,
        family=family,
        shape=dict(shape),
    )


def read_record(path: Path) -> OwnModel:
    """Read the record at `path`.

    Raises:
        ModelError: it is missing, damaged, or describes no possible network; the text names it.
    """
    try:
        record = OwnModel.model_validate_json(path.read_bytes())
        check_shape(record.family, record.shape)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a readable record of a model") from error
    return record
