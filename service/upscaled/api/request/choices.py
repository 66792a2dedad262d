"""Read the choices of a request that go beyond the contract, from headers and fields.

Each is a header `X-Upscale-Format` or a field `x_upscale_format` of the form or of the JSON object.
Whether a request is a dry run, or is to be a job, is read from headers alone.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.request import parse_http_list

from starlette.datastructures import Headers

from upscaled.errors import InvalidParameter
from upscaled.image.output import (
    KEEP,
    KEEP_ALL,
    LOSSLESS,
    MAX_OUTPUT_SIDE_PX,
    MAX_QUALITY,
    METADATA_CHOICES,
    OUTPUT_FORMATS,
    OutputChoice,
)
from upscaled.upscale.model_choice import AUTO
from upscaled_models.store import MAX_NAME_CHARACTERS, NAME_PATTERN

MODEL_HEADER: Final = "X-Upscale-Model"
"""In a request, the model to use; in an answer, the model that was used."""
DENOISE_HEADER: Final = "X-Upscale-Denoise"
"""In a request, the strength of denoising; in an answer, the one that was used."""
TEMPERED_HEADER: Final = "X-Upscale-Tempered-With"
"""In an answer, the faithful model that the result was mixed with; absent where it was not."""
FORMAT_HEADER: Final = "X-Upscale-Format"
QUALITY_HEADER: Final = "X-Upscale-Quality"
MAX_SIDE_HEADER: Final = "X-Upscale-Max-Side"
WIDTH_HEADER: Final = "X-Upscale-Width"
HEIGHT_HEADER: Final = "X-Upscale-Height"
METADATA_HEADER: Final = "X-Upscale-Metadata"
DRY_RUN_HEADER: Final = "X-Upscale-Dry-Run"

_NAME: Final = re.compile(NAME_PATTERN)
_Kind = Literal["exact", "name", "whole", "decimal"]
_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_STRENGTH: Final = re.compile(r"0|1|0?\.[0-9]{1,30}|1\.0{1,30}", re.ASCII)


RESPOND_ASYNC: Final = "respond-async"
"""The preference, in a request's `Prefer` and in the answer's `Preference-Applied`."""


def describe_header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a request's optional header as an OpenAPI parameter."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": schema,
    }


CHOICE_PARAMETERS: Final = (
    describe_header(
        MODEL_HEADER,
        "The model to use, one that `GET /v1/models` lists, or `auto`, which is "
        "the same as no header: the best model that the server can afford for the picture. A "
        "model that is not present, or is named twice, is `invalid_parameter`; nothing is charged.",
        {
            "type": "string",
            "pattern": f"^{NAME_PATTERN}$",
            "maxLength": MAX_NAME_CHARACTERS,
            "default": AUTO,
        },
    ),
    describe_header(
        FORMAT_HEADER,
        "The format of the result, in place of JPEG, or PNG where the image has alpha. `jpeg` lays "
        f"what is transparent on white; `{LOSSLESS}` is a PNG with all bits that the image has.",
        {"type": "string", "enum": list(OUTPUT_FORMATS)},
    ),
    describe_header(
        QUALITY_HEADER,
        "The quality of a JPEG, WebP or AVIF; refused beside a format without any.",
        {"type": "integer", "minimum": 1, "maximum": MAX_QUALITY},
    ),
    *(
        describe_header(
            name, description, {"type": "integer", "minimum": 1, "maximum": MAX_OUTPUT_SIDE_PX}
        )
        for name, description in (
            (MAX_SIDE_HEADER, "A longer result is scaled down to it, its shape kept."),
            (WIDTH_HEADER, "The result is scaled down to it; refused where it is narrower."),
            (HEIGHT_HEADER, "As the width; with both the result is as large as both allow."),
        )
    ),
    describe_header(
        METADATA_HEADER,
        f"`{KEEP}`: the result has the image's EXIF and XMP, without its preview, its maker notes "
        f"and where it was taken; `{KEEP_ALL}`: with the latter.",
        {"type": "string", "enum": list(METADATA_CHOICES)},
    ),
    describe_header(
        DENOISE_HEADER,
        "How much noise a model removes that has this choice (`denoise` in `GET /v1/models`): 1 "
        "most, 0 keeps it; rounded to a tenth. Any other model is refused, `auto` too.",
        {"type": "number", "minimum": 0, "maximum": 1},
    ),
)
"""The headers as OpenAPI parameters."""
DRY_RUN_PARAMETER: Final = describe_header(
    DRY_RUN_HEADER,
    "`true`: check the request, and answer 200 with an `Estimate` in place of the result. Nothing "
    "is upscaled or charged.",
    {"type": "boolean", "default": False},
)
PREFER_PARAMETER: Final = describe_header(
    "Prefer",
    "`respond-async`: accept the request as a job, which runs later (202)",
    {"type": "string"},
)

_DRY_RUN_VALUES: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one request, as sent."""

    headers: Headers
    fields: Mapping[str, object]

    def values(self, header: str, kind: _Kind = "exact") -> list[str]:
        """Return the texts of an option: one for each header, and the field's where it differs.

        Texts that mean the same are spelled alike. A field may also be a number of JSON.
        """
        values = [_spell(text, kind) for text in self.headers.getlist(header)]
        field = self.fields.get(header.lower().replace("-", "_"))
        if field is None:
            return values
        numbers = int | float if kind == "decimal" else int
        is_number = isinstance(field, numbers) and not isinstance(field, bool)
        # No option may be "", or have the exponent of a small number's own text.
        shown = f"{field:.9f}" if is_number and isinstance(field, float) else str(field)
        text = _spell(shown, kind) if isinstance(field, str) or is_number else ""
        return values if text in values else [*values, text]

    def value(self, header: str, kind: _Kind) -> str | None:
        """Return the text of an option, as one of `values`; None where it is not there.

        Raises:
            InvalidParameter: it is there twice, or with two values.
        """
        values = self.values(header, kind)
        if len(values) > 1:
            raise InvalidParameter(f"{header} must be sent once")
        return values[0] if values else None

    def name(self, header: str, names: Collection[str]) -> str:
        """Return an option that is one of these names, in any letter case; "" without it.

        Raises:
            InvalidParameter: it is none of them, or there twice.
        """
        text = self.value(header, "name")
        if text is None:
            return ""
        if text not in names:
            raise InvalidParameter(f"{header} must be one of {', '.join(names)}")
        return text

    def number(self, header: str, most: int) -> int | None:
        """Return the whole number of an option, from 1 to `most`; None where it is not there.

        Raises:
            InvalidParameter: it is no such number, or there twice.
        """
        text = self.value(header, "whole")
        if text is None:
            return None
        number = int(text) if _DIGITS.fullmatch(text) else 0
        if not 1 <= number <= most:
            raise InvalidParameter(f"{header} must be a whole number from 1 to {most}")
        return number


