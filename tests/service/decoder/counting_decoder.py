"""Decoder process that puts into each picture's credit how often it took each step of reading."""

import json
from dataclasses import replace

import upscaled.decoder.child as child
from tests.service.image.steps import count_reading
from upscaled.image.decode import decode
from upscaled.image.types import Credit, Header, Image, MetadataPlan

COUNTS = count_reading(setattr)


def decode_and_report(source: bytes, header: Header, plan: MetadataPlan | None) -> Image:
    image = replace(decode(source, header, plan), credit=Credit(artist=json.dumps(COUNTS)))
    COUNTS.clear()
    return image


if __name__ == "__main__":
    vars(child).update(decode=decode_and_report)
    child.main()