def read_denoise_strength(headers: Headers, fields: Mapping[str, object]) -> float | None:
    """Return the strength of denoising in a request, from 0 to 1; None without one.

    Raises:
        InvalidParameter: no decimal number in that range, or two of them.
    """
    text = _Options(headers, fields).value(DENOISE_HEADER, "decimal")
    if text is None:
        return None
    if not _STRENGTH.fullmatch(text):
        raise InvalidParameter(f"{DENOISE_HEADER} must be a number from 0 to 1, such as 0.5")
    return float(text)


def _spell(text: str, kind: _Kind) -> str:
    """Normalise texts that mean the same number, such as 0.5, .5 and 0.50, to one."""
    if kind == "name":
        return text.lower()
    if kind == "whole" and _DIGITS.fullmatch(text):
        return str(int(text))
    if kind == "decimal" and _STRENGTH.fullmatch(text):
        return f"{float(text):.9f}"
    return text


def read_choices(headers: Headers, fields: Mapping[str, object]) -> tuple[str, OutputChoice]:
    """Return the model that a request names, "" for none, and its choice of an output.

    Raises:
        InvalidParameter: a value that cannot be, one sent twice, or two that contradict each other.
    """
    options = _Options(headers, fields)
    model = parse_model_header(options.values(MODEL_HEADER))
    form = options.name(FORMAT_HEADER, OUTPUT_FORMATS)
    return model, OutputChoice(
        format=form,
        quality=_read_quality(options, form),
        max_side_px=options.number(MAX_SIDE_HEADER, MAX_OUTPUT_SIDE_PX),
        width_px=options.number(WIDTH_HEADER, MAX_OUTPUT_SIDE_PX),
        height_px=options.number(HEIGHT_HEADER, MAX_OUTPUT_SIDE_PX),
        metadata=options.name(METADATA_HEADER, METADATA_CHOICES),
    )


def parse_model_header(values: Sequence[str]) -> str:
    """Return the model that a request names; "" where it names none, or `auto`.

    values: one for each header of that name, without white space around.

    Raises:
        InvalidParameter: several headers, or a value that no model can have as its name. The value
            is not repeated in the text: it may hold anything.
    """
    if not values:
        return ""
    if len(values) > 1:
        raise InvalidParameter(f"{MODEL_HEADER} must be sent once")
    (name,) = values
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"{MODEL_HEADER} must be {AUTO} or the name of one model: at most "
            f"{MAX_NAME_CHARACTERS} letters, digits, dots, hyphens and underscores"
        )
    return "" if name == AUTO else name


def _read_quality(options: _Options, form: str) -> int | None:
    quality = options.number(QUALITY_HEADER, MAX_QUALITY)
    if quality is not None and not OutputChoice(form).has_quality:
        raise InvalidParameter(f"{QUALITY_HEADER}: {form} has no quality")
    return quality


def parse_dry_run_header(values: Sequence[str]) -> bool:
    """Return whether a request is a dry run, by the values of its headers of that name.

    Raises:
        InvalidParameter: another value than `true` or `false`, or several headers. A client that
            meant a dry run must not be charged.
    """
    if not values:
        return False
    is_dry_run = _DRY_RUN_VALUES.get(values[0].lower()) if len(values) == 1 else None
    if is_dry_run is None:
        raise InvalidParameter(f"{DRY_RUN_HEADER} must be true or false")
    return is_dry_run


def may_be_dry_run(values: Sequence[str]) -> bool:
    """Return whether a request is a dry run, or will be refused for its header's value."""
    try:
        return parse_dry_run_header(values)
    except InvalidParameter:
        return True


def prefers_async(prefer_headers: Sequence[str]) -> bool:
    """Return whether a request's `Prefer` headers hold `respond-async` (RFC 7240)."""
    preferences = parse_http_list(",".join(prefer_headers))
    names = (preference.partition(";")[0].partition("=")[0] for preference in preferences)
    return any(name.strip(" \t").lower() == RESPOND_ASYNC for name in names)
